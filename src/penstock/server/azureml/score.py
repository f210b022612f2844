"""POST /score: texts or a conversation in, texts out, in the shapes of Azure's own images.

`scoring` and `document` do it without HTTP too, for `score_script`.
"""

import uuid
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import msgspec
from fastapi import Request, Response
from msgspec import Meta

from penstock.engine.transcript import empty_result
from penstock.server.answers import WholeAnswer
from penstock.server.auth import salt_of
from penstock.server.azureml.score_parameters import ScoreParameters, understood
from penstock.server.azureml.wording import (
    AZURE_WORDING,
    BLOCKED,
    LEGACY_SCORE_WORDING,
    WRONG_TASK,
)
from penstock.server.content_safety import texts_in
from penstock.server.decoding import converted, parse_object
from penstock.server.endpoint import Endpoint
from penstock.server.errors import HttpError
from penstock.server.front import Front
from penstock.server.generations import Generations
from penstock.server.openai.bodies import ChatMessage
from penstock.server.prompts import Prompt, fitted, none_empty, off_loop_if_long
from penstock.server.visit import visit_of
from penstock.text.chat_prompt import chat_prompt
from penstock.vocabulary.errors import InvalidRequest
from penstock.vocabulary.messages import Request as EngineRequest
from penstock.vocabulary.sampling_params import SamplingParams


class ScoreInput(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The older shape: texts or messages, and parameters beside them."""

    input_string: list[str | ChatMessage]
    parameters: dict[str, Any] = {}


class ScoreBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Texts to continue, or one conversation, in one of two shapes."""

    input_data: Annotated[
        Any,
        Meta(
            description="A list of texts; or an object of `input_string`, a list of texts or of "
            "messages, and `parameters`."
        ),
    ]
    params: Annotated[
        dict[str, Any] | None, Meta(description="Parameters, beside a list of texts.")
    ] = None


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """One request to /score, understood. `is_keyed` if texts are answered by their numbers."""

    prompts: list[Prompt]
    params: SamplingParams
    is_chat: bool
    is_keyed: bool
    returns_full_text: bool


async def score(front: Front, request: Request) -> Response:
    """Continues texts, or a conversation."""
    if front.settings.legacy_score:
        request.scope["state"]["wording"] = LEGACY_SCORE_WORDING
    asked = await scoring(front, await request.body())
    generations = Generations(front, _new_id(), visit=visit_of(request.scope))
    submit(generations, asked, salt=salt_of(request.scope))
    return WholeAnswer(front, generations, partial(document, front, asked))


def submit(generations: Generations, asked: Scoring, *, salt: str) -> Generations:
    """Hand it to the engine."""
    return generations.submit(
        [prompt.token_ids for prompt in asked.prompts],
        asked.params,
        priority=0,
        salt=salt,
        shown_token_ids=frozenset(),
    )


async def scoring(front: Front, raw: bytes) -> Scoring:
    """A body, understood and found safe. Raises `InvalidRequest` or `HttpError`."""
    body = converted(parse_object(raw), ScoreBody)
    given, is_keyed = _given(body)
    is_chat = _is_chat(given.input_string, front.settings.azureml_task)
    own, params, is_given = understood(
        given.parameters,
        front.llm.sampling_defaults,
        drops_unknown=front.settings.legacy_score,
    )
    await _check_safe(front, given)
    if is_chat:
        prompts = [await _conversation(front, given.input_string, own)]
    else:
        prompts = await _texts(front, given.input_string)
    return Scoring(
        prompts=prompts,
        params=fitted(params, prompts, front.llm, field="input_data", is_given=is_given),
        is_chat=is_chat,
        is_keyed=is_keyed,
        returns_full_text=own.return_full_text and not is_chat,
    )


def _given(body: ScoreBody) -> tuple[ScoreInput, bool]:
    """The input, and whether it came in the older shape."""
    if isinstance(body.input_data, dict):
        if body.params is not None:
            raise InvalidRequest(
                "params stand beside a list of texts; here parameters are part of input_data.",
                param="params",
            )
        return converted(body.input_data, ScoreInput), True
    newer = {"input_string": body.input_data, "parameters": body.params or {}}
    return converted(newer, ScoreInput), False


def _is_chat(given: list[str | ChatMessage], task: str) -> bool:
    kinds = {isinstance(each, ChatMessage) for each in given}
    if len(kinds) != 1:
        raise InvalidRequest(
            "input_string must be texts or messages; it "
            + ("mixes them." if kinds else "is an empty list."),
            param="input_data",
        )
    [is_chat] = kinds
    check_task("chat-completion" if is_chat else "text-generation", deployed_for=task)
    return is_chat


def check_task(task: str, *, deployed_for: str) -> None:
    """Refuse what the model was not deployed for, where that is known. Raises `HttpError`."""
    if deployed_for and deployed_for != task:
        raise HttpError(
            400, f"This model is deployed for {deployed_for}, not for {task}.", code=WRONG_TASK
        )


async def _check_safe(front: Front, given: ScoreInput) -> None:
    if front.content_safety is None:
        return
    texts = texts_in(msgspec.to_builtins(given))
    if not all(await front.content_safety.passing(texts, "input")):
        raise blocked("input")


def blocked(what: str) -> HttpError:
    """The answer where content safety has stopped a request or its answer."""
    return HttpError(400, f"Content safety has stopped the {what}.", code=BLOCKED)


async def _texts(front: Front, texts: list[Any]) -> list[Prompt]:
    if len(texts) > front.settings.max_prompts:
        raise InvalidRequest(
            f"The request has {len(texts)} prompts; this server accepts "
            f"{front.settings.max_prompts} at a time.",
            param="input_data",
        )
    encode = front.llm.tokenizer.encode
    prompts = await off_loop_if_long(
        lambda: [Prompt(encode(text) if text else [], text) for text in texts],
        sum(map(len, texts)),
    )
    return none_empty(prompts, "input_data")


async def _conversation(front: Front, messages: list[Any], own: ScoreParameters) -> Prompt:
    said = [message.for_template() for message in messages]
    variables = {"add_generation_prompt": own.add_generation_prompt}
    tokenizer = front.llm.tokenizer
    text, token_ids = await off_loop_if_long(
        lambda: chat_prompt(tokenizer, said, variables=variables), len(str(said))
    )
    return none_empty([Prompt(token_ids, text)], "input_data")[0]


async def document(front: Front, asked: Scoring, generations: Generations) -> bytes:
    """The whole answer as JSON. A text that content safety stops is left empty."""
    results = [
        empty_result(
            EngineRequest(request_id="", prompt_token_ids=prompt.token_ids, sampling=asked.params),
            prompt.text,
        )
        for prompt in asked.prompts
    ]
    async for position, delta in generations.arrivals():
        results[position].add(delta)
    texts = [result.outputs[0].text for result in results]
    if front.content_safety is not None:
        passing = await front.content_safety.passing(texts, "output")
        texts = [text if passes else "" for text, passes in zip(texts, passing, strict=True)]
    return msgspec.json.encode(_shaped(asked, texts))


def _shaped(asked: Scoring, texts: list[str]) -> Any:
    if asked.is_chat:
        return {"output": texts[0]}
    if asked.returns_full_text:
        texts = [
            (prompt.text or "") + text for prompt, text in zip(asked.prompts, texts, strict=True)
        ]
    return [{str(at): text for at, text in enumerate(texts)}] if asked.is_keyed else texts


def _new_id() -> str:
    return f"score-{uuid.uuid4().hex}"


SCORE = Endpoint("POST", "/score", score, body=ScoreBody, answer=Any, wording=AZURE_WORDING)
