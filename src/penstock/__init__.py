"""Penstock: an inference engine and server for large language models."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from penstock.vocabulary.grammar import Grammar
from penstock.vocabulary.sampling_params import SamplingParams

if TYPE_CHECKING:
    from penstock.engine.async_llm import AsyncLLM
    from penstock.engine.detection import detect_watermark
    from penstock.engine.llm import LLM
    from penstock.server.deployments.launching import client, serve
    from penstock.server.mii.pipeline import pipeline

__all__ = [
    "LLM",
    "AsyncLLM",
    "Grammar",
    "SamplingParams",
    "__version__",
    "client",
    "detect_watermark",
    "pipeline",
    "serve",
]
_MODULES = {
    "LLM": "engine.llm",
    "AsyncLLM": "engine.async_llm",
    "client": "server.deployments.launching",
    "detect_watermark": "engine.detection",
    "pipeline": "server.mii.pipeline",
    "serve": "server.deployments.launching",
}
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import the engines, and torch with them, only when one is asked for."""
    if name in _MODULES:
        return getattr(import_module(f"penstock.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'penstock' has no attribute {name!r}")
