"""`init()` and `run()`, for Azure's public inference server (azureml-inference-server-http).

A score script is one line, and reads the same environment as `penstock azureml`:

    from penstock.server.azureml.score_script import init, run
"""

import asyncio
import dataclasses
import os
import threading
import uuid
from collections.abc import Coroutine
from typing import Any, TypeVar

import msgspec

from penstock.engine.async_llm import AsyncLLM
from penstock.server.azureml.environment import Deployment, deployment_from
from penstock.server.azureml.score import document, scoring, submit
from penstock.server.azureml.wording import AZURE_WORDING, LEGACY_SCORE_WORDING
from penstock.server.errors import HttpError, http_error_from
from penstock.server.front import Front
from penstock.server.generations import Generations
from penstock.server.metrics import Metrics
from penstock.server.visit import Visit
from penstock.vocabulary.errors import PenstockError

T = TypeVar("T")


class Scorer:
    """A served model and the loop that answers, in a thread of their own: any thread may ask."""

    def __init__(self, deployment: Deployment) -> None:
        settings = {
            field.name: getattr(deployment.engine, field.name)
            for field in dataclasses.fields(deployment.engine)
        }
        self._llm = AsyncLLM(**settings, front=deployment.front)
        self._front = Front(self._llm, deployment.server, Metrics(lambda: self._llm.replicas))
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="penstock", daemon=True).start()

    def start(self) -> None:
        """Load the model. Raises `ModelError` or `SettingsError`."""
        self._result(self._llm.start())

    def score(self, data: str) -> tuple[int, Any]:
        """Status and document of the answer to a body of /score."""
        return self._result(self._scored(data.encode()))

    def _result(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except (
            BaseException
        ):  # the server has its own time limit, and interrupts us by an exception
            future.cancel()
            raise

    async def _scored(self, raw: bytes) -> tuple[int, Any]:
        try:
            asked = await scoring(self._front, raw)
            request_id = f"score-{uuid.uuid4().hex}"
            generations = Generations(self._front, request_id, visit=Visit(request_id))
            with submit(generations, asked, salt=""):
                answer = await document(self._front, asked, generations)
        except (PenstockError, HttpError) as error:
            return self._refused(error)
        return 200, msgspec.json.decode(answer)

    def _refused(self, error: Exception) -> tuple[int, Any]:
        is_legacy = self._front.settings.legacy_score
        wording = LEGACY_SCORE_WORDING if is_legacy else AZURE_WORDING
        refusal = http_error_from(error, request_id="")
        return wording.status_of(refusal), msgspec.json.decode(wording.body(refusal))


_scorer: Scorer | None = None  # the contract is two functions of a module, so it is kept here


def init() -> None:
    """Load the model that the environment tells; called once by the server."""
    global _scorer
    deployment = deployment_from(os.environ)
    _scorer = Scorer(deployment)
    _scorer.start()


def run(data: str) -> Any:
    """The answer to one body, a JSON text."""
    from azureml_inference_server_http.api.aml_response import AMLResponse

    assert _scorer is not None, "the server calls init() first"
    status, answer = _scorer.score(data)
    return AMLResponse(answer, status, json_str=True, run_function_failed=status != 200)
