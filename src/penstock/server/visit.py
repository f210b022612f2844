"""One HTTP request as limits, logs, metrics and traces know it."""

import time
from dataclasses import dataclass, field
from typing import Protocol

from starlette.types import Scope

from penstock.server.errors import HttpError
from penstock.server.keys import Key
from penstock.vocabulary.sampling_params import SamplingParams


class Cancellable(Protocol):
    """Work for a visit that can be given up."""

    def give_up(self) -> None: ...


@dataclass(eq=False, slots=True)
class Visit:
    """One HTTP request from its arrival, by `time.perf_counter`, to the end of its answer.

    `key` opened the door to it, if doors are locked. `queue_s` is how long its first prompt waited
    in the engine, `first_token_s` how long its client waited for the first token. `error` is the
    code of the failure that ended an answer already begun.
    """

    request_id: str
    method: str = ""
    route: str = "unmatched"
    arrived: float = field(default_factory=time.perf_counter)
    key: Key | None = None
    is_cancelled: bool = False
    work: list[Cancellable] = field(default_factory=list)
    params: SamplingParams | None = None
    num_prompt_tokens: int = 0
    num_generated_tokens: int = 0
    queue_s: float | None = None
    first_token_s: float | None = None
    finish_reasons: list[str] = field(default_factory=list)
    error: str | None = None

    @property
    def age_s(self) -> float:
        return time.perf_counter() - self.arrived

    @property
    def key_name(self) -> str | None:
        return self.key.name if self.key else None

    def priority(self, asked: int) -> int:
        """The priority asked for, unless the key allows none so urgent."""
        least = self.key.quota.limits.min_priority if self.key else None
        return asked if least is None else max(asked, least)

    def took(self, *, prompt_tokens: int = 0, generated_tokens: int = 0) -> None:
        """Count tokens, also against the limits of the key."""
        self.num_prompt_tokens += prompt_tokens
        self.num_generated_tokens += generated_tokens
        if self.key:
            self.key.quota.take_tokens(prompt_tokens + generated_tokens)

    def cancel(self) -> None:
        """An operator ends this: its client is told so."""
        self.is_cancelled = True
        for work in self.work:
            work.give_up()

    def check_wanted(self) -> None:
        """Refuse to go on with what an operator has ended."""
        if self.is_cancelled:
            raise HttpError(
                403, "An operator of the server cancelled this request.", code="cancelled"
            )

    def headers(self) -> dict[str, str]:
        """What every answer tells of its request, as it begins: its id, what its key has left, and
        its times so far (https://www.w3.org/TR/server-timing/).
        """
        limits = self.key.quota.headers() if self.key else {}
        times = {"queue": self.queue_s, "first-token": self.first_token_s, "total": self.age_s}
        timing = ", ".join(
            f"{name};dur={seconds * 1000:.1f}"
            for name, seconds in times.items()
            if seconds is not None
        )
        return {"x-request-id": self.request_id, "server-timing": timing, **limits}


def visit_of(scope: Scope) -> Visit:
    """The visit that a request is."""
    visit = scope["state"]["visit"]
    assert isinstance(visit, Visit)
    return visit
