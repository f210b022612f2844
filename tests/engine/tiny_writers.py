"""Tiny random models with a tokenizer of their own: they write nonsense, in any vocabulary."""

from pathlib import Path

from tests.text.vocabularies import LIBRARIES, NAMED
from tests.text.vocabularies import save as save_tokenizer
from tests.tiny_models import GATED, save, tiny_model

KINDS = ("byte_level", "byte_fallback")
PADDING = 5  # ids of the model that the tokenizer does not have


def make_tiny_writer(kind: str, directory: Path) -> Path:
    """A Llama over one of the vocabularies of tests/text, in a model directory."""
    library = LIBRARIES[kind]
    options = {
        **GATED,
        "vocab_size": library.get_vocab_size() + PADDING,
        "max_position_embeddings": 2048,
        "bos_token_id": library.token_to_id("<s>"),
        "eos_token_id": library.token_to_id("</s>"),
    }
    save(tiny_model("Llama", **options), directory)
    return save_tokenizer(directory, library, **NAMED)
