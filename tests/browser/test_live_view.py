"""The live view of the engine."""

import contextlib
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import msgspec
import pytest
from playwright.sync_api import expect

from penstock.vocabulary.messages import EngineStats
from tests.server.scripted_llm import ScriptedLLM
from tests.server.serving import listening
from tests.server.test_page import step


@contextlib.contextmanager
def busy(url: str) -> Iterator[None]:
    """Two clients that ask as long as the block lasts."""
    has_ended = threading.Event()
    body = {"prompt": "import os\n" * 60, "max_tokens": 50, "ignore_eos": True}

    def ask() -> None:
        while not has_ended.is_set():
            httpx.post(f"{url}/v1/completions", json=body).raise_for_status()

    with ThreadPoolExecutor(2) as pool:
        clients = [pool.submit(ask) for _ in range(2)]
        try:
            yield
        finally:
            has_ended.set()
    for client in clients:
        client.result()


def test_bars_are_drawn_while_requests_run(opened, served):
    page = opened(served.url, "#engine")
    expect(page.locator("#steps")).to_contain_text(re.compile("No steps yet|tokens"))
    with busy(served.url):
        bars = page.locator("#steps svg")
        for kind in ("decoding", "time", "blocks"):
            expect(bars.locator(f".{kind}").nth(5)).to_be_attached()
        tiles = page.locator("#tiles")
        expect(tiles).to_contain_text(re.compile("Running[12]"))
        expect(tiles).to_contain_text(re.compile(r"KV blocks\d+ %[1-9]"))
        expect(tiles).to_contain_text(re.compile(r"Next token\d+ msp95 \d+ ms"))
    page.get_by_role("button", name="Pause").click()
    page.locator("#steps").focus()
    page.keyboard.press("ArrowLeft")
    chosen = page.locator("#step").inner_text()
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#step")).not_to_have_text(chosen)
    expect(page.locator("#step")).to_contain_text("unused")


@pytest.fixture
def scripted():
    llm = ScriptedLLM()
    with listening(llm) as url:
        yield llm, url


def test_a_step_is_split_into_decoding_tokens_and_a_slice_for_each_prompt(opened, scripted):
    llm, url = scripted
    llm.stats = EngineStats(num_blocks=64, num_steps=41)
    llm.steps.add(step(41, num_decoding=4, prompt_slices=[(8, 20), (9, 30)]))
    page = opened(url, "#engine")
    for kind in ("decoding", "slice-2", "slice-3", "time", "blocks", "queue"):
        expect(page.locator(f"#steps svg .{kind}")).to_have_count(1)
    heights = [
        float(page.locator(f"#steps svg .{kind}").get_attribute("height"))
        for kind in ("decoding", "slice-2", "slice-3")
    ]
    assert heights[1] / heights[0] == pytest.approx(5, rel=0.01)
    assert heights[2] / heights[0] == pytest.approx(7.5, rel=0.01)
    told = page.locator("#step")
    for words in ("Step 41", "4 decoding", "20 of prompt 9", "30 of prompt 10", "10 unused"):
        expect(told).to_contain_text(words)


def test_a_step_tells_which_share_of_the_machine_it_used_once_that_is_known(opened, scripted):
    llm, url = scripted
    llm.steps.add(step(1))
    page = opened(url, "#engine")
    shares = page.locator("#steps svg .bandwidth, #steps svg .arithmetic")
    expect(page.locator("#step")).to_contain_text("6.0 MB read")
    expect(page.locator("#steps svg .time")).to_have_count(1)
    expect(shares).to_have_count(0)
    llm.steps.add(step(2, bandwidth_share=0.815, arithmetic_share=0.12))
    expect(shares).to_have_count(2)
    told = page.locator("#step")
    for words in ("82 % of the memory bandwidth", "12 % of the arithmetic"):
        expect(told).to_contain_text(words)


ADD_FIFTY = """async (step) => {
  const app = document.querySelector("script[type=module]").src;
  const { StepChart } = await import(app.replace("app.js", "step_chart.js"));
  const place = document.createElement("div");
  const chart = new StepChart(place, document.createElement("div"));
  let drawn = 0;
  new MutationObserver((found) => (drawn += found.length)).observe(place, { childList: true });
  for (let number = 1; number <= 50; number++) chart.add([{ ...step, number }], 64);
  await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
  return drawn;
}"""


def test_steps_that_come_faster_than_frames_are_drawn_together(opened, scripted):
    _, url = scripted
    page = opened(url, "#engine")
    drawn = page.evaluate(ADD_FIFTY, msgspec.to_builtins(step(1)))
    assert 1 <= drawn <= 2  # the second time because its size is new


def test_nobody_is_told_anything_while_the_view_is_not_looked_at(opened, scripted):
    _, url = scripted
    page = opened(url)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    with page.expect_request("**/live/steps"):
        page.get_by_role("link", name="Engine", exact=True).click()
    with page.expect_event("requestfailed", lambda request: "live/steps" in request.url):
        page.get_by_role("link", name="Playground").click()
    assert len([each for each in asked if "live" in each]) == 1
