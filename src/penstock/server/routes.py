"""Every route of the server, by dialect.

Adding an endpoint means a module of its own and its line here, or in its dialect's folder.
"""

from collections.abc import Collection

from penstock.server import health, metrics_page
from penstock.server.anthropic import messages
from penstock.server.endpoint import Dialect, Endpoint
from penstock.server.mii import generate
from penstock.server.openai import (
    chat_completions,
    completions,
    embeddings,
    models,
    responses,
    tokenization,
    version,
    watermark,
)
from penstock.vocabulary.errors import SettingsError

ALWAYS = (health.LIVE, health.READY, health.HEALTH, metrics_page.METRICS)

OPENAI = Dialect(
    "openai",
    "OpenAI's API and vLLM's additions",
    (
        completions.CREATE_COMPLETION,
        chat_completions.CREATE_CHAT_COMPLETION,
        responses.CREATE_RESPONSE,
        embeddings.CREATE_EMBEDDING,
        models.LIST_MODELS,
        models.SHOW_MODEL,
        tokenization.TOKENIZE,
        tokenization.DETOKENIZE,
        version.SHOW_VERSION,
        watermark.DETECT_WATERMARK,
    ),
)

ANTHROPIC = Dialect(
    "anthropic",
    "Anthropic's Messages API",
    (messages.CREATE_MESSAGE, messages.COUNT_TOKENS),
)

MII = Dialect(
    "mii",
    "DeepSpeed-MII's REST gateway and its text-generation server: docs/mii.md",
    (generate.ASK_DEPLOYMENT, generate.GENERATE, health.HEALTHZ),
)

DIALECTS = (OPENAI, ANTHROPIC, MII)


def routes_of(dialects: Collection[str]) -> tuple[Endpoint, ...]:
    """The endpoints of the dialects so named, and those that every server has."""
    known = {dialect.name: dialect for dialect in DIALECTS}
    for name in dialects:
        if name not in known:
            raise SettingsError(
                f"There is no dialect {name!r}.", remedy=f"Choose among {', '.join(known)}."
            )
    chosen = (known[name].endpoints for name in known if name in dialects)
    return (*(endpoint for endpoints in chosen for endpoint in endpoints), *ALWAYS)
