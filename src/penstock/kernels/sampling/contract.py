"""How a row's distribution is shaped before a token is drawn from it."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Shaping:
    """The options of R rows: a column float32 [R] each, or None where no row departs from the
    default.

    They apply in the order in which they stand here, each to what the one before it left. Tokens
    that tie with the last one kept stay, so that no result depends on how ties are broken.
    """

    temperature: Tensor | None = None
    """Divides the logits. 0: the row is greedy, and takes its likeliest token whatever else is
    asked for.
    """
    top_k: Tensor | None = None
    """Keep the k likeliest tokens; 0 or less keeps all."""
    top_p: Tensor | None = None
    """Keep the fewest likeliest tokens that hold this probability (https://arxiv.org/abs/1904.09751);
    1 keeps all.
    """
    min_p: Tensor | None = None
    """Keep tokens at least this likely relative to the likeliest (https://arxiv.org/abs/2407.01082);
    0 keeps all.
    """
    typical_p: Tensor | None = None
    """Keep the smallest set of tokens that holds this probability and whose surprise is nearest to
    the entropy (https://arxiv.org/abs/2202.00666); 1 keeps all.
    """
