"""What was seen of one request, and what many of them say together."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

ANSWERED = "answered"
EMA_SPAN = 16
PROMPT_TOKENS_PER_S = 512  # a first token may take a second for so many tokens of prompt


@dataclass(frozen=True, kw_only=True)
class Timing:
    """One request. `outcome` is `ANSWERED`, or says how it failed: "status 429", "cut off".

    `arrivals_s` are the times at which something of the output arrived, counted from the request's
    own start, as is `end_s`; `start_s` counts from the start of the run. `num_prompt_tokens` is
    None if nobody knows: the prompt was text, and the server did not count.
    """

    outcome: str
    start_s: float
    end_s: float
    arrivals_s: list[float]
    num_prompt_tokens: int | None
    num_output_tokens: int

    @property
    def is_answered(self) -> bool:
        return self.outcome == ANSWERED

    @property
    def first_token_s(self) -> float:
        return self.arrivals_s[0]

    @property
    def inter_token_s(self) -> list[float]:
        """The gaps between arrivals. Where arrivals bring several tokens each, or some tokens bring
        no text, a gap is spread evenly over the tokens that it stands for.
        """
        num_gaps = len(self.arrivals_s) - 1
        if num_gaps < 1 or self.num_output_tokens < 2:
            return []
        share = num_gaps / (self.num_output_tokens - 1)
        return [(later - earlier) * share for earlier, later in pairwise(self.arrivals_s)]


@dataclass(frozen=True)
class Distribution:
    """Many values in five; all None where there are no values."""

    mean: float | None
    p50: float | None
    p90: float | None
    p99: float | None
    max: float | None


def percentile(values: Sequence[float], percent: float) -> float:
    """The value below which so many percent lie, between neighbours by a straight line."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def distribution(values: Sequence[float]) -> Distribution:
    """The mean and the usual percentiles."""
    if not values:
        return Distribution(None, None, None, None, None)
    p50, p90, p99 = (percentile(values, percent) for percent in (50, 90, 99))
    return Distribution(sum(values) / len(values), p50, p90, p99, max(values))


def moving_averages(values: Iterable[float], span: int = EMA_SPAN) -> list[float]:
    """The exponential moving average at each value: it begins with the first one, and each later
    one weighs 2 / (span + 1).
    """
    averages: list[float] = []
    for value in values:
        previous = averages[-1] if averages else value
        averages.append(previous + (value - previous) * 2 / (span + 1))
    return averages


def is_served_well(timing: Timing, reading_speed: float) -> bool:
    """Whether a reader of so many tokens per second was satisfied: the first token came within a
    second for each 512 of the prompt, and at every token the smoothed time between tokens was at
    most what the reader takes for one. (DeepSpeed-FastGen, arXiv 2401.08671, section 4.)

    A prompt of unknown length is given the shortest time of all, that of one token.
    """
    if not timing.is_answered:
        return False
    if timing.first_token_s > (timing.num_prompt_tokens or 1) / PROMPT_TOKENS_PER_S:
        return False
    averages = moving_averages(timing.inter_token_s)
    return max(averages, default=0.0) <= 1 / reading_speed


@dataclass(frozen=True, kw_only=True)
class Effective:
    """Requests that satisfied a reader of so many tokens per second: their share of all that were
    sent, failed ones included, and how many there were per second.
    """

    reading_speed: float
    share: float
    requests_per_s: float


@dataclass(frozen=True, kw_only=True)
class Summary:
    """All requests of a run together. Only answered requests enter the distributions and rates;
    `failures` says what became of the others.
    """

    duration_s: float
    num_sent: int
    num_answered: int
    failures: dict[str, int]
    requests_per_s: float
    output_tokens_per_s: float
    total_tokens_per_s: float
    first_token_s: Distribution
    inter_token_s: Distribution
    end_to_end_s: Distribution
    effective: list[Effective]


def summary(timings: Sequence[Timing], reading_speeds: Sequence[float]) -> Summary:
    """What the requests of one run say together."""
    answered = [timing for timing in timings if timing.is_answered]
    began = min((timing.start_s for timing in timings), default=0.0)
    ended = max((timing.start_s + timing.end_s for timing in timings), default=0.0)
    per_s = 1 / max(ended - began, 1e-9)
    num_output = sum(timing.num_output_tokens for timing in answered)
    num_prompt = sum(timing.num_prompt_tokens or 0 for timing in answered)
    return Summary(
        duration_s=ended - began,
        num_sent=len(timings),
        num_answered=len(answered),
        failures=dict(Counter(each.outcome for each in timings if not each.is_answered)),
        requests_per_s=len(answered) * per_s,
        output_tokens_per_s=num_output * per_s,
        total_tokens_per_s=(num_output + num_prompt) * per_s,
        first_token_s=distribution([timing.first_token_s for timing in answered]),
        inter_token_s=distribution([gap for each in answered for gap in each.inter_token_s]),
        end_to_end_s=distribution([timing.end_s for timing in answered]),
        effective=[_effective(timings, speed, per_s) for speed in reading_speeds],
    )


def _effective(timings: Sequence[Timing], reading_speed: float, per_s: float) -> Effective:
    num_well = sum(is_served_well(timing, reading_speed) for timing in timings)
    return Effective(
        reading_speed=reading_speed,
        share=num_well / max(len(timings), 1),
        requests_per_s=num_well * per_s,
    )
