"""The playground, as somebody at a browser meets it."""

import json
import re
import shlex

import httpx
import jsonschema
import pytest
from playwright.sync_api import Locator, Page, expect

from tests.server.scripted_llm import Script, ScriptedLLM
from tests.server.serving import wait_until

ANSWER = ".turn.assistant .text"
NOTE = ".turn.assistant .note"


def button(page: Page, name: str) -> Locator:
    return page.get_by_role("button", name=name, exact=True)


def say(page: Page, text: str) -> None:
    page.get_by_label("Your message").fill(text)
    page.keyboard.press("Enter")


def complete(page: Page, text: str, **options: str) -> None:
    """Continue a text instead of a conversation."""
    page.get_by_text("Completion", exact=True).click()
    for name, value in options.items():
        page.get_by_label(name.replace("_", " "), exact=True).fill(value)
    say(page, text)


def test_a_chat_is_written_as_it_comes_and_remembered(opened, served):
    page = opened(served.url)
    expect(page.locator("#model")).to_contain_text("penstock-default")
    say(page, "What does os.path.join do?")
    expect(page.locator(ANSWER)).not_to_be_empty()
    expect(page.locator(NOTE)).to_contain_text("tokens")
    say(page, "And os.sep?")
    expect(page.locator(NOTE)).to_have_count(2)
    expect(page.locator(".turn.user")).to_have_count(2)
    assert json.loads(_curl(page)[-1])["messages"][1]["role"] == "assistant"


def test_text_shows_while_more_is_to_come_and_stop_ends_it(opened, scripted):
    llm = ScriptedLLM(Script("word " * 1000, hangs_after=15))
    page = opened(scripted(llm))
    for stop in (lambda: page.keyboard.press("Escape"), button(page, "Stop").click):
        button(page, "Clear").click()
        say(page, "Go on")
        expect(page.locator(ANSWER)).to_contain_text("word word")
        expect(button(page, "Send")).to_be_disabled()
        stop()
        expect(page.locator(NOTE)).to_contain_text("stopped")
        expect(button(page, "Send")).to_be_enabled()
    wait_until(lambda: len(llm.cancelled) == 2)
    assert not llm.in_flight


def test_clearing_the_page_stops_the_answer_and_forgets_it(opened, scripted):
    llm = ScriptedLLM(Script("word " * 1000, hangs_after=15))
    page = opened(scripted(llm))
    say(page, "Go on")
    expect(page.locator(ANSWER)).to_contain_text("word")
    button(page, "Clear").click()
    expect(button(page, "Send")).to_be_enabled()
    expect(page.locator(".turn")).to_have_count(0)
    assert len(json.loads(_curl(page)[-1])["messages"]) == 1


def test_an_answer_follows_the_schema_in_the_box(opened, served):
    page = opened(served.url)
    button(page, "Example").click()
    schema = json.loads(page.get_by_label("JSON schema of the answer").input_value())
    complete(page, "A person: ")
    expect(page.locator(NOTE)).to_contain_text("complete")
    jsonschema.validate(json.loads(page.locator(ANSWER).inner_text()), schema)


def test_a_schema_that_is_no_json_is_said_to_be_none_beside_the_box(opened, served):
    page = opened(served.url)
    page.get_by_label("JSON schema of the answer").fill("{")
    say(page, "Hello")
    expect(page.locator("#schema-problem")).to_contain_text("Not JSON")
    expect(page.locator("#problem")).to_contain_text("schema cannot be read")
    expect(page.get_by_label("Your message")).to_have_value("Hello")


@pytest.mark.parametrize("mode", ["chat", "completion"])
def test_pointing_at_a_token_tells_how_likely_it_was_and_what_else(opened, served, mode):
    page = opened(served.url)
    page.get_by_label("temperature", exact=True).fill("0")
    say(page, "import os") if mode == "chat" else complete(page, "import os\n")
    expect(page.locator(NOTE)).to_be_visible()
    tip = page.locator("#tip")
    page.locator(ANSWER).locator(".token").first.hover()
    expect(tip.locator("tr")).to_have_count(5)
    expect(tip.locator(".taken")).to_contain_text("%")
    page.mouse.move(0, 0)
    expect(tip).to_be_hidden()
    page.locator(ANSWER).focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(page.locator(ANSWER).locator(".token").nth(1)).to_have_class(re.compile("chosen"))
    expect(tip).to_be_visible()


def test_a_sampling_option_that_the_server_has_learnt_appears_by_itself(opened, scripted):
    page = opened(scripted(ScriptedLLM()))

    def with_more(route):
        document = route.fetch().json()
        options = document["components"]["schemas"]["SamplingParams"]["properties"]
        options["warmth"] = {"type": "number", "minimum": 0, "maximum": 2, "default": 1}
        route.fulfill(json=document)

    page.route("**/openapi.json", with_more)
    page.reload()
    page.get_by_text("More options").click()
    page.get_by_label("warmth", exact=True).fill("1.5")
    page.get_by_label("min tokens", exact=True).fill("3")
    page.get_by_label("ignore eos", exact=True).check()
    page.get_by_label("stop", exact=True).fill("one\ntwo words")
    page.get_by_label("temperature, slider").fill("0.5")
    body = json.loads(_curl(page)[-1])
    expected = {"warmth": 1.5, "min_tokens": 3, "ignore_eos": True, "temperature": 0.5}
    assert expected.items() <= body.items()
    assert body["stop"] == ["one", "two words"]


def test_every_sampling_option_has_a_control(opened, served):
    page = opened(served.url)
    expect(page.locator("#model")).to_contain_text("context")
    document = httpx.get(f"{served.url}/openapi.json").json()
    options = document["components"]["schemas"]["SamplingParams"]["properties"]
    drawn = page.locator("#settings [id^=option-]:not(p)").evaluate_all("all => all.map(o => o.id)")
    elsewhere = {"logprobs", "prompt_logprobs", "grammar"}
    assert {name.removeprefix("option-") for name in drawn} == set(options) - elsewhere


def test_what_the_server_refuses_is_told_in_its_words_and_the_message_is_kept(opened, served):
    page = opened(served.url)
    page.get_by_label("temperature", exact=True).fill("9")
    say(page, "Hello")
    expect(page.locator(NOTE)).to_contain_text("temperature")
    expect(page.get_by_label("Your message")).to_have_value("Hello")


def test_a_stream_that_fails_says_so(opened, scripted):
    page = opened(scripted(ScriptedLLM(Script("Hello world", fails_after=5))))
    say(page, "Hi")
    expect(page.locator(NOTE)).to_contain_text("engine process died")
    expect(page.locator(ANSWER)).to_contain_text("Hello")


def test_what_a_model_writes_is_text_whatever_it_looks_like(opened, scripted):
    markup = "<img src=x onerror=alert(1)><script>alert(2)</script><b>bold</b>"
    page = opened(scripted(ScriptedLLM(Script(markup))))
    say(page, "<i>Hi</i>")
    expect(page.locator(ANSWER)).to_have_text(markup)
    assert page.locator("#conversation :is(img, script, b, i)").count() == 0


def test_several_answers_stand_below_one_another(opened, scripted):
    page = opened(scripted(ScriptedLLM()))
    page.get_by_text("More options").click()
    page.get_by_label("n", exact=True).fill("3")
    say(page, "Hi")
    expect(page.locator(ANSWER)).to_have_text(["Hello!"] * 3)


def test_the_same_request_as_curl_gets_an_answer(opened, served):
    page = opened(served.url)
    page.get_by_label("Your message").fill('it\'s a "test"\n£ $HOME `x`')
    command = _curl(page)
    assert command[:3] == ["curl", "-N", f"{served.url}/v1/chat/completions"]
    headers = dict([command[command.index("-H") + 1].split(": ")])
    answer = httpx.post(command[2], headers=headers, content=command[-1].encode())
    assert answer.status_code == 200 and "data: [DONE]" in answer.text
    assert json.loads(command[-1])["messages"][-1]["content"] == 'it\'s a "test"\n£ $HOME `x`'


def test_the_page_asks_for_a_key_and_keeps_it_in_the_tab_alone(opened, scripted):
    llm = ScriptedLLM()
    page = opened(scripted(llm, api_keys=("schlüssel",)))
    dialog = page.locator("#key-dialog")
    expect(dialog).to_contain_text("API key")
    for attempt in ("wrong", "schlüssel"):
        expect(dialog).to_be_visible()
        page.get_by_label("Key", exact=True).fill(attempt)
        page.keyboard.press("Enter")
    expect(page.locator("#model")).to_contain_text("scripted")
    expect(dialog).to_be_hidden()
    say(page, "Hi")
    expect(page.locator(ANSWER)).to_have_text("Hello!")
    assert "schl" not in " ".join(_curl(page))
    assert page.evaluate("localStorage.length + document.cookie.length") == 0
    button(page, "Close").click()
    page.reload()
    expect(page.locator("#model")).to_contain_text("scripted")
    button(page, "API key").click()
    button(page, "Forget it").click()
    expect(page.locator("#model")).to_contain_text("key")


def _curl(page: Page) -> list[str]:
    """The words of the command that the page shows."""
    button(page, "As curl …").click()
    return shlex.split(page.locator("#curl").input_value())
