"""Tools through the clients that people use, over real sockets; the engine says what it is told."""

import json

import httpx
import openai
import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

from tests.server.scripted_llm import Script, ScriptedLLM
from tests.server.serving import listening
from tests.text.chat_models import CHATML, DEEPSEEK, LLAMA3, MISTRAL, QWEN3

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tells the weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
QUESTION = {"role": "user", "content": "How is the weather in Köln and Bonn?"}


def hermes(city):
    return (
        f'<tool_call>\n{{"name": "get_weather", "arguments": {{"city": "{city}"}}}}\n</tool_call>'
    )


CALLS = {
    CHATML: f"I will look.\n{hermes('Köln')}\n{hermes('Bonn')}",
    QWEN3: f"<think>\nTwo calls.\n</think>\n\nI will look.\n{hermes('Köln')}\n{hermes('Bonn')}",
    MISTRAL: 'I will look.[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Köln"}}, '
    '{"name": "get_weather", "arguments": {"city": "Bonn"}}]',
    LLAMA3: 'I will look.<|python_tag|>{"name": "get_weather", "parameters": {"city": "Köln"}}; '
    '{"name": "get_weather", "parameters": {"city": "Bonn"}}',
    DEEPSEEK: "Two calls.</think>I will look.<｜tool▁calls▁begin｜>"
    + "\n".join(
        f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n"
        f'{{"city": "{city}"}}\n```<｜tool▁call▁end｜>'
        for city in ("Köln", "Bonn")
    )
    + "<｜tool▁calls▁end｜>",
}


def answer_of(model):
    """What it says in the end. DeepSeek's prompts have opened its thoughts."""
    return ("Easy.</think>" if model is DEEPSEEK else "") + "Rain everywhere."


def engine_of(model, said):
    """A model that says `said` until a tool has answered, and then that it knows."""

    def script(request):
        has_heard = "rain in" in engine.tokenizer.decode(request.prompt_token_ids)
        return Script(answer_of(model) if has_heard else said, tokens_per_step=5)

    engine = ScriptedLLM(
        script, max_model_len=4000, chat_template=model.source, special_tokens=model.markers
    )
    return engine


@pytest.fixture(params=CALLS, ids=lambda model: model.name)
def model(request):
    return request.param


@pytest.fixture
def base_url(model):
    with listening(engine_of(model, CALLS[model])) as url:
        yield f"{url}/v1"


@pytest.fixture
def chat(base_url):
    with openai.OpenAI(base_url=base_url, api_key="any", max_retries=0) as client:
        yield client.chat.completions


def check(message, model):
    """The first answer, whichever way it came."""
    assert message.content == "I will look."
    called = [
        (call.function.name, json.loads(call.function.arguments)) for call in message.tool_calls
    ]
    assert called == [("get_weather", {"city": "Köln"}), ("get_weather", {"city": "Bonn"})]
    thoughts = "Two calls." if model in (QWEN3, DEEPSEEK) else None
    assert getattr(message, "reasoning_content", None) == thoughts


def test_the_openai_client_calls_tools_and_sends_back_what_they_say(chat, model):
    messages = [QUESTION]
    [choice] = chat.create(model="scripted", messages=messages, tools=[TOOL]).choices
    check(choice.message, model)
    assert choice.finish_reason == "tool_calls"
    if model is LLAMA3:  # whose template takes one call a turn
        choice.message.tool_calls.pop()
    messages.append(choice.message)
    for call in choice.message.tool_calls:
        city = json.loads(call.function.arguments)["city"]
        messages.append({"role": "tool", "tool_call_id": call.id, "content": f"rain in {city}"})
    [choice] = chat.create(model="scripted", messages=messages, tools=[TOOL]).choices
    assert choice.message.content == "Rain everywhere."
    assert not choice.message.tool_calls
    assert choice.finish_reason == "stop"


def test_the_openai_client_assembles_streamed_calls(chat, model):
    with chat.stream(model="scripted", messages=[QUESTION], tools=[TOOL]) as stream:
        events = list(stream)
        [choice] = stream.get_final_completion().choices
    check(choice.message, model)
    assert choice.finish_reason == "tool_calls"
    done = [event for event in events if event.type == "tool_calls.function.arguments.done"]
    assert [(event.index, event.name) for event in done] == [(0, "get_weather"), (1, "get_weather")]


def test_a_plain_stream_has_the_ids_names_and_pieces_of_all_calls(chat, model):
    calls = {}
    for chunk in chat.create(model="scripted", messages=[QUESTION], tools=[TOOL], stream=True):
        for call in chunk.choices[0].delta.tool_calls or ():
            if call.id:
                calls[call.index] = [call.id, call.function.name, ""]
            calls[call.index][2] += call.function.arguments
    assert [name for _, name, _ in calls.values()] == ["get_weather"] * 2
    assert [json.loads(text) for *_, text in calls.values()] == [{"city": "Köln"}, {"city": "Bonn"}]
    ids = [id_ for id_, *_ in calls.values()]
    assert len(set(ids)) == 2
    assert all(len(id_) == 9 and id_.isalnum() for id_ in ids) or model is not MISTRAL


def test_tools_can_be_kept_from_the_model(chat, model):
    [choice] = chat.create(
        model="scripted", messages=[QUESTION], tools=[TOOL], tool_choice="none"
    ).choices
    assert choice.message.tool_calls is None
    assert "get_weather" in choice.message.content


@tool
def get_weather(city: str) -> str:
    """Tells the weather of a city."""
    return f"rain in {city}"


@pytest.fixture
def langchain(base_url):
    with httpx.Client() as http_client:
        llm = ChatOpenAI(
            base_url=base_url, api_key="any", model="scripted", http_client=http_client
        )
        yield llm.bind_tools([get_weather])


def talk(ask, model):
    """A conversation in which LangChain runs the tools; the last answer."""
    messages = [HumanMessage(QUESTION["content"])]
    answer = ask(messages)
    assert [call["args"] for call in answer.tool_calls] == [{"city": "Köln"}, {"city": "Bonn"}]
    assert not answer.invalid_tool_calls
    calls = answer.tool_calls[:1] if model is LLAMA3 else answer.tool_calls
    messages.append(AIMessage(answer.content, tool_calls=calls))
    messages += [get_weather.invoke(call) for call in calls]
    assert all(isinstance(message, ToolMessage) for message in messages[2:])
    return ask(messages)


def test_langchain_calls_tools_and_sends_back_what_they_say(langchain, model):
    assert talk(langchain.invoke, model).text == "Rain everywhere."


def test_langchain_assembles_streamed_calls(langchain, model):
    def streamed(messages):
        first, *rest = langchain.stream(messages)
        return sum(rest, first)

    assert talk(streamed, model).text == "Rain everywhere."
