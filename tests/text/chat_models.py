"""Chat models in the formats of real ones: a small vocabulary with its markers, and a template."""

import functools
from dataclasses import dataclass
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, trainers

from penstock.text.tokenizer import Tokenizer

TEMPLATES = Path(__file__).parent / "templates"

# Words of the markers, so that merges run across their boundaries as they do in real vocabularies.
SAMPLE = """\
the quick brown fox jumps over the lazy dog. The end! été, naïve, 日本語, 👩‍👧 system user assistant
<|x|> <|im_x|> </x> <s> [X] [/X] im_start im_end start_header_id end_header_id eot_id tool_call
start_of_turn end_of_turn INST TOOL_CALLS tool▁calls▁begin ｜User｜ <｜ ｜> |> <| "name": "x" {} ><
"""
SPLIT = r"(?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"


@dataclass(frozen=True)
class ChatModel:
    """`special` and `plain` markers: the latter are added tokens that are not special ones."""

    name: str
    kind: str
    special: tuple[str, ...]
    plain: tuple[str, ...] = ()

    @property
    def markers(self) -> tuple[str, ...]:
        return self.special + self.plain

    @property
    def source(self) -> str:
        return (TEMPLATES / f"{self.name}.jinja").read_text()

    def library(self) -> tokenizers.Tokenizer:
        library = KINDS[self.kind]()
        library.add_special_tokens(list(self.special))
        library.add_tokens([AddedToken(text, normalized=False) for text in self.plain])
        library.add_tokens(["  ", "    "])  # ordinary text, as in many vocabularies
        return library

    def tokenizer(self) -> Tokenizer:
        return _tokenizer(self)

    def plain_ids(self, text: str) -> list[int]:
        """What the library itself makes of a text in which it looks for no markers."""
        return _blind(self).encode(text, add_special_tokens=False).ids

    def expected_ids(self, golden: str) -> list[int]:
        """Token ids of a prompt in which the template's own markers stand in double brackets."""
        library, ids = _blind(self), []
        for place, part in enumerate(golden.replace("⟧", "⟦").split("⟦")):
            ids += [library.token_to_id(part)] if place % 2 else self.plain_ids(part)
        return ids


@functools.cache
def _tokenizer(model: ChatModel) -> Tokenizer:
    named = {"bos_token": model.special[0], "eos_token": model.special[1]}
    return Tokenizer(model.library(), special_tokens=named, chat_template_source=model.source)


@functools.cache
def _blind(model: ChatModel) -> tokenizers.Tokenizer:
    library = model.library()
    library.add_special_tokens(list(model.markers))
    library.encode_special_tokens = True
    return library


@functools.cache
def _byte_level_vocabulary() -> str:
    library = tokenizers.Tokenizer(models.BPE())
    library.normalizer = normalizers.NFC()
    library.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    library.train_from_iterator([SAMPLE] * 3, trainer)
    return library.to_str()


def _byte_level() -> tokenizers.Tokenizer:
    """Llama 3, Qwen, DeepSeek."""
    return tokenizers.Tokenizer.from_str(_byte_level_vocabulary())


def _sentencepiece(*, prepends: bool) -> tokenizers.Tokenizer:
    """Llama 2 and Mistral put a space before every stretch of text; Gemma does not."""
    pieces = [f"<0x{byte:02X}>" for byte in range(256)]
    pieces += ["▁", *"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.,!:<>[]/|_é日"]
    merges = [("t", "h"), ("th", "e"), ("▁", "the"), ("▁", "a"), ("▁", "▁"), ("<", "s"), ("▁", "s")]
    merges += [
        ("/", "s"),
        ("s", ">"),
        ("▁", "/"),
        ("I", "N"),
        ("IN", "S"),
        ("INS", "T"),
        ("▁", "|"),
    ]
    pieces += ["".join(merge) for merge in merges]
    vocab = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    library = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges, byte_fallback=True))
    replace = normalizers.Replace(" ", "▁")
    library.normalizer = (
        normalizers.Sequence([normalizers.Prepend("▁"), replace]) if prepends else replace
    )
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    library.decoder = decoders.Sequence(steps + ([decoders.Strip(" ", 1, 0)] if prepends else []))
    return library


KINDS = {
    "byte level": _byte_level,
    "prepending": functools.partial(_sentencepiece, prepends=True),
    "sentencepiece": functools.partial(_sentencepiece, prepends=False),
}

_QWEN_SPECIAL = ("<|endoftext|>", "<|im_end|>", "<|im_start|>")
_TOOL_TAGS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")

CHATML = ChatModel("chatml", "byte level", _QWEN_SPECIAL, _TOOL_TAGS)
QWEN3 = ChatModel("qwen3", "byte level", _QWEN_SPECIAL, (*_TOOL_TAGS, "<think>", "</think>"))
LLAMA3 = ChatModel(
    "llama3",
    "byte level",
    (
        *("<|begin_of_text|>", "<|eot_id|>", "<|end_of_text|>", "<|start_header_id|>"),
        *("<|end_header_id|>", "<|eom_id|>", "<|python_tag|>"),
    ),
)
MISTRAL = ChatModel(
    "mistral",
    "prepending",
    (
        *("<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]"),
        *("[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]"),
    ),
)
GEMMA = ChatModel("gemma", "sentencepiece", ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"))
DEEPSEEK = ChatModel(
    "deepseek",
    "byte level",
    ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"),
    (
        *("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>"),
        *("<｜tool▁call▁end｜>", "<｜tool▁sep｜>", "<｜tool▁outputs▁begin｜>"),
        *("<｜tool▁outputs▁end｜>", "<｜tool▁output▁begin｜>", "<｜tool▁output▁end｜>"),
        *("<think>", "</think>"),
    ),
)
CHAT_MODELS = (CHATML, QWEN3, LLAMA3, MISTRAL, GEMMA, DEEPSEEK)
