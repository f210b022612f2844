"""Drawing tokens, by every backend: which may be drawn, how often, and that nobody else matters."""

from collections.abc import Iterator
from dataclasses import fields

import pytest
import torch
from torch import Tensor

from penstock.kernels.sampling.contract import Shaping
from penstock.kernels.sampling.reference import SHAPING
from tests.kernels.instruction_sets import ISAS
from tests.kernels.sampling_cases import KINDS, NEVER, probabilities, rows, shaping
from tests.kernels.table import BACKENDS

on_every_backend = pytest.mark.parametrize("backend", BACKENDS)
on_every_isa = pytest.mark.parametrize("backend", ISAS)


@pytest.fixture
def threads() -> Iterator[None]:
    import penstock.kernels.cpu._native as native

    before = native.num_threads()
    yield
    native.set_num_threads(before)


def log(*values: float) -> Tensor:
    """Logits of one row with these probabilities."""
    return torch.tensor([values]).log()


def kept(backend: str, logits: Tensor, **options: float) -> list[int]:
    """The tokens of a row that may be drawn: those met on a walk through all its probability."""
    steps = 1000
    walk = (torch.arange(steps, dtype=torch.float64) + 0.5) / steps
    columns = shaping(**{name: [value] * steps for name, value in options.items()})
    return sorted(set(BACKENDS[backend].draw(logits.repeat(steps, 1), columns, walk).tolist()))


def random_shaping(count: int, generator: torch.Generator) -> Shaping:
    def among(*values: float) -> Tensor:
        return torch.tensor(values)[torch.randint(len(values), (count,), generator=generator)]

    return Shaping(
        temperature=among(0.0, 1e-38, 0.05, 0.7, 1.0, 2.0, 30.0),
        top_k=among(0.0, -1.0, 1.0, 5.0, 40.0, 1e9),
        top_p=among(1.0, 1.0, 1e-6, 0.37, 0.9, 0.999),
        min_p=among(0.0, 0.0, 0.013, 0.3, 1.0),
        typical_p=among(1.0, 1.0, 0.21, 0.93),
    )


def test_every_option_has_a_step_in_the_order_of_the_contract() -> None:
    assert [name for name, _ in SHAPING] == [field.name for field in fields(Shaping)]


@on_every_backend
def test_a_low_temperature_sharpens_and_a_high_one_flattens(backend: str) -> None:
    uniforms = torch.tensor([0.93, 0.95, 0.6, 0.7], dtype=torch.float64)
    options = shaping(temperature=[0.5, 0.5, 2.0, 2.0])  # 16/17 and 2/3 for the likeliest
    drawn = BACKENDS[backend].draw(log(0.8, 0.2).repeat(4, 1), options, uniforms)
    assert drawn.tolist() == [0, 1, 0, 1]


@on_every_backend
def test_top_k_keeps_the_k_likeliest(backend: str) -> None:
    logits = torch.tensor([[4.0, 3.0, 2.0, 1.0]])
    assert [kept(backend, logits, top_k=k) for k in (1, 3, 0, 99)] == [
        [0],
        [0, 1, 2],
        [0, 1, 2, 3],
        [0, 1, 2, 3],
    ]


@on_every_backend
def test_tokens_as_likely_as_the_kth_stay(backend: str) -> None:
    assert kept(backend, torch.tensor([[1.0, 2.0, 1.0, 0.0, 1.0]]), top_k=2) == [0, 1, 2, 4]


@on_every_backend
def test_top_p_keeps_the_fewest_tokens_that_reach_the_probability(backend: str) -> None:
    logits = log(0.5, 0.25, 0.15, 0.1)
    assert [kept(backend, logits, top_p=p) for p in (1e-9, 0.4, 0.6, 0.8, 1.0)] == [
        [0],
        [0],
        [0, 1],
        [0, 1, 2],
        [0, 1, 2, 3],
    ]


@on_every_backend
def test_top_p_of_a_flat_distribution_keeps_most_of_it(backend: str) -> None:
    """A reference that sorts the likeliest 1,024 first must look beyond them."""
    logits = torch.arange(5000).float()[None] * 1e-4
    mass = logits.softmax(1).sort(descending=True).values.cumsum(1)
    first = 5000 - int((mass < 0.9).sum()) - 1
    uniforms = torch.tensor([0.0, 1 - 1e-9], dtype=torch.float64)
    drawn = BACKENDS[backend].draw(logits.repeat(2, 1), shaping(top_p=[0.9, 0.9]), uniforms)
    assert drawn.tolist() == [first, 4999]


@on_every_backend
def test_min_p_is_relative_to_the_likeliest(backend: str) -> None:
    logits = log(0.5, 0.3, 0.15, 0.05)
    assert [kept(backend, logits, min_p=p) for p in (0.2, 0.5, 1.0)] == [[0, 1, 2], [0, 1], [0]]


@on_every_backend
def test_typical_p_prefers_tokens_whose_surprise_is_near_the_entropy(backend: str) -> None:
    """Entropy 1.28 nats; surprises 0.51, 2.08, 2.30, 2.30: the likeliest is the nearest, then
    0.125.
    """
    logits = log(0.6, 0.125, 0.1, 0.1, 0.075)
    assert kept(backend, logits, typical_p=0.5) == [0]
    assert kept(backend, logits, typical_p=0.7) == [0, 1]


@on_every_backend
def test_typical_p_can_leave_out_the_likeliest(backend: str) -> None:
    assert kept(backend, log(0.4, *[0.1] * 6), typical_p=0.5) == [1, 2, 3, 4, 5, 6]


@on_every_backend
def test_options_apply_to_what_the_ones_before_them_left(backend: str) -> None:
    """Of 0.4, 0.3, 0.2, 0.1 top_k leaves 4/9, 3/9 and 2/9: two of them hold 0.75."""
    logits = log(0.4, 0.3, 0.2, 0.1)
    assert kept(backend, logits, top_p=0.75) == [0, 1, 2]
    assert kept(backend, logits, top_k=3, top_p=0.75) == [0, 1]


@on_every_backend
@pytest.mark.parametrize("kind", ["masked", "not numbers"])
def test_what_is_masked_or_no_number_is_never_drawn(backend: str, kind: str) -> None:
    generator = torch.Generator().manual_seed(3)
    logits = rows(400, 131, kind)(generator)
    uniforms = torch.rand(400, dtype=torch.float64, generator=generator)
    drawn = BACKENDS[backend].draw(logits, random_shaping(400, generator), uniforms)
    assert (logits.gather(1, drawn[:, None]) > NEVER).all()


@on_every_backend
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 1.7},
        {"top_k": 12},
        {"top_p": 0.8},
        {"min_p": 0.1},
        {"typical_p": 0.6},
        {"temperature": 1.3, "top_k": 40, "top_p": 0.95, "min_p": 0.02, "typical_p": 0.9},
    ],
    ids=str,
)
def test_draws_follow_the_shaped_probabilities(backend: str, options: dict[str, float]) -> None:
    """Pearson's chi-squared, far below what one in a thousand fair samples exceeds."""
    count = 20_000
    generator = torch.Generator().manual_seed(11)
    logits = rows(1, 100)(generator)
    columns = shaping(**{name: [float(value)] * count for name, value in options.items()})
    uniforms = torch.rand(count, dtype=torch.float64, generator=generator)
    drawn = BACKENDS[backend].draw(logits.repeat(count, 1), columns, uniforms)
    expected = count * torch.tensor(probabilities(logits[0], **options))
    seen = torch.bincount(drawn, minlength=100)
    possible = expected > 0
    assert not seen[~possible].any()
    freedom = int(possible.sum()) - 1
    distance = ((seen - expected) ** 2 / expected)[possible].sum().item()
    assert distance < freedom + 3.1 * (2 * freedom) ** 0.5 + 8


@on_every_isa
@pytest.mark.parametrize("vocab_size", [1, 7, 64, 129, 1000, 5003])
def test_a_kernel_draws_what_the_reference_draws(backend: str, vocab_size: int) -> None:
    """But for a token where rounding moves a threshold."""
    count = different = 0
    for number, kind in enumerate(KINDS):
        generator = torch.Generator().manual_seed(100 * vocab_size + number)
        logits = rows(150, vocab_size, kind)(generator)
        options = random_shaping(150, generator)
        uniforms = torch.rand(150, dtype=torch.float64, generator=generator)
        drawn = [BACKENDS[name].draw(logits, options, uniforms) for name in (backend, "reference")]
        count += 150
        different += int((drawn[0] != drawn[1]).sum())
    assert different <= count // 500


@on_every_isa
def test_neither_companions_nor_threads_change_what_is_drawn(backend: str, threads: None) -> None:
    import penstock.kernels.cpu._native as native

    generator = torch.Generator().manual_seed(5)
    logits = torch.cat([rows(9, 3001, kind)(generator) for kind in ("normal", "peaked", "tied")])
    options = random_shaping(len(logits), generator)
    uniforms = torch.rand(len(logits), dtype=torch.float64, generator=generator)
    chosen = torch.randint(3001, (len(logits),), generator=generator)
    ops, found = BACKENDS[backend], []
    for num_threads, size in ((1, 27), (1, 1), (2, 1), (3, 2), (5, 27)):
        native.set_num_threads(num_threads)
        parts: list[tuple[Tensor, ...]] = []
        for first in range(0, len(logits), size):
            part = slice(first, first + size)
            columns = {field.name: getattr(options, field.name)[part] for field in fields(Shaping)}
            drawn = ops.draw(logits[part], Shaping(**columns), uniforms[part])
            logprobs = ops.top_logprobs(logits[part], chosen[part], 4)
            parts.append((drawn, ops.argmax(logits[part]), *logprobs))
        found.append([torch.cat(column) for column in zip(*parts, strict=True)])
    for other in found[1:]:
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(found[0], other, strict=True))


@on_every_backend
def test_drawing_leaves_the_logits_as_they_are(backend: str) -> None:
    logits = rows(3, 200, "not numbers")(torch.Generator().manual_seed(0))
    before = logits.clone()
    BACKENDS[backend].argmax(logits)
    BACKENDS[backend].draw(logits, shaping(top_p=[0.5] * 3), torch.full((3,), 0.5).double())
    BACKENDS[backend].top_logprobs(logits, torch.tensor([0, 1, 2]), 3)
    assert torch.equal(logits.nan_to_num(7), before.nan_to_num(7))


@on_every_isa
def test_a_token_beyond_the_vocabulary_has_no_log_probability(backend: str) -> None:
    for token in (-1, 5):
        with pytest.raises(IndexError, match=f"id {token} at position 1 .* of 5 rows"):
            BACKENDS[backend].top_logprobs(torch.zeros(2, 5), torch.tensor([0, token]), 1)


@on_every_isa
def test_what_a_kernel_cannot_read_is_refused(backend: str) -> None:
    ops, half = BACKENDS[backend], torch.tensor([0.5], dtype=torch.float64)
    with pytest.raises(ValueError, match=r"logits is torch\.bfloat16"):
        ops.argmax(torch.zeros(1, 5, dtype=torch.bfloat16))
    with pytest.raises(ValueError, match="V at least 1"):
        ops.argmax(torch.zeros(1, 0))
    with pytest.raises(ValueError, match=r"top_k is \[2\] for 1 rows"):
        ops.draw(torch.zeros(1, 5), shaping(top_k=[1.0, 2.0]), half)
    with pytest.raises(ValueError, match=r"uniforms is torch\.float32"):
        ops.draw(torch.zeros(1, 5), Shaping(), half.float())


@on_every_isa
def test_a_row_that_the_table_lacks_is_not_looked_up(backend: str) -> None:
    for row in (-1, 5):
        with pytest.raises(IndexError, match=f"id {row} at position 0 is not in a table of 5 rows"):
            BACKENDS[backend].embedding(torch.tensor([row]), torch.zeros(5, 3), torch.float32)
