"""Which requests a benchmark sends: lengths as people have them, or a file of one's own."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from penstock.bench.settings import WorkloadSettings
from penstock.vocabulary.errors import SettingsError

DEFAULT_NUM_REQUESTS = 64
FIRST_TOKEN_ID = 8  # those below are special in most vocabularies


@dataclass(frozen=True)
class Lengths:
    """A lognormal distribution of lengths in tokens, clipped."""

    median: float
    sigma: float
    least: int
    most: int

    def draw(self, rng: np.random.Generator, count: int) -> list[int]:
        """So many lengths."""
        drawn = rng.lognormal(math.log(self.median), self.sigma, count)
        return [int(length) for length in np.clip(np.rint(drawn), self.least, self.most)]


# Fitted to the conversations of ShareGPT as serving benchmarks filter them.
PROMPTS = Lengths(median=95, sigma=1.3, least=4, most=1024)
OUTPUTS = Lengths(median=150, sigma=0.8, least=4, most=800)


@dataclass(frozen=True)
class Task:
    """One request to send: a prompt, as text or token ids, and how many tokens to ask for."""

    prompt: str | list[int]
    max_tokens: int


class Workload:
    """The same lengths in every round, and in made-up prompts other tokens: were they the same, the
    server's prefix cache would make each round easier than the one before.
    """

    def __init__(
        self, settings: WorkloadSettings, *, vocab_size: int, max_model_len: int | None
    ) -> None:
        self._seed = settings.seed
        self._vocab_size = vocab_size
        self._given: list[Task] | None = None
        if settings.workload is not None:
            self._given = read_tasks(settings.workload, settings.num_requests)
            return
        self._lengths = made_up_lengths(
            settings.num_requests or DEFAULT_NUM_REQUESTS, settings.seed, max_model_len
        )

    def __len__(self) -> int:
        return len(self._lengths if self._given is None else self._given)

    def round(self, number: int) -> list[Task]:
        """The tasks of one round."""
        if self._given is not None:
            return self._given
        rng = np.random.default_rng((self._seed, 1, number))
        return [
            Task(random_prompt(rng, prompt_len, self._vocab_size), max_tokens)
            for prompt_len, max_tokens in self._lengths
        ]


def made_up_lengths(
    count: int, seed: int, max_model_len: int | None = None
) -> list[tuple[int, int]]:
    """Pairs of prompt and output length; each pair fits the context together."""
    rng = np.random.default_rng((seed, 0))
    pairs = zip(PROMPTS.draw(rng, count), OUTPUTS.draw(rng, count), strict=True)
    if max_model_len is None:
        return list(pairs)
    longest = max_model_len - OUTPUTS.least
    if longest < PROMPTS.least:
        raise SettingsError(
            f"A context of {max_model_len} tokens is too short for a benchmark.",
            remedy=f"It takes at least {PROMPTS.least + OUTPUTS.least}.",
        )
    return [
        (prompt_len := min(prompt, longest), min(output, max_model_len - prompt_len))
        for prompt, output in pairs
    ]


def random_prompt(rng: np.random.Generator, length: int, vocab_size: int) -> list[int]:
    """Token ids that no cache has seen."""
    ids: list[int] = rng.integers(FIRST_TOKEN_ID, vocab_size, length).tolist()
    return ids


def read_tasks(path: Path, count: int | None) -> list[Task]:
    """The first `count` lines of a JSONL file, or all of them. Raises `SettingsError`, naming the
    line at fault.
    """
    try:
        lines = [line for line in path.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"The workload {path} cannot be read: {error}.") from None
    if not lines or (count is not None and count > len(lines)):
        raise SettingsError(
            f"The workload {path} has {len(lines)} requests, fewer than asked for.",
            remedy="Give a smaller --num-requests, or none for all of them.",
        )
    return [_task(line, f"{path}, line {n}") for n, line in enumerate(lines[:count], start=1)]


def _task(line: str, where: str) -> Task:
    try:
        values = json.loads(line)
    except ValueError:
        raise SettingsError(f"{where}: this is not JSON.") from None
    match values:
        case {"prompt": str() | list() as prompt, "max_tokens": int() as max_tokens} if (
            prompt
            and max_tokens >= 1
            and (isinstance(prompt, str) or all(type(each) is int for each in prompt))
        ):
            return Task(prompt, max_tokens)
    raise SettingsError(
        f"{where}: this is no request.",
        remedy='Write {"prompt": "some text", "max_tokens": 100}, or token ids as the prompt.',
    )
