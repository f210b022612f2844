"""Where every token of a step lives: the one description of a batch that ops and models share."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class StepLayout:
    """T tokens of S sequences, flat. Tensors are on the device; the lists are the host's copy of
    the same facts.

    The tokens of one sequence are neighbours, in order, and the sequences follow one another. A
    sequence's tokens are its last ones: the final token of a slice has position `context_len - 1`.
    """

    positions: Tensor
    """[T] int64, the position of each token in its own sequence."""
    slot_mapping: Tensor
    """[T] int64, block * block_size + offset: where the token's key and value are written."""
    block_table: Tensor
    """[S, B] int64, the blocks of each sequence in order; rows are padded with 0."""
    cu_seqlens_q: Tensor
    """[S + 1] int32, prefix sums of the query lengths."""
    context_lens: Tensor
    """[S] int32, tokens in the cache once this step has written its own."""
    query_lens_host: list[int]
    context_lens_host: list[int]
