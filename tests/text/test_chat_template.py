"""Our rendering against that of transformers, on templates in the formats that models use."""

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from penstock.text.chat_template import ChatTemplate
from penstock.vocabulary.errors import InvalidRequest, ModelError

CHATML = """\
{%- if messages[0].role != 'system' %}
{{- '<|im_start|>system\\nYou help.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {{- '<|im_start|>' + message['role'] + '\\n' + message.content + '<|im_end|>' + '\\n' }}
{%- endfor %}
{% if add_generation_prompt %}
{{ '<|im_start|>assistant\\n' }}
{%- endif %}
"""

LLAMA_3 = """\
{{- bos_token }}
{%- set date = date_string if date_string is defined else '26 Jul 2024' %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = '' %}
{%- endif %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\nToday: ' ~ date ~ '\\n\\n' }}
{%- if tools is not none %}
    {%- for tool in tools %}{{- tool | tojson(indent=4) + '\\n\\n' }}{%- endfor %}
{%- endif %}
{{- system_message ~ '<|eot_id|>' }}
{%- for message in messages %}
    {%- if not message.tool_calls %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
    {{- message['content'] | trim + '<|eot_id|>' }}
    {%- else %}
    {{- message.tool_calls[0].function.arguments | tojson }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

MISTRAL = """\
{{ bos_token }}{% set ns = namespace(index=0, last='') %}
{%- for message in messages if message.role != 'note' %}
  {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
    {{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
  {%- endif %}
  {%- if message['role'] == 'user' %}
    {%- if loop.last and tools %}{{ '[TOOLS] ' + (tools|tojson) + '[/TOOLS]' }}{% endif %}
    {{- '[INST] ' + message['content'] + ' [/INST]' }}
  {%- else %}
    {% generation %}{{- ' ' + message['content'].strip() + eos_token }}{% endgeneration %}
  {%- endif %}
  {%- set ns.index = ns.index + 1 %}
{%- endfor %}{{ '' if ns.index else 'empty' }}
"""

ZEPHYR = """\
{% macro say(role, content) %}<|{{ role }}|>
{{ content }}{{ eos_token }}
{% endmacro %}
{% for message in messages %}
{% if message['role'] == 'skip' %}
{% continue %}
{% elif message['role'] == 'stop' %}
{% break %}
{% endif %}
{{ say(message['role'], message['content']) }}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}
"""

ODDS_AND_ENDS = """\
{% set parts = [] %}
{{ 'a-b-c'.split('-') | join(', ') }} {{ 'x' ~ 1 ~ none }} {{ 7 % 4 }} {{ 2 ** 3 }} {{ 3 * 'ab' }}
{{ '%s and %02d' | format('one', 2) }} {{ '%d!' % 5 }} {{ '{} {{}} {a}'.format(1, a=2) }}
{{ messages | map(attribute='role') | list }}
{{ messages | selectattr('role', 'eq', 'user') | list | length }}
{{ 'aXbX'.replace('X', '--') }} {{ 'aXbX' | replace('X', '+', 1) }} {{ 'one\\ntwo' | indent(2) }}
{{ {'é': '<&>', 'n': [1, 2.5, true, none]} | tojson }} {{ {'a': 1} | string }} {{ [1] + [2] }}
{{ ', '.join(messages | map(attribute='role')) }} {{ undefined_thing }} {{ documents }}
{%- for key, value in {'k': 'v'}.items() %} {{ key }}={{ value }}{% endfor %}
{% filter upper %}{% set inner %}block {{ messages | length }}{% endset %}{{ inner }}{% endfilter %}
"""

TEMPLATES = {
    "chatml": CHATML,
    "llama 3": LLAMA_3,
    "mistral": MISTRAL,
    "zephyr": ZEPHYR,
    "odds and ends": ODDS_AND_ENDS,
}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "wetter",
            "description": "Wie <ist> das Wetter & die Temperatur über 0°?",
            "parameters": {"type": "object", "properties": {"ort": {"type": "string"}}},
        },
    }
]
ONE = [{"role": "user", "content": "  Grüße, 世界! <b> "}]
SEVERAL = [*ONE, {"role": "assistant", "content": " Hello.\n"}, {"role": "user", "content": "?"}]
CONVERSATIONS = {
    "one turn": ONE,
    "several turns": SEVERAL,
    "a system message": [{"role": "system", "content": " Be brief. "}, *SEVERAL],
    "a tool call": [
        *ONE,
        {"role": "assistant", "tool_calls": [{"function": {"arguments": {"ort": "Köln"}}}]},
    ],
    "roles to skip": [*ONE, {"role": "skip", "content": "-"}, {"role": "stop", "content": "."}],
}
SPECIAL_TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


@pytest.mark.parametrize("tools", [None, TOOLS], ids=["no tools", "tools"])
@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_a_conversation_reads_as_transformers_would_write_it(name, conversation, tools):
    messages, source = CONVERSATIONS[conversation], TEMPLATES[name]
    template = ChatTemplate(source, special_tokens=SPECIAL_TOKENS)
    for add_generation_prompt in (True, False):
        options = {"add_generation_prompt": add_generation_prompt, "tools": tools}
        try:
            [theirs], _ = render_jinja_template(
                [messages], chat_template=source, **SPECIAL_TOKENS, **options
            )
        except Exception as refusal:
            with pytest.raises(InvalidRequest) as ours:
                template.render(messages, **options)
            assert str(refusal) in str(ours.value)
        else:
            assert template.render(messages, **options) == theirs


def render(source: str, messages: list[dict] | None = None, **options: object) -> str:
    template = ChatTemplate(source, special_tokens=SPECIAL_TOKENS)
    return template.render(messages or [{"role": "user", "content": "hi"}], **options)


def test_further_variables_reach_the_template_but_never_replace_the_conversation():
    assert render("{{ enable_thinking }}", enable_thinking=False) == "False"
    assert render("{{ bos_token }}", bos_token="<other>") == "<other>"


def test_today_s_date_can_be_asked_for():
    assert render("{{ strftime_now('%Y') }}").isdigit()


def test_a_refusal_by_the_template_is_passed_on_in_its_own_words():
    with pytest.raises(InvalidRequest, match=r"^Only user and assistant roles!$") as refusal:
        render("{{ raise_exception('Only user and assistant roles!') }}")
    assert refusal.value.param == "messages"


@pytest.mark.parametrize(
    "source, message",
    [
        ("{{ persona.name }}", "'persona' is undefined"),
        ("{{ messages[0].name.first }}", "has no attribute 'name'"),
        ("{{ messages[0].content + 1 }}", "TypeError"),
        ("{{ missing | tojson }}", "not JSON serializable"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
    ],
)
def test_what_goes_wrong_in_a_template_is_said(source, message):
    with pytest.raises(InvalidRequest, match=message):
        render(source)


def test_a_template_that_is_not_jinja_is_the_model_s_fault():
    with pytest.raises(ModelError, match="line 2: "):
        ChatTemplate("first\n{% if %}", special_tokens={})
