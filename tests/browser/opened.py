"""How the browser is started, and what a page in it is watched for."""

from playwright.sync_api import BrowserContext

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

# what the browser itself says of an answer that is no success; the page tells it in words
REFUSALS = ("status of 400", "status of 401")


class Opened:
    """A page in a context of its own. `complaints` are its errors, `foreign` other addresses."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.complaints: list[str] = []
        self.foreign: list[str] = []
        self._url = url
        self.page = context.new_page()
        self.page.on("console", self._note)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        context.on("request", self._check)

    def _note(self, message) -> None:
        is_refusal = any(words in message.text for words in REFUSALS)
        if message.type in ("error", "warning") and not is_refusal:
            self.complaints.append(message.text)

    def _check(self, request) -> None:
        if not request.url.startswith(self._url + "/"):
            self.foreign.append(request.url)
