"""What a model thinks before it answers."""

import pytest

from penstock.text.parsing.hermes import HERMES
from penstock.text.parsing.pieces import Content, Reasoning
from penstock.text.parsing.reasoning import MISTRAL_THINK, THINK
from tests.text.chat_models import DEEPSEEK, LLAMA3, QWEN3
from tests.text.parsing.parsed import Parsed, parsed, pieces_of

THOUGHTS = [
    ("<think>\nHm.\n</think>\n\nYes.", Parsed(reasoning="Hm.", content="Yes.")),
    ("<think>Hm.</think>Yes.", Parsed(reasoning="Hm.", content="Yes.")),
    ("\n<think>Hm.", Parsed(reasoning="Hm.")),
    ("<think>a\n\nb</think>", Parsed(reasoning="a\n\nb")),
    ("<think>\n\n</think>\n\nYes.\n", Parsed(content="Yes.\n")),
    ("Yes.", Parsed(content="Yes.")),
    (" Yes. <think>no</think>", Parsed(content=" Yes. <think>no</think>")),
    ("<think>a</think>b</think>", Parsed(reasoning="a", content="b</think>")),
    ("<think>a <think> b</think>c", Parsed(reasoning="a <think> b", content="c")),
    ("<thinking>a", Parsed(content="<thinking>a")),
    ("", Parsed()),
]


@pytest.mark.parametrize("text, meaning", THOUGHTS)
def test_thoughts_come_first_and_once(text, meaning):
    assert parsed(text, reasoning=THINK) == meaning
    assert parsed(list(text), reasoning=THINK) == meaning


def test_mistral_has_tags_of_its_own():
    text = "[THINK]Hm.[/THINK]Yes."
    assert parsed(text, reasoning=MISTRAL_THINK) == Parsed(reasoning="Hm.", content="Yes.")


@pytest.mark.parametrize(
    "text, meaning",
    [
        ("Hm.\n</think>\n\nYes.", Parsed(reasoning="Hm.", content="Yes.")),
        ("Hm.", Parsed(reasoning="Hm.")),
        ("</think>Yes.", Parsed(content="Yes.")),
    ],
)
def test_an_answer_may_begin_within_thoughts_that_the_prompt_has_opened(text, meaning):
    assert parsed(text, reasoning=THINK, prompt="<|assistant|><think>\n") == meaning
    assert parsed(list(text), reasoning=THINK, prompt="<|assistant|><think>\n") == meaning


@pytest.mark.parametrize(
    "model, options, is_open",
    [
        (DEEPSEEK, {}, True),
        (QWEN3, {}, False),
        (QWEN3, {"enable_thinking": False}, False),
        (LLAMA3, {}, False),
    ],
)
def test_whether_it_does_is_taken_from_the_prompt_that_a_template_has_written(
    model, options, is_open
):
    """A question about <think> opens nothing."""
    messages = [{"role": "user", "content": "What does <think> mean?"}]
    prompt = model.tokenizer().chat_template.render(messages, **options)
    assert THINK.is_opened_by(prompt) == is_open


def test_thoughts_are_passed_on_while_they_come():
    pieces = pieces_of(["<thi", "nk>\nH", "m. ", "</thi", "nk>", "\n\n", "Yes"], reasoning=THINK)
    assert pieces == [
        *([], [Reasoning("H")], [Reasoning("m.")], [], [], [], [Content("Yes")]),
        [],
    ]


def test_calls_come_behind_thoughts_and_are_not_looked_for_in_them():
    call = '<tool_call>{"name": "f", "arguments": {}}</tool_call>'
    text = f"<think>Shall I {call}?</think>\n{call}"
    meaning = Parsed(reasoning=f"Shall I {call}?", calls=[("f", "{}")])
    assert parsed(text, HERMES, THINK) == meaning
    assert parsed(list(text), HERMES, THINK) == meaning


def test_of_calls_beyond_the_most_that_are_wanted_nothing_is_passed_on():
    call = '<tool_call>{{"name": "{}", "arguments": {{}}}}</tool_call>'
    text = call.format("f") + call.format("g") + "Done."
    assert parsed(text, HERMES, max_calls=1) == Parsed(content="Done.", calls=[("f", "{}")])
