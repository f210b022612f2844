"""What rounding may cost: perplexity of the embedded model on text it never learned from.

`python -m scripts.perplexity` measures the same over all of that text.
"""

from typing import Any

import pytest
from scripts.perplexity import held_out_text, perplexity

from penstock.models import loading
from penstock.models.location import embedded_model_dir
from tests.models.outliers import with_outliers

TOKENS = 6000


@pytest.fixture(scope="module")
def text() -> str:
    return held_out_text()


@pytest.fixture(scope="module")
def exact(text: str) -> float:
    return perplexity(text, tokens=TOKENS, weights="float32", kv_dtype="float32")


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The embedded model with outliers in its activations: the same function in float32."""
    return str(with_outliers(embedded_model_dir(), tmp_path_factory.mktemp("spoilt")))


@pytest.mark.parametrize(
    ("settings", "allowed"),
    [
        ({"weights": "bfloat16", "kv_dtype": "float32"}, 0.0005),
        ({"weights": "float32", "kv_dtype": "int8"}, 0.005),
        ({"weights": "int8", "kv_dtype": "float32"}, 0.005),
        ({"weights": "int8", "kv_dtype": "int8"}, 0.005),
        ({"weights": "int4", "kv_dtype": "float32"}, 0.05),
    ],
)
def test_rounding_costs_little(
    text: str, exact: float, settings: dict[str, Any], allowed: float
) -> None:
    assert abs(perplexity(text, tokens=TOKENS, **settings) / exact - 1) < allowed


@pytest.mark.parametrize(
    ("weights", "allowed"), [("float32", 1e-4), ("int8", 0.01), ("int4", 0.05)]
)
def test_outliers_in_activations_cost_nothing_more(
    text: str, exact: float, spoilt: str, weights: str, allowed: float
) -> None:
    found = perplexity(text, spoilt, tokens=TOKENS, weights=weights, kv_dtype="float32")
    assert abs(found / exact - 1) < allowed


def test_without_smoothing_outliers_would_cost_much(
    text: str, exact: float, spoilt: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "smoothed", lambda group, tensors: tensors)
    found = perplexity(text, spoilt, tokens=TOKENS, weights="int8", kv_dtype="float32")
    assert found / exact - 1 > 0.05
