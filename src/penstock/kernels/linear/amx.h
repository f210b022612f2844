// int8 products in tile registers: 16 or 32 rows times one panel of 32 columns.
#pragma once

#include "../cpu/amx.h"
#include "products.h"

namespace penstock::PENSTOCK_ISA {

// Sums 0 to 3 are [rows 0..15, 16..31] x [columns 0..15, 16..31]; 4 and 5 are rows, 6 and 7 columns.
template <bool kTwo>
PENSTOCK_INLINE void multiply_tile_registers(const uint8_t* panel, const int8_t* x, int64_t stride,
                                             int64_t depth, int32_t* sums) {
  PENSTOCK_TILE_ZERO(0);
  PENSTOCK_TILE_ZERO(1);
  if (kTwo) {
    PENSTOCK_TILE_ZERO(2);
    PENSTOCK_TILE_ZERO(3);
  }
  for (int64_t k = 0; k < depth; k += 64, panel += 64 * kPanelWidth) {
    PENSTOCK_TILE_LOAD(6, panel, 4 * kPanelWidth);
    PENSTOCK_TILE_LOAD(7, panel + 64, 4 * kPanelWidth);
    PENSTOCK_TILE_LOAD(4, x + k, stride);
    PENSTOCK_TILE_MULTIPLY(0, 4, 6);
    PENSTOCK_TILE_MULTIPLY(1, 4, 7);
    if (kTwo) {
      PENSTOCK_TILE_LOAD(5, x + kTileRegisterRows * stride + k, stride);
      PENSTOCK_TILE_MULTIPLY(2, 5, 6);
      PENSTOCK_TILE_MULTIPLY(3, 5, 7);
    }
  }
  PENSTOCK_TILE_STORE(0, sums, 4 * kPanelWidth);
  PENSTOCK_TILE_STORE(1, sums + 16, 4 * kPanelWidth);
  if (kTwo) {
    PENSTOCK_TILE_STORE(2, sums + kTileRegisterRows * kPanelWidth, 4 * kPanelWidth);
    PENSTOCK_TILE_STORE(3, sums + kTileRegisterRows * kPanelWidth + 16, 4 * kPanelWidth);
  }
}

// total [count][kPanelWidth] = the exact products of the first rows, as floats; returns their
// count: as many of those left as fill tile registers.
PENSTOCK_INLINE int64_t multiply_int8_in_tiles(const uint8_t* panel, const Rows& rows, int64_t row,
                                               int64_t left, int64_t depth, float* total) {
  const int64_t count = left >= 2 * kTileRegisterRows ? 2 * kTileRegisterRows : kTileRegisterRows;
  const int8_t* x = static_cast<const int8_t*>(rows.values) + row * rows.stride;
  alignas(64) int32_t sums[2 * kTileRegisterRows * kPanelWidth];
  if (count > kTileRegisterRows) {
    multiply_tile_registers<true>(panel, x, rows.stride, depth, sums);
  } else {
    multiply_tile_registers<false>(panel, x, rows.stride, depth, sums);
  }
  for (int64_t i = 0; i < count * kPanelWidth; i += kLanes) {
    const Ints start = broadcast_int(rows.starts[row + i / kPanelWidth]);
    store(total + i, to_floats(load<Ints>(sums + i) + start));
  }
  return count;
}

}  // namespace penstock::PENSTOCK_ISA
