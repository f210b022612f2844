"""What one API key may ask for, and what it has left. The memory this takes does not grow."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from penstock.vocabulary.errors import Overloaded


@dataclass(frozen=True, kw_only=True)
class KeyLimits:
    """What a key allows; None is without limit.

    `min_priority` is the most urgent that its requests are served: lower is served earlier.
    """

    max_concurrent: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    min_priority: int | None = None


class OverQuota(Overloaded):
    """A key has used up what it may; `kind` says of what: requests or tokens."""

    def __init__(self, kind: str, limit: str, wait_s: float) -> None:
        super().__init__(
            f"Rate limit reached: this API key allows {limit}.",
            retry_after_s=max(1, math.ceil(wait_s)),
        )
        self.kind = kind


class Bucket:
    """A token bucket: a minute's allowance that refills steadily and may be overdrawn.

    Overdrawn, since the length of an answer is not known before its end: what it takes too much is
    missing afterwards. `now` is any clock in seconds.
    """

    def __init__(self, per_minute: int, now: float) -> None:
        self.per_minute = per_minute
        self._level = float(per_minute)
        self._at = now

    def level(self, now: float) -> float:
        """What is there; negative if overdrawn."""
        self._level = min(self.per_minute, self._level + (now - self._at) * self.per_minute / 60)
        self._at = now
        return self._level

    def take(self, amount: int, now: float) -> None:
        """Take out `amount`, whether or not it is there."""
        self._level = self.level(now) - amount

    def wait_s(self, level: float, now: float) -> float:
        """Seconds until that much is there, if nothing more is taken."""
        return max(0.0, (level - self.level(now)) * 60 / self.per_minute)


class Quota:
    """What is left of a key's limits."""

    def __init__(self, limits: KeyLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self.limits = limits
        self._clock = clock
        self._num_running = 0
        self._requests = _bucket(limits.requests_per_minute, clock())
        self._tokens = _bucket(limits.tokens_per_minute, clock())

    @contextmanager
    def request(self) -> Iterator[None]:
        """One request, counted while it lasts. Raises `OverQuota` if there is no room."""
        self._check_room()
        if self._requests:
            self._requests.take(1, self._clock())
        self._num_running += 1
        try:
            yield
        finally:
            self._num_running -= 1

    def take_tokens(self, count: int) -> None:
        """Tokens of a prompt or an answer, which is not refused any more."""
        if self._tokens:
            self._tokens.take(count, self._clock())

    def headers(self) -> dict[str, str]:
        """What is left, in the headers by which OpenAI tells it."""
        found = {}
        for name, bucket in (("requests", self._requests), ("tokens", self._tokens)):
            if bucket:
                now = self._clock()
                found[f"x-ratelimit-limit-{name}"] = str(bucket.per_minute)
                found[f"x-ratelimit-remaining-{name}"] = str(max(0, int(bucket.level(now))))
                found[f"x-ratelimit-reset-{name}"] = _duration(
                    bucket.wait_s(bucket.per_minute, now)
                )
        return found

    def _check_room(self) -> None:
        now, most = self._clock(), self.limits.max_concurrent
        if most is not None and self._num_running >= most:
            raise OverQuota("requests", f"{most} requests at once", 1)
        for name, bucket in (("requests", self._requests), ("tokens", self._tokens)):
            if bucket and (wait_s := bucket.wait_s(1, now)):
                raise OverQuota(name, f"{bucket.per_minute} {name} per minute", wait_s)


def _bucket(per_minute: int | None, now: float) -> Bucket | None:
    return None if per_minute is None else Bucket(per_minute, now)


def _duration(seconds: float) -> str:
    """As OpenAI writes it: 20ms, 1.5s, 6m0s."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    if seconds < 60:
        return f"{round(seconds, 3):g}s"
    minutes, rest = divmod(math.ceil(seconds), 60)
    return f"{minutes}m{rest}s"
