"""What is asked of a watermark, and what its detector finds."""

from typing import Annotated

import msgspec
from msgspec import Meta

Gamma = Annotated[float, Meta(gt=0, lt=1, description="Share of the vocabulary that is green.")]


class Watermark(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How strongly a text is marked (Kirchenbauer et al., arXiv 2301.10226).

    The key is the server's, never the client's.
    """

    gamma: Gamma = 0.5
    delta: Annotated[
        float, Meta(gt=0, le=100, description="Added to the logits of green tokens.")
    ] = 2.0


class WatermarkReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a detector finds in a text.

    `num_scored` are the tokens that count: all but the first, and a token behind the same token
    only once. By chance a share of `gamma` of them would be green. `z_score` says by how many
    standard deviations there are more, and `p_value` how probable so many or more are in a text
    that was written without this key. `is_watermarked` if `z_score` is above 4.
    """

    num_tokens: int
    num_scored: int
    num_green: int
    gamma: float
    z_score: float
    p_value: float
    is_watermarked: bool
