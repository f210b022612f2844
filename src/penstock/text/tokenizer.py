"""Text to token ids and back, by the tokenizer.json of a model directory."""

from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache
from pathlib import Path

import tokenizers
from tokenizers.processors import TemplateProcessing

from penstock.text.chat_template import ChatTemplate
from penstock.text.markers import Markers
from penstock.text.mid_text import mid_text_library
from penstock.text.spelling import spelling_of
from penstock.text.tokenizer_files import (
    chat_template_source,
    named_special_tokens,
    read_json_object,
)
from penstock.vocabulary.errors import InvalidRequest, ModelError


class Tokenizer:
    """A model's vocabulary. `bos_token` and `eos_token` are None where the model names none, and so
    is `chat_template_source`.

    Every id lies below `vocab_size`, those of added tokens included. An id without a token, as in
    the padding of an embedding, spells nothing. A text of more than `max_chars` is not encoded.
    """

    def __init__(
        self,
        library: tokenizers.Tokenizer,
        *,
        special_tokens: dict[str, str] | None = None,
        add_bos_token: bool | None = None,
        chat_template_source: str | None = None,
        max_chars: int | None = None,
    ) -> None:
        self._library = library
        self._max_chars = max_chars
        self._special_tokens = special_tokens or {}
        self.chat_template_source = chat_template_source
        self.bos_token = self._special_tokens.get("bos_token")
        self.eos_token = self._special_tokens.get("eos_token")
        _make_plain(library, self._special_tokens.values())
        if self.bos_token is not None and add_bos_token is not None:
            _settle_bos(library, self.bos_token, add_bos_token)
        added = library.get_added_tokens_decoder()
        self.special_tokens = {token.content: id_ for id_, token in added.items() if token.special}
        self.special_token_ids = frozenset(self.special_tokens.values())
        self.vocab_size = max(library.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        self.markers = Markers(
            library, chat_template_source or "", unknown=self._special_tokens.get("unk_token")
        )
        self._spelling = spelling_of(library.decoder)
        self._later = lru_cache(maxsize=self.vocab_size)(self._spell_later)

    @classmethod
    def from_dir(cls, model_dir: Path, *, max_chars: int | None = None) -> "Tokenizer":
        """The tokenizer of a Hugging Face model directory. Raises `ModelError` if it has none."""
        library = _load(model_dir)
        config = read_json_object(model_dir / "tokenizer_config.json")
        add_bos_token = config.get("add_bos_token")
        return cls(
            library,
            special_tokens=named_special_tokens(model_dir, config),
            add_bos_token=add_bos_token if isinstance(add_bos_token, bool) else None,
            chat_template_source=chat_template_source(model_dir, config),
            max_chars=max_chars,
        )

    @cached_property
    def chat_template(self) -> ChatTemplate | None:
        """How this model wants a conversation written down, or None if it does not say."""
        if self.chat_template_source is None:
            return None
        return ChatTemplate(self.chat_template_source, special_tokens=self._special_tokens)

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Token ids of `text`, in which special tokens may be spelled out.

        A conversation is encoded by `chat_prompt`, which lets only the template spell them.
        """
        self._check_len(text)
        try:
            # a batch of one: others go on meanwhile, since only for batches is Python's lock let go
            [encoding] = self._library.encode_batch_fast(
                [text], add_special_tokens=add_special_tokens
            )
            return encoding.ids
        except TypeError:  # a lone surrogate, which no UTF-8 can carry
            raise InvalidRequest("The text is not valid Unicode.") from None
        except Exception as error:  # of a text that the vocabulary has no tokens for
            raise InvalidRequest(
                f"The model's tokenizer cannot encode this text: {error}."
            ) from None

    def encode_with_offsets(self, text: str) -> list[tuple[int, tuple[int, int]]]:
        """What `encode` gives, and of which characters each token was made: (first, past the last).

        The tokens of one character share it; a special token put before the text has none.
        """
        self._check_len(text)
        try:
            [encoding] = self._library.encode_batch([text])  # a batch, as in `encode`
        except TypeError:  # as in `encode`
            raise InvalidRequest("The text is not valid Unicode.") from None
        return list(zip(encoding.ids, encoding.offsets, strict=True))

    def _check_len(self, text: str) -> None:
        if self._max_chars is not None and len(text) > self._max_chars:
            raise InvalidRequest(
                f"The prompt has {len(text)} characters; this server accepts {self._max_chars}.",
                remedy="Shorten it.",
            )

    def encode_within(self, text: str) -> list[int] | None:
        """Token ids that spell exactly `text`, which stands in the middle of another.

        No space is put before it, nothing is normalized, and what looks like a special token is
        plain text. None if the vocabulary cannot spell it.
        """
        ids = self._mid_text.encode(text, add_special_tokens=False).ids
        return ids if self.spell(ids, at_start=False) == text.encode() else None

    def framed(self, token_ids: Sequence[int]) -> list[int]:
        """`token_ids` between the special tokens that `encode` puts around a text."""
        begin, end = self._frame
        return [*begin, *token_ids, *end]

    @cached_property
    def _frame(self) -> tuple[list[int], list[int]]:
        text, whole = self.encode("a", add_special_tokens=False), self.encode("a")
        lengths = range(len(whole) - len(text) + 1)
        begin = next(length for length in lengths if whole[length : length + len(text)] == text)
        return whole[:begin], whole[begin + len(text) :]

    @cached_property
    def _mid_text(self) -> tokenizers.Tokenizer:
        return mid_text_library(self._library)

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """The text of `token_ids`; bytes that are no UTF-8 become U+FFFD."""
        hidden = None if skip_special_tokens else frozenset[int]()
        spelled = self.spell(token_ids, at_start=True, hidden=hidden)
        return spelled.decode("utf-8", "replace")

    def spell(
        self,
        token_ids: Iterable[int],
        *,
        at_start: bool,
        hidden: frozenset[int] | None = None,
    ) -> bytes:
        """The bytes that these tokens add to a text, of which they are the start or not.

        Tokens that are `hidden` add nothing; by default these are the special ones.
        """
        hidden = self.special_token_ids if hidden is None else hidden
        shown = [id_ for id_ in token_ids if id_ not in hidden]
        parts = list(map(self._later, shown))
        if at_start:
            place = next((place for place, part in enumerate(parts) if part), None)
            if place is not None:
                parts[place] = self._spelling.first(self._library.id_to_token(shown[place]) or "")
        return b"".join(parts)

    def token_bytes(self, token_id: int) -> bytes:
        """The exact bytes of one token, wherever in a text it stands but at its start."""
        return self._later(token_id)

    def token_text(self, token_id: int) -> str:
        """One token as text. A token may begin or end within a character: that part is U+FFFD."""
        return self.token_bytes(token_id).decode("utf-8", "replace")

    def _spell_later(self, token_id: int) -> bytes:
        token = self._library.id_to_token(token_id)
        return b"" if token is None else self._spelling.later(token)


def _load(model_dir: Path) -> tokenizers.Tokenizer:
    path = model_dir / "tokenizer.json"
    try:
        return tokenizers.Tokenizer.from_buffer(path.read_bytes())
    except FileNotFoundError:
        raise _no_tokenizer(model_dir) from None
    except Exception as error:  # the library raises plain exceptions for what it cannot parse
        raise ModelError(
            f"{path} cannot be read: {error}.", remedy="Fetch the model's tokenizer files again."
        ) from None


def _no_tokenizer(model_dir: Path) -> ModelError:
    if not model_dir.is_dir():
        return ModelError(f"There is no model directory {model_dir}.")
    older = [name for name in ("tokenizer.model", "vocab.json") if (model_dir / name).is_file()]
    if not older:
        return ModelError(
            f"{model_dir} has no tokenizer.json.",
            remedy="Fetch it from where the model came from, together with tokenizer_config.json.",
        )
    return ModelError(
        f"{model_dir} has {older[0]} but no tokenizer.json.",
        remedy="Convert it once with transformers: "
        f"AutoTokenizer.from_pretrained('{model_dir}').save_pretrained('{model_dir}').",
    )


def _make_plain(library: tokenizers.Tokenizer, special_tokens: Iterable[str]) -> None:
    """Neither truncate nor pad, whatever the file says; treat named special tokens as special."""
    library.no_truncation()
    library.no_padding()
    present = [text for text in special_tokens if library.token_to_id(text) is not None]
    library.add_special_tokens(present)


def _settle_bos(library: tokenizers.Tokenizer, bos_token: str, add_bos_token: bool) -> None:
    """tokenizer_config.json has the last word on whether a text begins with `bos_token`."""
    bos_id = library.token_to_id(bos_token)
    begins_with_bos = library.encode("").ids[:1] == [bos_id]
    if bos_id is None or begins_with_bos == add_bos_token:
        return
    library.post_processor = TemplateProcessing(
        single=f"{bos_token} $A" if add_bos_token else "$A",
        special_tokens=[(bos_token, bos_id)],
    )
