"""How long TGI's clients are told that things took."""

import time

from fastapi import Request

from penstock.server.tgi.job import GenerateJob
from penstock.server.visit import visit_of

# TGI names the card, such as 1-nvidia-a100-80gb; what this engine computes on is its own business.
_COMPUTE_TYPE = "penstock"


class Timings:
    """The clock of one request that has just been submitted."""

    def __init__(self, request: Request, job: GenerateJob) -> None:
        self._job = job
        self._visit = visit_of(request.scope)
        self._submitted = time.perf_counter()

    def early_headers(self) -> dict[str, str]:
        """What is known before anything is generated."""
        return {
            "x-compute-type": _COMPUTE_TYPE,
            "x-compute-characters": str(len(self._job.inputs)),
        }

    def headers(self, num_generated: int) -> dict[str, str]:
        """All of it, at the end. Times are milliseconds, but for the compute time: seconds."""
        now = time.perf_counter()
        total, queued = now - self._visit.arrived, self._visit.queue_s or 0.0
        inference = max(0.0, now - self._submitted - queued)
        return {
            **self.early_headers(),
            "x-compute-time": f"{total:.6f}",
            "x-total-time": _ms(total),
            "x-validation-time": _ms(self._submitted - self._visit.arrived),
            "x-queue-time": _ms(queued),
            "x-inference-time": _ms(inference),
            "x-time-per-token": _ms(inference / max(1, num_generated)),
            "x-prompt-tokens": str(len(self._job.prompt_token_ids)),
            "x-generated-tokens": str(num_generated),
        }


def _ms(seconds: float) -> str:
    return str(int(seconds * 1000))
