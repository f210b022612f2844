"""The API of Hugging Face's Text Generation Inference (TGI), as of its version 3.3."""
