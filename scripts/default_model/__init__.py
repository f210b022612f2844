"""Builds the small model that ships inside the package: corpus, tokenizer, training, evaluation."""
