"""The parameters of TGI's requests, and what they mean in our options."""

import secrets
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from penstock.server.settings import ServerSettings
from penstock.vocabulary.errors import InvalidRequest
from penstock.vocabulary.grammar import Grammar
from penstock.vocabulary.sampling_params import SamplingParams

Schema = dict[str, Any]


class JsonGrammar(msgspec.Struct, frozen=True, tag="json", forbid_unknown_fields=True):
    """JSON that validates against a schema, which must have properties."""

    value: Schema | str


class RegexGrammar(msgspec.Struct, frozen=True, tag="regex", forbid_unknown_fields=True):
    """Text that a regular expression matches as a whole."""

    value: str


class GrammarSchema(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A JSON schema and its name, which changes nothing."""

    schema: Schema
    name: str | None = None


class JsonSchemaGrammar(msgspec.Struct, frozen=True, tag="json_schema", forbid_unknown_fields=True):
    """The same as `json`, as OpenAI wraps it."""

    value: GrammarSchema


def _about(text: str) -> Meta:
    return Meta(description=text)


class GenerateParameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """TGI's `parameters`. Null is unset. Greedy unless something here asks for sampling."""

    best_of: Annotated[
        int | None, _about("Draw this many and answer the likeliest; not streamed.")
    ] = None
    temperature: Annotated[float | None, _about("Divides the logits; above 0.")] = None
    repetition_penalty: Annotated[
        float | None, _about("Above 1 discourages tokens seen in prompt or output.")
    ] = None
    frequency_penalty: Annotated[
        float | None, _about("Subtracted once per time that a token was already output.")
    ] = None
    top_k: Annotated[int | None, _about("Keep only the k likeliest tokens.")] = None
    top_p: Annotated[
        float | None, _about("Keep the likeliest tokens whose probabilities sum to this.")
    ] = None
    typical_p: Annotated[
        float | None, _about("Keep the tokens of most typical surprise, likewise.")
    ] = None
    do_sample: Annotated[bool | None, _about("Sample, even at temperature 1.")] = None
    max_new_tokens: Annotated[
        int | None, _about("Most tokens to generate; by default the rest of the context.")
    ] = None
    return_full_text: Annotated[
        bool | None, _about("Begin generated_text with the prompt. At / that is the default.")
    ] = None
    stop: Annotated[
        list[str] | None, _about("Generation ends behind one of these, which stays in the text.")
    ] = None
    truncate: Annotated[int | None, _about("Keep this many tokens of the prompt's end.")] = None
    watermark: Annotated[bool | None, _about("Mark the text: docs/watermark.md.")] = None
    details: Annotated[bool | None, _about("Report tokens, seed and finish reason.")] = None
    decoder_input_details: Annotated[
        bool | None, _about("And the prompt's tokens with their log probabilities.")
    ] = None
    seed: Annotated[Annotated[int, Meta(ge=0)] | None, _about("Same seed, same text.")] = None
    top_n_tokens: Annotated[
        Annotated[int, Meta(ge=0)] | None,
        _about("Report this many likeliest tokens at each place."),
    ] = None
    grammar: Annotated[
        JsonGrammar | RegexGrammar | JsonSchemaGrammar | None,
        _about("What the text must look like."),
    ] = None
    adapter_id: Annotated[str | None, _about("Not supported yet.")] = None

    @property
    def samples(self) -> bool:
        """Whether anything but the likeliest token may be drawn."""
        return (
            bool(self.do_sample)
            or self.temperature not in (None, 1.0)
            or any(each is not None for each in (self.top_k, self.top_p, self.typical_p))
        )

    @property
    def reports_details(self) -> bool:
        """Whether the answer has `details`."""
        return bool(self.details or self.decoder_input_details)


def checked(parameters: GenerateParameters, settings: ServerSettings, *, stream: bool) -> None:
    """Refuse, in TGI's words, what TGI would refuse too. Raises `InvalidRequest`."""
    _check_ranges(parameters)
    _check_best_of(parameters, settings, stream=stream)
    num_stops, most_stops = len(parameters.stop or ()), settings.max_stop_sequences
    if num_stops > most_stops:
        raise InvalidRequest(
            f"`stop` supports up to {most_stops} stop sequences. Given: {num_stops}", param="stop"
        )
    num_top, most_top = parameters.top_n_tokens or 0, settings.max_top_n_tokens
    if num_top > most_top:
        raise InvalidRequest(
            f"`top_n_tokens` must be >= 0 and <= {most_top}. Given: {num_top}",
            param="top_n_tokens",
        )
    if stream and parameters.decoder_input_details:
        raise InvalidRequest(
            "`decoder_input_details` == true is not supported when streaming tokens",
            param="decoder_input_details",
        )
    if parameters.adapter_id:
        raise InvalidRequest("`adapter_id` is not supported yet by this server", param="adapter_id")


def _check_ranges(parameters: GenerateParameters) -> None:
    def check(name: str, bounds: str, *, holds: bool | None) -> None:
        if holds is False:
            raise InvalidRequest(f"`{name}` must be {bounds}", param=name)

    given = parameters
    for name in ("temperature", "repetition_penalty", "top_k", "max_new_tokens"):
        value = getattr(given, name)
        check(name, "strictly positive", holds=value is None or value > 0)
    for name in ("top_p", "typical_p"):
        value = getattr(given, name)
        check(name, "> 0.0 and < 1.0", holds=value is None or 0 < value < 1)
    check(
        "frequency_penalty", ">= -2.0 and <= 2.0", holds=-2 <= (given.frequency_penalty or 0) <= 2
    )
    check("seed", "less than 2^64", holds=(given.seed or 0) < 2**64)


def _check_best_of(
    parameters: GenerateParameters, settings: ServerSettings, *, stream: bool
) -> None:
    best_of, most = parameters.best_of, settings.max_best_of
    if best_of in (None, 1):
        return
    if most == 1:
        problem = "`best_of` != 1 is not allowed for this endpoint"
    elif not 0 < best_of <= most:
        problem = f"`best_of` must be > 0 and <= {most}. Given: {best_of}"
    elif stream:
        problem = "`best_of` != 1 is not supported when streaming tokens"
    elif not parameters.samples:
        problem = "you must use sampling when `best_of` is > 1"
    elif parameters.seed is not None:
        problem = "`seed` must not be set when `best_of` > 1"
    else:
        return
    raise InvalidRequest(problem, param="best_of")


def chosen_seed(parameters: GenerateParameters) -> int | None:
    """The seed to sample with and to report: the client's, else any. None if nothing is drawn."""
    if not parameters.samples:
        return None
    return secrets.randbits(63) if parameters.seed is None else parameters.seed


def sampling_params(
    parameters: GenerateParameters, *, seed: int | None, reports_tokens: bool
) -> SamplingParams:
    """Our options for it. Raises `InvalidRequest`."""
    given = {
        name: value
        for name in ("repetition_penalty", "frequency_penalty", "top_k", "top_p", "typical_p")
        if (value := getattr(parameters, name)) is not None
    }
    num_best = parameters.best_of or 1
    return SamplingParams(
        n=num_best,
        max_tokens=parameters.max_new_tokens,
        temperature=(parameters.temperature or 1.0) if parameters.samples else 0.0,
        stop=parameters.stop or None,
        include_stop_str_in_output=True,
        seed=None if seed is None else _signed(seed),
        # the best of several is found by log probabilities
        logprobs=(parameters.top_n_tokens or 0) if reports_tokens or num_best > 1 else None,
        prompt_logprobs=0 if parameters.decoder_input_details else None,
        watermark=bool(parameters.watermark),
        grammar=_grammar(parameters),
        **given,
    )


def _signed(seed: int) -> int:
    """TGI's seeds have 64 bits and no sign, ours have one."""
    return seed - 2**64 if seed >= 2**63 else seed


def _grammar(parameters: GenerateParameters) -> Grammar | None:
    match parameters.grammar:
        case RegexGrammar(value=pattern):
            return Grammar.regex(pattern)
        case JsonGrammar(value=schema):
            return Grammar.json_schema(_with_properties(schema))
        case JsonSchemaGrammar(value=wrapped):
            return Grammar.json_schema(_with_properties(wrapped.schema))
    return None


def _with_properties(given: Schema | str) -> Schema:
    try:
        schema = msgspec.json.decode(given, type=Schema) if isinstance(given, str) else given
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"grammar is not valid: {error}", param="grammar") from None
    if "properties" not in schema:
        raise InvalidRequest(
            "grammar is not valid: Grammar must have a 'properties' field", param="grammar"
        )
    return schema
