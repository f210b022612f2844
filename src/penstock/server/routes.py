"""Every route of the server. Adding an endpoint means a module of its own and its line here."""

from penstock.server import health, metrics_page
from penstock.server.openai import chat_completions, completions, models

ROUTES = (
    completions.CREATE_COMPLETION,
    chat_completions.CREATE_CHAT_COMPLETION,
    models.LIST_MODELS,
    models.SHOW_MODEL,
    health.LIVE,
    health.READY,
    health.HEALTH,
    metrics_page.METRICS,
)
