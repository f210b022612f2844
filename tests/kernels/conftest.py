"""A test of a backend named for an instruction set runs on that instruction set."""

from collections.abc import Iterator

import pytest

from tests.kernels.instruction_sets import ISAS


@pytest.fixture(autouse=True)
def instruction_set(request: pytest.FixtureRequest) -> Iterator[None]:
    call = getattr(request.node, "callspec", None)
    isa = call.params.get("backend") if call else None
    if isa not in ISAS:
        yield
        return
    import penstock.kernels.cpu._native as native

    before = native.isa()
    native.use_isa(isa)
    yield
    native.use_isa(before)
