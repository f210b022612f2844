"""How to choose tokens: every sampling option, declared once.

A field's type, default, range and help stand here and nowhere else. The HTTP schema, the
command-line flags and docs/sampling.md are derived from these fields. `engine/sampler.py`,
`scheduling/sequence.py` or, by way of `Shaping`, the op `draw` reads each of them.
"""

import difflib
from typing import Annotated, Any, TypeVar, get_type_hints

import msgspec
import msgspec.structs
from msgspec import Meta

from penstock.vocabulary.errors import InvalidRequest
from penstock.vocabulary.grammar import Grammar
from penstock.vocabulary.watermark import Watermark

MAX_SAMPLES = 128
MAX_LOGPROBS = 20
MAX_STOP_STRINGS = 16
MAX_STOP_LEN = 1024
MAX_TOKEN_LIST = 4096
MAX_NAME_LEN = 64  # of a field nobody knows: what is longer is not compared with ours, nor told
LARGEST = 2**31 - 1  # of numbers without a better limit: what the engine keeps them in

_MOST_DIGITS = 18  # Python refuses to convert thousands of them

T = TypeVar("T")

TokenId = Annotated[int, Meta(ge=0, le=LARGEST)]
TokenIds = Annotated[list[TokenId], Meta(max_length=MAX_TOKEN_LIST)]
StopString = Annotated[str, Meta(min_length=1, max_length=MAX_STOP_LEN)]


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sampling options of one request. Every value is checked on construction.

    Raises `InvalidRequest`, with `param` naming the field, for a value of the wrong type or out of
    range.
    """

    n: Annotated[
        int,
        Meta(ge=1, le=MAX_SAMPLES, description="How many completions to draw for the prompt."),
    ] = 1
    max_tokens: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="Most tokens to generate; null means as many as the context still holds."),
    ] = 16
    min_tokens: Annotated[
        int,
        Meta(
            ge=0,
            le=LARGEST,
            description="The text does not end before this many tokens: no end-of-text or stop "
            "token is drawn, and no stop string heeded.",
        ),
    ] = 0
    temperature: Annotated[
        float,
        Meta(ge=0, le=2, description="Divides the logits; 0 takes the likeliest token (greedy)."),
    ] = 1.0
    top_k: Annotated[
        int,
        Meta(ge=-1, le=LARGEST, description="Keep only the k likeliest tokens; 0 or -1 keeps all."),
    ] = 0
    top_p: Annotated[
        float,
        Meta(gt=0, le=1, description="Keep the likeliest tokens whose probabilities sum to this."),
    ] = 1.0
    min_p: Annotated[
        float,
        Meta(ge=0, le=1, description="Keep tokens at least this likely relative to the likeliest."),
    ] = 0.0
    typical_p: Annotated[
        float,
        Meta(
            gt=0,
            le=1,
            description="Keep the tokens of most typical surprise whose probabilities sum to this "
            "(locally typical sampling, arXiv 2202.00666).",
        ),
    ] = 1.0
    repetition_penalty: Annotated[
        float,
        Meta(
            gt=0,
            le=10,
            description="Above 1 discourages tokens seen in prompt or output (arXiv 1909.05858).",
        ),
    ] = 1.0
    presence_penalty: Annotated[
        float,
        Meta(ge=-2, le=2, description="Subtracted from the logit of every token already output."),
    ] = 0.0
    frequency_penalty: Annotated[
        float,
        Meta(ge=-2, le=2, description="Subtracted once per time that a token was already output."),
    ] = 0.0
    logit_bias: Annotated[
        dict[TokenId, Annotated[float, Meta(ge=-100, le=100)]],
        Meta(max_length=1024, description="Added to the logits of these token ids."),
    ] = {}
    allowed_token_ids: Annotated[
        TokenIds | None,
        Meta(description="If given, only these token ids may be drawn."),
    ] = None
    banned_token_ids: Annotated[
        TokenIds,
        Meta(description="These token ids are never drawn."),
    ] = []
    stop: Annotated[
        Annotated[list[StopString], Meta(max_length=MAX_STOP_STRINGS)] | StopString | None,
        Meta(description="Generation ends when the text contains one of these strings."),
    ] = None
    include_stop_str_in_output: Annotated[
        bool,
        Meta(description="Leave the stop string that ended the text in the text."),
    ] = False
    stop_token_ids: Annotated[
        TokenIds,
        Meta(description="Generation ends when one of these token ids is drawn."),
    ] = []
    ignore_eos: Annotated[
        bool,
        Meta(description="Go on past the model's own end-of-text tokens."),
    ] = False
    seed: Annotated[
        Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None,
        Meta(description="Same seed, prompt and options: same text, whatever else is served."),
    ] = None
    logprobs: Annotated[
        Annotated[int, Meta(ge=0, le=MAX_LOGPROBS)] | None,
        Meta(description="Report each token's log probability, and those of this many likeliest."),
    ] = None
    prompt_logprobs: Annotated[
        Annotated[int, Meta(ge=0, le=MAX_LOGPROBS)] | None,
        Meta(description="The same for the tokens of the prompt."),
    ] = None
    skip_special_tokens: Annotated[
        bool,
        Meta(
            description="Leave special tokens out of the text. If not, one that ends the text is "
            "left out all the same, as a stop string is."
        ),
    ] = True
    watermark: Annotated[
        Watermark | bool,
        Meta(
            description="Mark the text so that whoever has the server's key can tell: "
            "docs/watermark.md."
        ),
    ] = False
    grammar: Annotated[
        Grammar | None,
        Meta(description="What the text must look like: docs/constrained-output.md."),
    ] = None

    def __post_init__(self) -> None:
        for name, type_ in _FIELD_TYPES.items():
            value = getattr(self, name)
            if value is not _DEFAULTS.get(
                name
            ):  # most are untouched, and a check costs microseconds
                _check(name, value, type_)
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise InvalidRequest(
                f"min_tokens ({self.min_tokens}) is more than max_tokens ({self.max_tokens}).",
                param="min_tokens",
            )
        if self.allowed_token_ids is not None and not (
            set(self.allowed_token_ids) - set(self.banned_token_ids)
        ):
            raise InvalidRequest(
                "allowed_token_ids leaves no token to draw.", param="allowed_token_ids"
            )
        if self.grammar is not None:
            self._check_beside_grammar(self.grammar)

    def _check_beside_grammar(self, grammar: Grammar) -> None:
        """Refuse what could leave no token that the grammar allows, or no end."""
        for name in ("allowed_token_ids", "banned_token_ids", "ignore_eos"):
            if getattr(self, name) != _DEFAULTS.get(name, []):
                raise InvalidRequest(
                    f"{name} cannot be combined with {grammar.param}.",
                    param=name,
                    remedy="The grammar alone says which tokens may come, and where the text ends.",
                )

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0

    @property
    def marking(self) -> Watermark | None:
        """`watermark` with its strength, whichever way it was given; None for no watermark."""
        if isinstance(self.watermark, Watermark):
            return self.watermark
        return Watermark() if self.watermark else None

    @property
    def stop_strings(self) -> list[str]:
        """`stop` as a list, whichever way it was given."""
        if self.stop is None:
            return []
        return [self.stop] if isinstance(self.stop, str) else self.stop


_FIELD_TYPES = {
    name: type_
    for name, type_ in get_type_hints(SamplingParams, include_extras=True).items()
    if not name.startswith("_")
}

_DEFAULTS = {
    field.name: field.default
    for field in msgspec.structs.fields(SamplingParams)
    if field.default is not msgspec.NODEFAULT
}


def _check(name: str, value: object, type_: Any) -> None:
    """A struct may have been made with any values: it is taken apart, so that they are checked."""
    is_struct = isinstance(value, msgspec.Struct)
    _converted(name, msgspec.to_builtins(value) if is_struct else value, type_)


def _converted(name: str, value: object, type_: type[T]) -> T:
    try:
        return msgspec.convert(value, type_)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"{name}: {error}", param=name) from None


def sampling_params_from(values: dict[str, Any], *, also_known: list[str]) -> SamplingParams:
    """Sampling options from decoded JSON. A null counts as not given; strings may key `logit_bias`.

    Raises `InvalidRequest` for a field that nobody knows, naming the nearest of our fields and
    `also_known` (what else the caller accepts).
    """
    known = [*_FIELD_TYPES, *also_known]
    for name in values:
        if name not in _FIELD_TYPES:
            told = name[:MAX_NAME_LEN]
            raise InvalidRequest(
                f"Unrecognized request argument supplied: {told}.",
                param=told,
                remedy=nearest(told, known),
            )
    given = {name: value for name, value in values.items() if value is not None}
    bias = given.get("logit_bias")
    if isinstance(bias, dict):
        given["logit_bias"] = {_token_id(key): value for key, value in bias.items()}
    if isinstance(given.get("grammar"), dict):
        given["grammar"] = _converted("grammar", given["grammar"], Grammar)
    if isinstance(given.get("watermark"), dict):
        given["watermark"] = _converted("watermark", given["watermark"], Watermark)
    return SamplingParams(**given)


def nearest(name: str, known: list[str]) -> str:
    """'Did you mean ...?' for a misspelt name, or nothing when nothing is near."""
    match = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean {match[0]}?" if match else ""


def _token_id(key: object) -> object:
    if isinstance(key, str) and key.isdecimal() and len(key) <= _MOST_DIGITS:
        return int(key)
    return key
