"""Templates by someone who means harm get an error, soon, and nothing else."""

import time

import pytest

from penstock.text import sandbox
from penstock.text.chat_template import MAX_SOURCE_CHARS, ChatTemplate
from penstock.vocabulary.errors import InvalidRequest, ModelError

MESSAGES = [{"role": "user", "content": "hi"}]
DOUBLED = """\
{% set ns = namespace(x='aa') %}
{% for i in range(60) %}{% set ns.x = EXPR %}{% endfor %}
"""
NESTED = DOUBLED.replace("EXPR", "[ns.x, ns.x]")
KEPT = """\
{% set ns = namespace(x=[]) %}
{% for i in range(99999) %}{% set ns.x = ns.x + [EXPR] %}{% endfor %}
"""
FORKING = "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}"
LONG = "'a' * 1000000"


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """Every template here is refused within its allowance, which is short."""
    monkeypatch.setattr(sandbox, "MAX_RENDER_S", 0.2)
    start = time.thread_time()
    yield
    assert time.thread_time() - start < 3


def error_of(source: str) -> str:
    with pytest.raises((InvalidRequest, ModelError)) as refusal:
        ChatTemplate(source, special_tokens={}).render(MESSAGES)
    return str(refusal.value)


@pytest.mark.parametrize(
    "expression",
    [
        "''.__class__.__mro__[1].__subclasses__()",
        "''['__class__']",
        "'' | attr('__class__')",
        "messages | map(attribute='__class__') | list",
        "raise_exception.__globals__",
        "messages.__len__()",
        "self.__init__.__globals__",
        "cycler.__init__.__globals__",
        "dict.__subclasses__()",
        "dict.mro()",
        "'{0.__class__}'.format(messages)",
        "'{m.__class__}'.format_map({'m': messages})",
        "namespace(__call__=dict)",
        "(messages | map('lower')).gi_frame",
    ],
)
def test_python_s_internals_are_out_of_reach(expression):
    assert "sandbox forbids" in error_of("{{ " + expression + " }}")


@pytest.mark.parametrize(
    "expression",
    [
        "messages.append(1)",
        "messages.clear()",
        "messages.sort()",
        "messages[0].update({'role': 'system'})",
        "messages[0].pop('role')",
        "messages[0].setdefault('a', 1)",
    ],
)
def test_what_the_template_is_given_cannot_be_changed(expression):
    assert "sandbox forbids" in error_of("{{ " + expression + " }}")
    assert MESSAGES == [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    "source, message",
    [
        ("{% for i in range(10 ** 9) %}{% endfor %}", "Range too big"),
        (
            "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
            "processor time",
        ),
        (f"{{% for i in {LONG} %}}{{% for j in {LONG} %}}{{% endfor %}}{{% endfor %}}", "time"),
        (FORKING + "{{ f(60) }}", "processor time"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "nests too deeply"),
        # without any loop, which filters run in C
        ("{{ (['a' * 40] * 50000) | map('urlencode') | map('urlencode') | list }}", "time"),
        ("{{ ([range(99999)] * 9999) | map('list') | list | length }}", "stopped"),
        ("{{ ([" + LONG + "] * 9999) | sort }}", "over 4000000 characters"),
        ("{{ ([" + LONG + "] * 9999) | select('in', 'b') | list }}", "over 4000000 characters"),
        ("{{ 1 | round(99999999, 'ceil') }}", "at most 100 digits"),
        ("{{ messages | length | round(-99999999, 'floor') }}", "at most 100 digits"),
        (
            "{% set a = namespace(x=[1]) %}{% set b = namespace(x=[1]) %}{% for i in range(40) %}"
            "{% set a.x = [a.x, a.x] %}{% set b.x = [b.x, b.x] %}{% endfor %}{{ a.x == b.x }}",
            "over 4000000 characters",
        ),
        ("{{ 'a' " + "~ ('b' * 4000000)[1:] " * 2000 + "}}", "stopped"),
    ],
)
def test_no_template_runs_for_ever(source, message):
    assert message in error_of(source)


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(99999) %}{{ 'a' * 1000 }}{% endfor %}",
        "{% for i in range(99999) %}" + "a" * 1000 + "{% endfor %}",
        "{% set x %}{% for i in range(99999) %}{{ 'a' * 99999 }}{% endfor %}{% endset %}",
        DOUBLED.replace("EXPR", "ns.x + ns.x"),
        DOUBLED.replace("EXPR", "ns.x ~ ns.x"),
        DOUBLED.replace("EXPR", "ns.x * 2"),
        DOUBLED.replace("EXPR", "[ns.x, ns.x] | join"),
        DOUBLED.replace("EXPR", "''.join([ns.x, ns.x])"),
        DOUBLED.replace("EXPR", "ns.x.replace('a', 'aa')"),
        DOUBLED.replace("EXPR", "ns.x | replace('a', 'aa')"),
        DOUBLED.replace("EXPR", "'{0}{0}'.format(ns.x)"),
        DOUBLED.replace("EXPR", "'%s%s' % (ns.x, ns.x)"),
        DOUBLED.replace("EXPR", "'%s%s' | format(ns.x, ns.x)"),
        DOUBLED.replace("'aa'", "[1]").replace("EXPR", "ns.x + ns.x"),
        NESTED + "{{ ns.x }}",
        NESTED + "{{ ns.x | tojson }}",
        NESTED + "{{ ns.x | string }}",
        NESTED + "{{ ns.x | pprint }}",
        NESTED + "{{ ns.x ~ '' }}",
        "{{ 'a' * 10 ** 10 }}",
        "{{ [0] * 10 ** 10 }}",
        "{{ 10 ** 99999 }}",
        DOUBLED.replace("'aa'", "9").replace("EXPR", "ns.x * ns.x"),
        "{{ 'a'.ljust(10 ** 10) }}",
        "{{ 'a' | center(10 ** 10) }}",
        "{{ 'a' | indent(10 ** 10, true) }}",
        "{{ messages | tojson(indent=10 ** 10) }}",
        "{{ '%9999999999d' % 1 }}",
        "{{ '%*d' % (10 ** 10, 1) }}",
        "{{ '{:9999999999}'.format(1) }}",
        "{{ '{:{}}'.format(1, 10 ** 10) }}",
        "{{ lipsum(10 ** 6) }}",
        "{{ ([[0] * 4000000] * 100) | sum(start=[]) | length }}",
        "{{ (['a' * 4000000] * 1000) | map('upper') | list | length }}",
        "{{ (1).to_bytes(4000000000, 'big') | length }}",
        "{{ 'a'.encode() * 4000000000 }}",
        "{{ 'a'.encode().ljust(4000000000) | length }}",
        KEPT.replace("EXPR", "[0] * 400000"),
        KEPT.replace("EXPR", "('a' * 400000) ~ i"),
        KEPT.replace("EXPR", "('a' * 400000).split('a')"),
        KEPT.replace("EXPR", "('a' * 400000)[1:]"),
        "{% set ns = namespace(x=[]) %}{% for i in range(99999) %}"
        "{% set x %}" + "a" * 100000 + "{{ i }}{% endset %}{% set ns.x = ns.x + [x] %}{% endfor %}",
    ],
)
def test_no_template_fills_the_memory(source):
    assert error_of(source)


def test_a_template_of_unreasonable_length_is_not_even_compiled():
    with pytest.raises(ModelError, match="longer than"):
        ChatTemplate(" " * (MAX_SOURCE_CHARS + 1), special_tokens={})


def test_a_template_too_deep_to_compile_is_refused():
    assert "cannot be compiled" in error_of("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}")


def test_after_a_refusal_the_same_template_serves_the_next_request():
    template = ChatTemplate(
        "{% for i in range(messages[0].content | length * 5000) %}..{% endfor %}",
        special_tokens={},
    )
    with pytest.raises(InvalidRequest):
        template.render([{"role": "user", "content": "a" * 50}])
    assert len(template.render([{"role": "user", "content": "a"}])) == 10_000
