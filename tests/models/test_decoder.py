"""What holds for the decoder whatever the family."""

from pathlib import Path

import torch

from tests.models.checkpoints import load, write
from tests.paged_steps import Row, make_cache, step, tensors_of


def test_a_step_of_nothing_computes_nothing(tmp_path: Path) -> None:
    decoder = load(write(tmp_path))
    cache = make_cache(decoder, 4)
    step(decoder, cache, [], [])
    assert not cache.layers[0].keys.any()


def test_an_empty_slice_among_others_leaves_them_as_they_are(tmp_path: Path) -> None:
    decoder = load(write(tmp_path))
    results = []
    for counts in ([2, 3], [2, 0, 3]):
        cache = make_cache(decoder, 8)
        rows = [Row([4, 5, 6], [block]) for block in (2, 5, 7)]
        chosen = rows if len(counts) == 3 else [rows[0], rows[2]]
        step(decoder, cache, chosen, counts)
        results.append(torch.cat([rows[0].logits[0], rows[2].logits[0]]))
    assert torch.equal(*results)


def test_a_step_writes_only_its_own_slots(tmp_path: Path) -> None:
    decoder = load(write(tmp_path))
    cache = make_cache(decoder, 4)
    step(decoder, cache, [Row([4, 5, 6, 7, 8, 9], [3, 1])], [6])
    for tensor in tensors_of(cache):
        written = tensor.flatten(2).any(dim=-1)
        assert written.tolist() == [
            [False] * 4,
            [True, True, False, False],
            [False] * 4,
            [True] * 4,
        ]
