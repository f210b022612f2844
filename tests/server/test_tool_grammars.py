"""Tool calls that must be made, or must be valid, are held to a grammar."""

import json

import pytest

from tests.server.test_tool_calls import CALL, CLOCK, ask, llm_of, refusal
from tests.text.chat_models import CHATML, DEEPSEEK


@pytest.mark.parametrize(
    ("body", "at_least_one", "names"),
    [
        ({"tool_choice": "required"}, True, {"get_weather", "get_time"}),
        ({"tool_choice": {"type": "function", "function": CLOCK["function"]}}, True, {"get_time"}),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "strict": True}}]},
            False,
            {"f"},
        ),
    ],
)
async def test_calls_that_must_be_made_or_be_valid_are_held_to_a_grammar(body, at_least_one, names):
    llm = llm_of(CHATML, CALL)
    await ask(llm, **body)
    grammar = llm.last.request.sampling.grammar
    tags = json.loads(grammar.text)
    assert (grammar.kind, tags["at_least_one"]) == ("structural_tag", at_least_one)
    begins = [structure["begin"] for structure in tags["structures"]]
    assert all(any(name in begin for begin in begins) for name in names)
    assert len(begins) == len(names)


async def test_calls_that_must_be_made_leave_no_room_for_another_format():
    error = await refusal(
        llm_of(CHATML), tool_choice="required", response_format={"type": "json_object"}
    )
    assert error["param"] == "response_format"
    assert "cannot be combined" in error["message"]


async def test_an_answer_in_a_format_may_be_thought_about_first():
    llm = llm_of(DEEPSEEK, "Hm.</think>{}")
    await ask(llm, tools=None, response_format={"type": "json_object"})
    assert llm.last.request.sampling.grammar.after == "</think>"
