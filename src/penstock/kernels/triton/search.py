"""Where a program finds its work: rows stand in groups, one group after the other, and are cut into
tiles; no tile has rows of two groups.

Group g of rows starts[g] to starts[g + 1] has its tiles from number starts[g] // ROWS + g on. That
leaves some numbers without rows, but no host must count, nor a device be asked.
"""

import triton
import triton.language as tl


@triton.jit
def group_of(starts, num_groups, tile, ROWS: tl.constexpr):
    """The group that a tile belongs to: the last whose tiles begin at this one or before."""
    low = 0
    high = num_groups - 1
    while low < high:
        middle = (low + high + 1) // 2
        if tl.load(starts + middle) // ROWS + middle <= tile:
            low = middle
        else:
            high = middle - 1
    return low


@triton.jit
def tile_of(starts, group, tile, ROWS: tl.constexpr):
    """Of a tile: its group's first row, the group's number of rows, and how many of these come
    before the tile; at least all of them if it has no rows.
    """
    start = tl.load(starts + group)
    return start, tl.load(starts + group + 1) - start, (tile - start // ROWS - group) * ROWS


def most_tiles(num_rows: int, num_groups: int, rows: int) -> int:
    """No tile's number reaches this."""
    return num_rows // rows + num_groups
