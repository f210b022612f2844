"""Whatever a client sends, and whatever a template does: a prompt, or an error that explains."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.text.chat_prompt import chat_prompt
from penstock.text.chat_template import ChatTemplate
from penstock.text.tokenizer import Tokenizer
from penstock.vocabulary.errors import InvalidRequest, ModelError
from tests.text.chat_models import CHAT_MODELS, CHATML

WORDS = [
    *CHATML.markers,
    "Hi",
    " ",
    "\n",
    "</think>",
    "<think>",
    "<",
    ">",
    "{}",
    '"',
    "日",
    "\ue000",
]
texts = st.lists(st.sampled_from(WORDS), max_size=4).map("".join) | st.text(max_size=6)
atoms = st.none() | st.booleans() | st.integers() | st.floats() | texts
values = st.recursive(
    atoms,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
parts = st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": texts}), max_size=2)
calls = st.lists(
    st.fixed_dictionaries(
        {
            "type": st.just("function"),
            "function": st.fixed_dictionaries(
                {"name": texts, "arguments": texts | st.dictionaries(texts, values, max_size=2)}
            ),
        },
        optional={"id": texts | st.just("abcdefghi")},
    ),
    max_size=2,
)
messages = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["system", "developer", "user", "assistant", "tool", "function"]),
        "content": st.none() | texts | parts,
    },
    optional={
        **dict.fromkeys(("name", "tool_call_id", "reasoning_content"), texts),
        "tool_calls": calls,
        "anything": values,
    },
)
tools = st.none() | st.lists(values, max_size=2)


@pytest.mark.parametrize("model", CHAT_MODELS, ids=lambda model: model.name)
@given(conversation=st.lists(messages, max_size=4), tools=tools)
@settings(max_examples=120, deadline=None)
def test_any_conversation_is_a_prompt_or_an_invalid_request(model, conversation, tools):
    try:
        text, token_ids = chat_prompt(model.tokenizer(), conversation, tools=tools)
    except InvalidRequest as refusal:
        assert str(refusal)
    else:
        assert not text or token_ids


FRAGMENTS = [
    *("{{", "}}", "{%", "%}", "{#", "#}", "-", " ", "'", '"', "|", "~", "+", "*", "[0]", "(", ")"),
    *("messages", "message", "content", "role", "tools", "loop", ".content", "['role']", "none"),
    *("for message in messages", "endfor", "if", "else", "endif", "set x =", "x", "1", "range(9)"),
    *("tojson", "trim", "join", "length", "string", "upper", "list", "first", "map", "'a'", "in"),
    *("macro f(a)", "endmacro", "f(1)", "namespace(a=1)", "raise_exception('no')", "is defined"),
    *("<|im_start|>", "<|im_end|>", "\n", "{{ message.content }}", "{{ messages[0].content }}"),
    *("{% for message in messages %}", "{% endfor %}", "{% if tools %}", "{% endif %}"),
]


@given(
    fragments=st.lists(st.sampled_from(FRAGMENTS), max_size=16),
    conversation=st.lists(messages, max_size=3),
    tools=tools,
)
@settings(max_examples=600, deadline=None)
def test_any_template_is_rendered_or_refused(fragments, conversation, tools):
    for source in ("".join(fragments), " ".join(fragments)):
        try:
            ChatTemplate(source, special_tokens={})
        except ModelError as refusal:
            assert str(refusal)
            continue
        tokenizer = Tokenizer(CHATML.library(), special_tokens={}, chat_template_source=source)
        try:
            chat_prompt(tokenizer, conversation, tools=tools)
        except InvalidRequest as refusal:
            assert str(refusal)
