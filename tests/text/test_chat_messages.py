"""What clients write as a conversation, made into what chat templates read."""

import pytest

from penstock.text.chat_messages import for_template
from penstock.text.chat_template import ChatTemplate
from penstock.vocabulary.errors import InvalidRequest


def called_with(arguments):
    """An assistant's message with a tool call."""
    call = {"type": "function", "function": {"name": "f", "arguments": arguments}}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def render(source, *messages):
    return ChatTemplate(source, special_tokens={}).render(for_template(list(messages)))


def test_text_parts_become_one_text_a_line_each():
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two", "cache": True}]
    messages = [{"role": "user", "content": parts}]
    assert for_template(messages) == [{"role": "user", "content": "one\ntwo"}]
    assert messages[0]["content"] is parts


@pytest.mark.parametrize("more", [{"content": None}, {}, {"content": None, "tool_calls": None}])
def test_whoever_says_and_calls_nothing_says_an_empty_text(more):
    assert for_template([{"role": "a", **more}]) == [{"role": "a", "content": ""}]


def test_beside_calls_no_content_is_another_thing_than_an_empty_one():
    [message] = for_template([called_with("{}")])
    assert message["content"] is None


def test_an_empty_list_of_calls_is_none():
    message = {"role": "assistant", "content": "Hi"}
    assert for_template([{**message, "tool_calls": []}]) == [message]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "refusal", "refusal": "I can't."},
        {"type": "output_text", "text": "I can't.", "annotations": []},
        {"type": "input_text", "text": "I can't."},
    ],
)
def test_parts_that_say_something_by_other_names_read_as_what_was_said(part):
    assert for_template([{"role": "assistant", "content": [part]}])[0]["content"] == "I can't."


def test_an_unsupported_part_is_refused_by_type():
    with pytest.raises(InvalidRequest, match="type image_url are not supported") as refusal:
        for_template([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}])
    assert refusal.value.param == "messages"


@pytest.mark.parametrize("content", [7, {"type": "text"}, ["hi"], [{"text": "hi"}], [{"type": 1}]])
def test_malformed_content_is_refused(content):
    with pytest.raises(InvalidRequest):
        for_template([{"role": "user", "content": content}])


def test_a_text_part_without_text_is_refused():
    with pytest.raises(InvalidRequest, match="must have a text"):
        for_template([{"role": "user", "content": [{"type": "text"}]}])


def test_a_developer_is_called_system_unless_the_template_knows_better():
    messages = [{"role": "developer", "content": "Be brief."}]
    assert for_template(messages) == [{"role": "system", "content": "Be brief."}]
    assert for_template(messages, knows_developer=True) == messages
    assert messages[0]["role"] == "developer"


ARGUMENTS = "messages[0].tool_calls[0].function.arguments"


@pytest.mark.parametrize(
    "expression, written",
    [
        (f"{ARGUMENTS} | tojson", '{"city": "Köln", "days": [1, 2]}'),
        (f"{ARGUMENTS}.city", "Köln"),
        (f"{ARGUMENTS}.items() | list | length", "2"),
        (f"{ARGUMENTS} is mapping", "True"),
        (f"{ARGUMENTS} is string", "False"),
        (f"'```' + {ARGUMENTS} + '```'", '```{"city":"Köln", "days": [1,2]}```'),
        (f"'```' ~ {ARGUMENTS} ~ '```'", '```{"city":"Köln", "days": [1,2]}```'),
        (ARGUMENTS, '{"city":"Köln", "days": [1,2]}'),
    ],
)
def test_the_arguments_of_a_past_call_are_an_object_and_can_be_written_as_they_came(
    expression, written
):
    message = called_with('{"city":"Köln", "days": [1,2]}')
    assert render("{{ " + expression + " }}", message) == written


def test_arguments_that_come_as_an_object_are_understood_too():
    message = called_with({"city": "Köln"})
    assert render(f"{{{{ {ARGUMENTS} | tojson }}}}", message) == '{"city": "Köln"}'
    assert render(f"{{{{ '```' + {ARGUMENTS} }}}}", message) == '```{"city": "Köln"}'


def test_no_arguments_are_an_empty_object():
    assert render(f"{{{{ {ARGUMENTS} | tojson }}}}{{{{ {ARGUMENTS} }}}}", called_with("")) == "{}{}"


@pytest.mark.parametrize("arguments", ['{"city": ', "[1]", "7", "[" * 100_000])
def test_malformed_arguments_are_what_the_model_has_said_and_stay_text(arguments):
    assert render(f"{{{{ {ARGUMENTS} is string }}}}", called_with(arguments)) == "True"
    assert render(f"{{{{ {ARGUMENTS} }}}}", called_with(arguments)) == arguments


def test_arguments_added_to_a_text_again_and_again_do_not_fill_the_memory():
    source = (
        "{% set ns = namespace(x='') %}{% for i in range(99999) %}"
        "{% set ns.x = ns.x + " + ARGUMENTS + " %}{% endfor %}"
    )
    with pytest.raises(InvalidRequest, match="value of over"):
        render(source, called_with('{"a": "' + "b" * 100_000 + '"}'))


@pytest.mark.parametrize("call", [{}, {"function": None}, {"function": {"name": "f"}}])
def test_a_call_without_arguments_is_the_template_s_business(call):
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    assert for_template([message]) == [message]
