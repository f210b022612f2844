"""Any template, however hostile: a prompt or an error that explains, soon, and never a way out."""

import copy
import sys
import time

import jinja2.debug  # it is imported when a template first fails, which reads a file  # noqa: F401
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.text import sandbox
from penstock.text.chat_template import ChatTemplate
from penstock.text.growth import MAX_CHARS
from penstock.vocabulary.errors import InvalidRequest, ModelError
from tests.fuzz.inputs import BRIEFLY, texts_of
from tests.text.test_any_template import FRAGMENTS

VALUES = [
    *("messages", "tools", "ns.x", "x", "y", "loop.index", "loop", "none", "self", "caller()"),
    *("1", "0", "-1", "2.5", "1e308", "9", "99999", "'a'", "'%s%s'", "'{0}{0}'", "'{0.x:9}'", "[]"),
    *("[1]", "{}", "{'a': [1]}", "(1, 2)", "range(9)", "range(99999)", "namespace(x='aa')"),
    *("cycler(1, 2)", "joiner()", "dict(a=1)", "raise_exception", "strftime_now('%Y')", "f(x)"),
]
OPERATORS = [*("+", "-", "*", "**", "/", "//", "%", "~", "and", "in", "==", "<", "if x else")]
FILTERS = [
    *("abs", "attr('__class__')", "attr('append')", "capitalize", "count", "default(x)"),
    *("dictsort", "escape", "filesizeformat", "first", "float", "forceescape", "format(x, x)"),
    *("groupby('role')", "indent(9)", "indent(x)", "int", "int(base=9)", "items", "join(x)"),
    *("last", "length", "list", "lower", "map('string')", "map(attribute='role')", "max", "min"),
    *("pprint", "random", "safe", "reject", "replace('a', x)", "reverse", "round(x, 'ceil')"),
    *("round(99999)", "select", "sort", "selectattr('role')", "string", "striptags", "sum"),
    *("sum(start=[])", "sum(start=x)", "title", "tojson", "tojson(indent=x)", "trim"),
    *("truncate(x)", "unique", "upper", "urlencode", "wordcount", "center(99999)", "batch(1)"),
    *("slice(99999)", "wordwrap(1)", "xmlattr"),
]
ATTRIBUTES = [
    *(".__class__", "['__init__']", ".__globals__", ".__subclasses__()", ".mro()", ".gi_frame"),
    *(".append(1)", ".update(a=1)", ".format(x)", ".join(x)", ".replace('a', x)", ".split('a')"),
    *(".encode()", ".items()", ".x", "[0]", "[-1]", "[::-1]", "[x]", ".role", ".content"),
    *(".cycle(1)", ".zfill(99999)", ".format_map(x)", ".__call__", ".count('a')"),
    *(".partition('a')", "(x)"),
]

expressions = st.recursive(
    st.sampled_from(VALUES),
    lambda inner: (
        st.builds("({} {} {})".format, inner, st.sampled_from(OPERATORS), inner)
        | st.builds("({}) | {}".format, inner, st.sampled_from(FILTERS))
        | st.builds("({}){}".format, inner, st.sampled_from(ATTRIBUTES))
        | st.builds("[{0}, {0}]".format, inner)
    ),
    max_leaves=8,
)


@st.composite
def statements(draw, depth=0):
    value = draw(expressions)
    inner = draw(statements(depth + 1)) if depth < 3 and draw(st.booleans()) else "{{ x }}"
    forms = [
        "{{ %s }}",
        "{%% set x = %s %%}",
        "{%% set ns.x = %s %%}",
        "{%% if %s %%}I{%% endif %%}",
        "{%% for x in %s %%}I{%% endfor %%}",
        "{%% for x in %s recursive %%}I{{ loop(x) }}{%% endfor %%}",
        "{%% macro f(x) %%}{{ %s }}I{%% endmacro %%}",
        "{%% call(x) f(%s) %%}I{%% endcall %%}",
        "{%% filter replace('a', %s) %%}I{%% endfilter %%}",
        "{%% set x %%}{{ %s }}I{%% endset %%}",
        "{%% with y = %s %%}I{%% endwith %%}",
        "{%% include %s %%}",
        "{%% import %s as y %%}",
        "{%% extends %s %%}",
        "{%% generation %%}{{ %s }}I{%% endgeneration %%}",
        "{%% block a %%}{{ %s }}I{%% endblock %%}",
    ]
    return (draw(st.sampled_from(forms)) % value).replace("I", inner)


sources = st.lists(statements(), max_size=5).map("".join) | texts_of(FRAGMENTS)
SETTING = "{% set ns = namespace(x='aa') %}{% set x = 'a' %}{% macro f(x) %}{{ x }}{% endmacro %}"
MESSAGES = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]

watched: list[str] = []
"""While a template is rendered, what it had Python do outside of it."""
is_rendering = False


def _watch(event: str, args: object) -> None:
    if is_rendering and event.split(".")[0] in ("open", "os", "subprocess", "socket"):
        watched.append(f"{event} {args}")


sys.addaudithook(_watch)  # for good, so it must cost nothing


@pytest.fixture(scope="module", autouse=True)
def impatient():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sandbox, "MAX_RENDER_S", 0.2)
        yield


@BRIEFLY
@given(sources)
def test_a_template_is_rendered_or_refused_within_its_allowance_and_touches_nothing(source):
    global is_rendering
    messages = copy.deepcopy(MESSAGES)
    watched.clear()
    began = time.thread_time()
    try:
        template = ChatTemplate(SETTING + source, special_tokens={})
        is_rendering = True
        text = template.render(messages)
        assert len(text) <= MAX_CHARS
        assert not any(sign in text for sign in ("<module ", "<frame ", "<code object"))
    except (InvalidRequest, ModelError) as refusal:
        assert str(refusal)
    finally:
        is_rendering = False
    assert messages == MESSAGES
    assert not watched, str(watched)
    assert time.thread_time() - began < 10 * sandbox.MAX_RENDER_S + 2
