"""Small screens, keyboards, screen readers, weak eyes."""

import pytest
from playwright.sync_api import expect

from tests.browser.test_playground import button
from tests.server.scripted_llm import Script, ScriptedLLM
from tests.server.serving import listening
from tests.server.test_page import step

LONG = "https://example.org/" + "a" * 200 + " and a sentence that is longer than a small screen."

UNNAMED = """() => [...document.querySelectorAll("button, input, textarea, select, a, summary")]
    .filter(control => {
        const labels = [...(control.labels ?? [])].map(label => label.textContent);
        const by = document.getElementById(control.getAttribute("aria-labelledby"))?.textContent;
        const own = /INPUT|TEXTAREA|SELECT/.test(control.tagName) ? "" : control.textContent;
        return ![...labels, by, own, control.getAttribute("aria-label")].some(name => name?.trim());
    })
    .map(control => control.outerHTML)"""

# WCAG 2.2, 1.4.3: 4.5 to 1 for text of ordinary size, 3 to 1 for large; disabled controls may less
FAINT = """() => {
    const parse = colour => {
        const canvas = document.createElement("canvas").getContext("2d");
        canvas.fillStyle = colour;
        canvas.fillRect(0, 0, 1, 1);
        return canvas.getImageData(0, 0, 1, 1).data;
    };
    const light = ([r, g, b]) => [r, g, b]
        .map(part => part / 255)
        .map(part => part <= .04045 ? part / 12.92 : ((part + .055) / 1.055) ** 2.4)
        .reduce((sum, part, at) => sum + part * [.2126, .7152, .0722][at], 0);
    const behind = element => {
        for (let each = element; each; each = each.parentElement) {
            const colour = parse(getComputedStyle(each).backgroundColor);
            if (colour[3] === 255) return colour;
            if (colour[3] !== 0) throw new Error(`half transparent: ${each.outerHTML}`);
        }
        return [255, 255, 255];
    };
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const faint = [];
    let seen = 0;
    while (walker.nextNode()) {
        const element = walker.currentNode.parentElement;
        if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
        if (element.closest(":disabled, noscript")) continue;
        seen += 1;
        const style = getComputedStyle(element);
        const inside = element instanceof SVGElement;
        const [a, b] = [light(parse(inside ? style.fill : style.color)), light(behind(element))];
        const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
        const isLarge = parseFloat(style.fontSize) >= 24;
        if (ratio < (isLarge ? 3 : 4.5)) faint.push(`${ratio.toFixed(2)} ${element.outerHTML}`);
    }
    return [seen, faint];
}"""


@pytest.fixture(scope="module")
def url():
    llm = ScriptedLLM(Script(LONG))
    llm.steps.add(step(1))
    with listening(llm) as url:
        yield url


def fill(page):
    """Something in every corner: an answer with all kinds of tokens, a refusal, open settings."""
    page.get_by_label("Your message").fill(LONG)
    page.keyboard.press("Enter")
    expect(page.locator(".turn.assistant .note")).to_be_visible()
    page.evaluate("""() => document.querySelectorAll(".token").forEach((token, at) =>
        token.classList.add(["rare", "odd", "usual"][at % 3]))""")
    page.evaluate("() => document.querySelectorAll('details').forEach(each => each.open = true)")
    page.get_by_label("JSON schema of the answer").fill("{")
    page.get_by_label("Your message").fill("x")
    page.keyboard.press("Enter")
    expect(page.locator("#problem")).to_be_visible()


def views(page):
    """Each part of the page in turn, in front of the user."""
    fill(page)
    yield "playground"
    button(page, "API key").click()
    yield "key dialog"
    page.keyboard.press("Escape")
    page.get_by_label("JSON schema of the answer").fill("")
    button(page, "As curl …").click()
    yield "curl dialog"
    button(page, "Close").click()
    page.locator(".token").first.hover()
    yield "probabilities"
    page.get_by_role("link", name="Engine", exact=True).click()
    expect(page.locator("#steps svg")).to_be_visible()
    yield "engine"


@pytest.mark.parametrize("width", [360, 768, 1440])
def test_nothing_is_wider_than_the_screen(opened, url, width):
    page = opened(url, viewport={"width": width, "height": 740})
    for view in views(page):
        too_wide = page.evaluate("""() => [...document.querySelectorAll("body, body *")]
            .filter(each => each.checkVisibility() && !each.closest("svg, .unseen, textarea, tr"))
            .filter(each => each.getBoundingClientRect().right > innerWidth + 1)
            .map(each => each.outerHTML.slice(0, 200))""")
        assert too_wide == [], view
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), view


def test_every_control_has_a_name(opened, url):
    page = opened(url)
    for view in views(page):
        assert page.evaluate(UNNAMED) == [], view


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_stands_out_from_what_is_behind_it(opened, url, scheme):
    page = opened(url, color_scheme=scheme)
    for view in views(page):
        num_seen, faint = page.evaluate(FAINT)
        assert num_seen > 10 and faint == [], view


def test_the_two_colour_schemes_differ(opened, url):
    paper = [
        opened(url, color_scheme=scheme).evaluate("getComputedStyle(document.body).backgroundColor")
        for scheme in ("light", "dark")
    ]
    assert paper[0] != paper[1]


def test_the_keyboard_reaches_everything_and_shows_where_it_is(opened, url):
    page = opened(url)
    expect(page.locator("#option-temperature")).to_be_visible()
    expect(page.get_by_label("Your message")).to_be_focused()
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        focused = page.evaluate("""() => {
            const at = document.activeElement;
            const shows = at.type === "radio" ? at.nextElementSibling : at;
            return [at.id || at.value || at.textContent, getComputedStyle(shows).outlineStyle];
        }""")
        if focused[0]:
            reached.add(focused[0])
            assert focused[1] != "none" or page.evaluate("document.activeElement === document.body")
    wanted = {"Playground", "Engine", "open-key", "schema", "option-temperature", "send", "chat"}
    assert wanted <= reached
