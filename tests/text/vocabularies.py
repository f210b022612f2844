"""Small tokenizers of the kinds that models come with, made on the spot."""

import json
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from penstock.text.tokenizer import Tokenizer

SAMPLE = "the quick brown fox jumps over the lazy dog. The end! été, naïve, 日本語, 👩‍👧\n" * 3
NAMED = {"bos_token": "<s>", "eos_token": "</s>"}


def byte_level() -> tokenizers.Tokenizer:
    """As GPT-2, Llama 3 and Qwen have it: every character of a token is a byte."""
    library = tokenizers.Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<s>", "</s>"],
        show_progress=False,
    )
    library.train_from_iterator([SAMPLE], trainer)
    library.add_tokens(["    ", "<tool>"])
    return library


def byte_fallback() -> tokenizers.Tokenizer:
    """As Llama 2 and Mistral have it: "▁" for a space, and bytes for what no piece covers."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += ["▁", *"abcdefghijklmnopqrstuvwxyz.,!é日", "th", "the", "▁the", "▁a", "▁▁"]
    merges = [("t", "h"), ("th", "e"), ("▁", "the"), ("▁", "a"), ("▁", "▁")]
    vocab = {piece: number for number, piece in enumerate(pieces)}
    library = tokenizers.Tokenizer(
        models.BPE(vocab=vocab, merges=merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True)
    )
    library.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    library.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    library.add_special_tokens(["<unk>", "<s>", "</s>"])
    return library


def metaspace() -> tokenizers.Tokenizer:
    """As T5 has it: "▁" for a space, and no way to spell a byte."""
    pieces = ["<unk>", "<s>", "</s>", "▁", *"abcdefghijklmnopqrstuvwxyz日", "▁the", "▁a", "▁▁b"]
    library = tokenizers.Tokenizer(
        models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[], unk_token="<unk>")
    )
    library.pre_tokenizer = pre_tokenizers.Metaspace()
    library.decoder = decoders.Metaspace()
    library.add_special_tokens(["<unk>", "<s>", "</s>"])
    return library


def wordpiece() -> tokenizers.Tokenizer:
    pieces = ["[UNK]", "hello", "world", "##ly", ".", "n", "'", "t"]
    vocab = {piece: number for number, piece in enumerate(pieces)}
    library = tokenizers.Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    library.decoder = decoders.WordPiece(cleanup=True)
    return library


def whole_words() -> tokenizers.Tokenizer:
    """No decoder at all: the library puts a space between tokens."""
    vocab = {word: number for number, word in enumerate(["<unk>", "one", "two", "three"])}
    library = tokenizers.Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    library.pre_tokenizer = pre_tokenizers.Whitespace()
    return library


KINDS = {
    function.__name__: function
    for function in (byte_level, byte_fallback, metaspace, wordpiece, whole_words)
}
LIBRARIES = {name: function() for name, function in KINDS.items()}
TOKENIZERS = {name: Tokenizer(library, special_tokens=NAMED) for name, library in LIBRARIES.items()}


def save(model_dir: Path, library: tokenizers.Tokenizer, **config: object) -> Path:
    """A model directory with this tokenizer and this tokenizer_config.json."""
    library.save(str(model_dir / "tokenizer.json"))
    (model_dir / "tokenizer_config.json").write_text(json.dumps(config))
    return model_dir
