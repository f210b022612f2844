"""Penstock: an inference engine and server for large language models."""

from typing import TYPE_CHECKING, Any

from penstock.vocabulary.grammar import Grammar
from penstock.vocabulary.sampling_params import SamplingParams

if TYPE_CHECKING:
    from penstock.engine.async_llm import AsyncLLM
    from penstock.engine.llm import LLM

__all__ = ["LLM", "AsyncLLM", "Grammar", "SamplingParams", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import the engines, and torch with them, only when one is asked for."""
    if name == "LLM":
        from penstock.engine.llm import LLM

        return LLM
    if name == "AsyncLLM":
        from penstock.engine.async_llm import AsyncLLM

        return AsyncLLM
    raise AttributeError(f"module 'penstock' has no attribute {name!r}")
