"""Prompts as OpenAI's API brings them."""

from typing import Any, cast

from penstock.server.engine_front import EngineFront
from penstock.server.openai.bodies import ChatBody
from penstock.server.prompts import Prompt, last_of, none_empty, off_loop_if_long
from penstock.text.chat_prompt import chat_prompt
from penstock.text.tokenizer import Tokenizer
from penstock.vocabulary.errors import InvalidRequest

Given = str | list[str | int | list[int]]
"""A text, its token ids, or a list of either."""


async def prompts_of(
    given: Given,
    tokenizer: Tokenizer,
    *,
    field: str,
    max_prompts: int,
    add_special_tokens: bool,
) -> list[Prompt]:
    """The prompts that `field` of a request holds, in its order."""
    listed = _as_list(given, field)
    if len(listed) > max_prompts:
        raise InvalidRequest(
            f"The request has {len(listed)} prompts; this server accepts {max_prompts} at a time.",
            param=field,
        )

    def encode(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=add_special_tokens) if text else []

    def encode_all() -> list[Prompt]:
        return [
            Prompt(encode(each), each)
            if isinstance(each, str)
            else Prompt(known_ids(each, tokenizer, field), None)
            for each in listed
        ]

    num_chars = sum(len(each) for each in listed if isinstance(each, str))
    return none_empty(await off_loop_if_long(encode_all, num_chars), field)


async def conversation(
    body: ChatBody, tools: list[dict[str, Any]] | None, tokenizer: Tokenizer
) -> Prompt:
    """The conversation as the model's chat template writes it down, with the tools on offer."""
    said = [message.for_template() for message in body.messages]
    variables = body.chat_template_kwargs or {}
    if reserved := variables.keys() & {"messages", "tools", "add_generation_prompt"}:
        raise InvalidRequest(
            f"chat_template_kwargs cannot set {min(reserved)}.", param="chat_template_kwargs"
        )
    variables = {**variables, "add_generation_prompt": body.add_generation_prompt}

    def encode() -> Prompt:
        text, token_ids = chat_prompt(
            tokenizer,
            said,
            tools=tools,
            variables=variables,
            continues_last=body.continue_final_message,
        )
        framed = tokenizer.framed(token_ids) if body.add_special_tokens else token_ids
        return Prompt(framed, text)

    num_chars = len(str(said)) + len(str(tools)) + len(str(variables))
    return none_empty([await off_loop_if_long(encode, num_chars)], "messages")[0]


def _as_list(given: Given, field: str) -> list[str] | list[list[int]]:
    if isinstance(given, str):
        return [given]
    kinds = {type(item) for item in given}
    if kinds == {int}:
        return [cast(list[int], given)]
    if kinds in ({str}, {list}):
        return cast(list[str] | list[list[int]], given)
    raise InvalidRequest(
        f"{field} must be a text, a list of texts, a list of token ids or a list of such lists; "
        + ("it is an empty list." if not kinds else "it mixes them."),
        param=field,
    )


def known_ids(token_ids: list[int], tokenizer: Tokenizer, field: str) -> list[int]:
    """`token_ids`, if the vocabulary has them all. Raises `InvalidRequest`, blaming `field`."""
    if token_ids and max(token_ids) >= tokenizer.vocab_size:
        raise InvalidRequest(
            f"{field} contains token id {max(token_ids)}, but the vocabulary ends at "
            f"{tokenizer.vocab_size - 1}.",
            param=field,
        )
    return token_ids


def truncated(
    prompts: list[Prompt], count: int | None, llm: EngineFront, *, max_tokens: int | None
) -> list[Prompt]:
    """What `truncate_prompt_tokens` leaves of the prompts: the last `count` tokens of each.

    -1 leaves what fits beside `max_tokens`, or beside one token where that is open.
    """
    field = "truncate_prompt_tokens"
    if count is None:
        return prompts
    if count > llm.max_model_len:
        raise InvalidRequest(
            f"{field} is {count}, but the context of this model is {llm.max_model_len} tokens.",
            param=field,
        )
    if count == -1:
        count = llm.max_model_len - (1 if max_tokens is None else max_tokens)
    if count <= 0:
        raise InvalidRequest(f"{field} leaves nothing of the prompt.", param=field)
    return [last_of(prompt, count) for prompt in prompts]
