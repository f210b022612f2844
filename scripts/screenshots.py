"""Take the pictures of docs/page.md, of a running server with the embedded model.

Usage: penstock serve, and beside it: python -m scripts.screenshots [URL]
Needs Chromium on the PATH.
"""

import asyncio
import random
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
from playwright.async_api import Browser, Page, async_playwright, expect

IMAGES = Path(__file__).parents[1] / "docs" / "images"
NUM_CLIENTS = 24
SOURCE = Path(asyncio.__file__).with_name("base_events.py").read_text()


async def main(url: str) -> None:
    """Write docs/images/page-*.png."""
    IMAGES.mkdir(exist_ok=True)
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("chromium is not on the PATH: apt-get install chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        await _playground(browser, url)
        async with _load(url):
            await _engine(browser, url)
            await _phone(browser, url)
        await browser.close()


async def _playground(browser: Browser, url: str) -> None:
    page = await browser.new_page(color_scheme="light", viewport={"width": 1200, "height": 760})
    await page.goto(url)
    await _write(page)
    await page.locator(".token.odd, .token.rare").nth(12).hover()
    await page.screenshot(path=IMAGES / "page-playground.png")


async def _engine(browser: Browser, url: str) -> None:
    page = await browser.new_page(color_scheme="dark", viewport={"width": 1200, "height": 1000})
    await page.goto(f"{url}/#engine")
    await page.wait_for_timeout(6000)
    await page.get_by_role("button", name="Pause").click()
    await page.locator("#steps").focus()
    for _ in range(100):  # until a step that several prompts share
        await page.keyboard.press("ArrowLeft")
        if await page.locator(".legend li").count() > 3:
            break
    await page.screenshot(path=IMAGES / "page-engine.png")


async def _phone(browser: Browser, url: str) -> None:
    pages = []
    for scheme in ("light", "dark"):
        context = await browser.new_context(
            color_scheme="light" if scheme == "light" else "dark",
            viewport={"width": 360, "height": 740},
            has_touch=True,
        )
        pages.append(await context.new_page())
    await pages[0].goto(url)
    await _write(pages[0])
    await pages[1].goto(f"{url}/#engine")
    await pages[1].wait_for_timeout(4000)
    for page, name in zip(pages, ("playground", "engine"), strict=True):
        await page.screenshot(path=IMAGES / f"page-phone-{name}.png")


async def _write(page: Page) -> None:
    """Have a piece of code continued."""
    await page.evaluate("document.getElementById('settings').open = true")
    await page.get_by_text("Completion", exact=True).click()
    await page.get_by_label("max tokens", exact=True).fill("110")
    await page.get_by_label("seed", exact=True).fill("7")
    if page.viewport_size and page.viewport_size["width"] < 960:
        await page.evaluate("document.getElementById('settings').open = false")
    await page.get_by_label("Your message").fill("def read_config(path):\n")
    await page.keyboard.press("Enter")
    await expect(page.locator(".assistant .note")).to_be_visible(timeout=30_000)


@asynccontextmanager
async def _load(url: str) -> AsyncIterator[None]:
    """Clients that keep the engine busy with prompts of all lengths."""
    async with httpx.AsyncClient(base_url=url, timeout=120) as client:
        clients = [asyncio.create_task(_ask(client, seed)) for seed in range(NUM_CLIENTS)]
        yield
        for task in clients:
            task.cancel()
        await asyncio.gather(*clients, return_exceptions=True)


async def _ask(client: httpx.AsyncClient, seed: int) -> None:
    chance = random.Random(seed)
    while True:
        start, length = chance.randrange(50_000), int(chance.lognormvariate(7, 1))
        body = {
            "prompt": SOURCE[start : start + min(length, 5000)],
            "max_tokens": chance.randint(10, 100),
            "ignore_eos": True,
        }
        (await client.post("/v1/completions", json=body)).raise_for_status()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:] or ["http://127.0.0.1:8000"]))
