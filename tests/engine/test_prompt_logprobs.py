"""What the model makes of a prompt is computed piece by piece. How long a piece is decides about
memory, and nothing else.
"""

import weakref
from pathlib import Path

import pytest
from torch import Tensor

from penstock.engine.engine import Engine
from penstock.models.decoder import Decoder
from penstock.vocabulary.messages import Output
from penstock.vocabulary.sampling_params import SamplingParams
from tests.engine.test_laws import DRAWN, OTHERS, PROMPT
from tests.engine.test_planning_ahead import ahead
from tests.engine.tiny_engine import make_engine, run
from tests.kernels.instruction_sets import ISAS
from tests.tiny_models import make_tiny_checkpoint

ALL = 10_000
THREE = {"max_tokens": 3, "ignore_eos": True}
READ = {
    "long": (PROMPT, SamplingParams(temperature=0, prompt_logprobs=4, **THREE)),
    "short": (OTHERS[1], SamplingParams(seed=1, logprobs=2, prompt_logprobs=0, **THREE)),
}
REQUESTS = {**READ, "other": (OTHERS[2], DRAWN)}
LIMITS = [{"token_budget": 200}, {"token_budget": 20, "max_num_seqs": 3}]


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_checkpoint("llama", tmp_path_factory.mktemp("model"))


def reading(model_dir: Path, prompt_rows: int, **limits: int) -> Engine:
    engine = make_engine(model_dir, **limits)
    engine.runner.prompt_rows = prompt_rows
    return engine


def told(outputs: dict[str, dict[int, list[Output]]]) -> dict[str, list[list[object]]]:
    """All that is told of each request, in however many outputs it came."""
    return {
        name: [
            [entry for output in found[0] for entry in getattr(output, field)]
            for field in ("token_ids", "logprobs", "prompt_logprobs")
        ]
        for name, found in outputs.items()
    }


@pytest.mark.skipif(not ISAS, reason="the reference's bits depend on how many rows there are")
@pytest.mark.parametrize("limits", LIMITS, ids=["one step", "slices"])
@pytest.mark.parametrize("prompt_rows", [1, 3, ALL])
def test_a_prompt_read_in_pieces_is_told_the_same(
    model_dir: Path, prompt_rows: int, limits: dict[str, int]
) -> None:
    expected = told(run(reading(model_dir, ALL, token_budget=200), REQUESTS))
    assert told(run(reading(model_dir, prompt_rows, **limits), REQUESTS)) == expected
    assert told(run(ahead(reading(model_dir, prompt_rows, **limits)), REQUESTS)) == expected


def test_every_token_but_the_first_is_told_of_with_as_many_others_as_its_request_wants(
    model_dir: Path,
) -> None:
    found = run(reading(model_dir, 3, token_budget=20, max_num_seqs=3), REQUESTS)
    for name, (prompt, params) in READ.items():
        entries = [entry for output in found[name][0] for entry in output.prompt_logprobs]
        assert [entry.token_id for entry in entries] == prompt[1:]
        assert {len(entry.top) for entry in entries} == {params.prompt_logprobs}
    assert not any(output.prompt_logprobs for output in found["other"][0])


class Watched:
    """A decoder's logits: how many rows each call made, and how many calls' are alive together."""

    def __init__(self, decoder: Decoder) -> None:
        self.num_rows: list[int] = []
        self.most_alive = 0
        self._made: list[weakref.ref[Tensor]] = []
        self._compute, decoder.logits = decoder.logits, self

    def __call__(self, hidden: Tensor) -> Tensor:
        logits = self._compute(hidden)
        self.num_rows.append(len(logits))
        self._made.append(weakref.ref(logits))
        self.most_alive = max(self.most_alive, sum(each() is not None for each in self._made))
        return logits


def test_no_more_rows_are_computed_at_once_than_a_piece_has_or_a_step_draws(
    model_dir: Path,
) -> None:
    engine = reading(model_dir, 5, token_budget=200, max_num_seqs=2)
    engine.runner.graphs = None
    watched = Watched(engine.runner.decoder)
    run(engine, READ)
    assert max(watched.num_rows) == 5 and watched.most_alive == 1
    num_drawn = sum(params.max_tokens for _, params in READ.values())
    assert sum(watched.num_rows) == num_drawn + sum(len(prompt) - 1 for prompt, _ in READ.values())
