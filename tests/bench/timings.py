"""Timings to reckon with."""

from itertools import accumulate

from penstock.bench.timing import ANSWERED, Timing


def timing(
    first_token_s: float = 0.1,
    gaps: tuple[float, ...] = (0.1, 0.1),
    *,
    prompt_len: int | None = 512,
    outcome: str = ANSWERED,
    start_s: float = 0.0,
    num_tokens: int | None = None,
) -> Timing:
    """A request whose tokens came one by one, with these gaps between them."""
    arrivals = list(accumulate([first_token_s, *gaps]))
    return Timing(
        outcome=outcome,
        start_s=start_s,
        end_s=arrivals[-1],
        arrivals_s=arrivals,
        num_prompt_tokens=prompt_len,
        num_output_tokens=num_tokens or len(arrivals),
    )
