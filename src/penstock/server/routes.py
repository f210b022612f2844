"""Every route of the server, by dialect.

Adding an endpoint means a module of its own and its line here, or in its dialect's folder.
"""

from collections.abc import Collection

from penstock.server import health, metrics_page
from penstock.server.anthropic import messages
from penstock.server.azureml import model_inference, presence, score
from penstock.server.endpoint import Dialect, Endpoint
from penstock.server.mii import generate as mii_generate
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
from penstock.server.page import files, live_steps
from penstock.server.tgi import generate, info, tokenize, vertex
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
    (
        mii_generate.ASK_DEPLOYMENT,
        mii_generate.GENERATE,
        mii_generate.TERMINATE,
        health.HEALTHZ,
    ),
)

TGI = Dialect(
    "tgi",
    "Text Generation Inference's own API, also as SageMaker and Vertex AI ask for it",
    (
        generate.GENERATE_EITHER,
        generate.GENERATE,
        generate.GENERATE_STREAM,
        tokenize.TOKENIZE,
        tokenize.CHAT_TOKENIZE,
        info.SHOW_INFO,
        info.PING,
        info.ROOT,
        generate.INVOKE,
        generate.INVOKE_CHAT,
        generate.INVOKE_COMPLETION,
        vertex.PREDICT,
    ),
)

AZUREML = Dialect(
    "azureml",
    "Azure Machine Learning's endpoints and its model inference API",
    (
        presence.SHOW_HEALTH,
        score.SCORE,
        presence.SHOW_INFO,
        presence.SHOW_SWAGGER,
        *model_inference.MODEL_INFERENCE,
    ),
)

PAGE = Dialect(
    "page",
    "people with a browser: a playground, and a live view of the engine",
    (files.SHOW_PAGE, files.SHOW_FILE, live_steps.WATCH_STEPS),
)

DIALECTS = (OPENAI, ANTHROPIC, TGI, MII, AZUREML, PAGE)


def routes_of(dialects: Collection[str]) -> tuple[Endpoint, ...]:
    """The endpoints of the dialects so named, in that order, and those that every server has."""
    known = {dialect.name: dialect for dialect in DIALECTS}
    for name in dialects:
        if name not in known:
            raise SettingsError(
                f"There is no dialect {name!r}.", remedy=f"Choose among {', '.join(known)}."
            )
    chosen = (known[name].endpoints for name in dict.fromkeys(dialects))
    return (*(endpoint for endpoints in chosen for endpoint in endpoints), *ALWAYS)
