"""Prompts as OpenAI's API brings them."""

from typing import Any, cast

from penstock.server.openai.bodies import ChatBody, CompletionBody
from penstock.server.prompts import Prompt, none_empty, off_loop_if_long
from penstock.text.chat_prompt import chat_prompt
from penstock.text.tokenizer import Tokenizer
from penstock.vocabulary.errors import InvalidRequest


async def completion_prompts(
    body: CompletionBody, tokenizer: Tokenizer, *, max_prompts: int
) -> list[Prompt]:
    """The prompts of a completions request, in its order."""
    given = _as_list(body.prompt)
    if len(given) > max_prompts:
        raise InvalidRequest(
            f"The request has {len(given)} prompts; this server accepts {max_prompts} at a time.",
            param="prompt",
        )
    num_chars = sum(len(prompt) for prompt in given if isinstance(prompt, str))

    def encode_all() -> list[Prompt]:
        return [
            Prompt(tokenizer.encode(prompt) if prompt else [], prompt)
            if isinstance(prompt, str)
            else Prompt(_checked(prompt, tokenizer.vocab_size), None)
            for prompt in given
        ]

    return none_empty(await off_loop_if_long(encode_all, num_chars), "prompt")


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

    def encode() -> Prompt:
        text, token_ids = chat_prompt(tokenizer, said, tools=tools, variables=variables)
        return Prompt(token_ids, text)

    num_chars = len(str(said)) + len(str(tools)) + len(str(variables))
    return none_empty([await off_loop_if_long(encode, num_chars)], "messages")[0]


def _as_list(prompt: str | list[str | int | list[int]]) -> list[str] | list[list[int]]:
    if isinstance(prompt, str):
        return [prompt]
    kinds = {type(item) for item in prompt}
    if kinds == {int}:
        return [cast(list[int], prompt)]
    if kinds in ({str}, {list}):
        return cast(list[str] | list[list[int]], prompt)
    raise InvalidRequest(
        "prompt must be a text, a list of texts, a list of token ids or a list of such lists; "
        + ("it is an empty list." if not kinds else "it mixes them."),
        param="prompt",
    )


def _checked(token_ids: list[int], vocab_size: int) -> list[int]:
    if token_ids and max(token_ids) >= vocab_size:
        raise InvalidRequest(
            f"prompt contains token id {max(token_ids)}, but the vocabulary ends at "
            f"{vocab_size - 1}.",
            param="prompt",
        )
    return token_ids
