"""Chromium, and pages in it that must neither complain nor ask anybody else for anything."""

import contextlib
import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.browser.opened import FLAGS, Opened
from tests.endtoend.served import penstock_serve
from tests.server.serving import listening

TIMEOUT_MS = 60_000
expect.set_options(timeout=TIMEOUT_MS)  # an engine at work leaves a browser little of the machine


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One for each file: while it is there, its event loop runs, and no asynchronous test can."""
    chromium = shutil.which("chromium")
    if chromium is None:
        if os.environ.get("CI") == "true":
            pytest.fail("no chromium on the PATH, and in CI these tests must run")
        pytest.skip("no chromium on the PATH: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def scripted():
    """Serves a scripted engine: `scripted(llm, **settings)` is its URL."""
    with contextlib.ExitStack() as stack:
        yield lambda llm, **settings: stack.enter_context(listening(llm, **settings))


@pytest.fixture
def opened(browser, scripted):
    """Opens pages of a server, and says at the end what they did that they should not have.

    It depends on `scripted` to be ended first.
    """
    with contextlib.ExitStack() as stack:
        pages = []

        def open_(url: str, view: str = "", **options) -> Page:
            context = browser.new_context(**options)
            stack.callback(context.close)
            context.set_default_timeout(TIMEOUT_MS)
            pages.append(Opened(context, url))
            pages[-1].page.goto(f"{url}/{view}")
            return pages[-1].page

        yield open_
        for each in pages:
            assert each.complaints == [] and each.foreign == []


@pytest.fixture(scope="session")
def served(tmp_path_factory):
    """A real server with the embedded model."""
    with penstock_serve(tmp_path_factory.mktemp("served")) as server:
        yield server
