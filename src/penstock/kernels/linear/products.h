// The inner loops: R rows times one panel. Every number of rows has the same order of sums, so that
// a row's bits do not depend on its neighbours.
//
// Loops over rows and vectors must be unrolled, or the compiler keeps the sums in memory; loops
// over inputs must not be, or it interleaves their turns and runs out of registers.
#pragma once

#include "../cpu/integers.h"
#include "packed.h"

namespace penstock::PENSTOCK_ISA {

// Rows as a scheme multiplies them.
struct Rows {
  const void* values;     // float, int16 (int8 without VNNI) or int8, [rows][stride]
  int64_t stride;         // in elements
  const float* scales;    // [rows], of rounded rows, else null
  const int32_t* starts;  // [rows][num_starts]: what sums start with, to undo the weights' offsets
  int64_t num_starts;
};

// As many rows as leave every sum in a register.
#ifdef PENSTOCK_512
inline constexpr int kTileRows = 12;
#else
inline constexpr int kTileRows = 6;
#endif

inline constexpr int kPanelWidth = 2 * kLanes;

// Inputs of a group of int4 whose products are summed before they are taken out of the registers:
// without VNNI in int16, where 32 products of at most 8 * 127 fit, and which start with minus the
// offsets of their own weights, so that no sum on the way is larger.
PENSTOCK_INLINE int64_t int4_run(int64_t group) { return kHasVnni || group < 64 ? group : 64; }

// Ask for what is read a little later: by itself the processor stops at the end of every page.
PENSTOCK_INLINE void prefetch(const void* from) {
  constexpr int kBytesAhead = 2048;
  __builtin_prefetch(static_cast<const char*>(from) + kBytesAhead);
}

template <class T>
PENSTOCK_INLINE int32_t four_bytes(const T* from) {
  int32_t r;
  __builtin_memcpy(&r, from, 4);
  return r;
}

// total [R][kPanelWidth] += x [R, depth] * w [depth][kPanelWidth], input after input.
template <int R, class Weight>
PENSTOCK_INLINE void multiply_floats(const Weight* w, const float* x, int64_t stride, int64_t depth,
                                     float* total) {
  Floats sums[R][2];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    sums[r][0] = load<Floats>(total + r * kPanelWidth);
    sums[r][1] = load<Floats>(total + r * kPanelWidth + kLanes);
  }
#pragma GCC unroll 1
  for (int64_t k = 0; k < depth; ++k, w += kPanelWidth) {
    prefetch(w);
    Floats w0, w1;
    if constexpr (sizeof(Weight) == 4) {
      w0 = load<Floats>(w);
      w1 = load<Floats>(w + kLanes);
    } else {
      w0 = widen_bfloat16(load<Halves>(w));
      w1 = widen_bfloat16(load<Halves>(w + kLanes));
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const Floats b = broadcast(x[r * stride + k]);
      sums[r][0] += w0 * b;
      sums[r][1] += w1 * b;
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    store(total + r * kPanelWidth, sums[r][0]);
    store(total + r * kPanelWidth + kLanes, sums[r][1]);
  }
}

// total [R][kPanelWidth] = the exact products, as floats.
template <int R>
PENSTOCK_INLINE void multiply_int8(const uint8_t* panel, const Rows& rows, int64_t row,
                                   int64_t depth, float* total) {
  Ints sums[R][2];
  if constexpr (kHasVnni) {
    const int8_t* x = static_cast<const int8_t*>(rows.values) + row * rows.stride;
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) sums[r][0] = sums[r][1] = broadcast_int(rows.starts[row + r]);
#pragma GCC unroll 1
    for (int64_t k = 0; k < depth; k += 4, panel += 4 * kPanelWidth) {
      prefetch(panel);
      const UnsignedQuads w0 = load<UnsignedQuads>(panel);
      const UnsignedQuads w1 = load<UnsignedQuads>(panel + 4 * kLanes);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const Quads b = reinterpret_cast<Quads>(broadcast_int(four_bytes(x + r * rows.stride + k)));
        sums[r][0] = add_quads(sums[r][0], w0, b);
        sums[r][1] = add_quads(sums[r][1], w1, b);
      }
    }
  } else {
    const int16_t* x = static_cast<const int16_t*>(rows.values) + row * rows.stride;
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) sums[r][0] = sums[r][1] = Ints{};
    const int8_t* w = reinterpret_cast<const int8_t*>(panel);
#pragma GCC unroll 1
    for (int64_t k = 0; k < depth; k += 2, w += 2 * kPanelWidth) {
      prefetch(w);
      const Shorts w0 = widen_bytes(w), w1 = widen_bytes(w + 2 * kLanes);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const Shorts b =
            reinterpret_cast<Shorts>(broadcast_int(four_bytes(x + r * rows.stride + k)));
        sums[r][0] = add_pairs(sums[r][0], w0, b);
        sums[r][1] = add_pairs(sums[r][1], w1, b);
      }
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    store(total + r * kPanelWidth, to_floats(sums[r][0]));
    store(total + r * kPanelWidth + kLanes, to_floats(sums[r][1]));
  }
}

// sums [R][2] = the products of `count` inputs of one group.
template <int R>
PENSTOCK_INLINE void multiply_run(const uint8_t* w, const int8_t* x, int64_t stride,
                                  const int32_t* starts, int64_t num_starts, int64_t count,
                                  SumsOfQuads (&sums)[R][2]) {
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    sums[r][0] = sums[r][1] = reinterpret_cast<SumsOfQuads>(broadcast_int(starts[r * num_starts]));
  }
#pragma GCC unroll 1
  for (int64_t k = 0; k < count; k += 4, w += 4 * kLanes) {
    prefetch(w);
    const Shorts both = load<Shorts>(w);
    const auto w0 = reinterpret_cast<UnsignedQuads>(both & 0x0f0f);
    const auto w1 = reinterpret_cast<UnsignedQuads>((both >> 4) & 0x0f0f);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const Quads b = reinterpret_cast<Quads>(broadcast_int(four_bytes(x + r * stride + k)));
      sums[r][0] = add_products(sums[r][0], w0, b);
      sums[r][1] = add_products(sums[r][1], w1, b);
    }
  }
}

// Add a group's sums, times its scales, to total [R][kPanelWidth]; those of its earlier runs are in
// `within`, and so are these until its last.
template <int R, bool kFirst, bool kLast>
PENSTOCK_INLINE void take_out(const SumsOfQuads (&sums)[R][2], const uint8_t* scales, float* total,
                              int32_t* within) {
  const Floats scale[2] = {widen_bfloat16(load<Halves>(scales)),
                           widen_bfloat16(load<Halves>(scales + 2 * kLanes))};
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) {
      const int at = r * kPanelWidth + v * kLanes;
      Ints sum = in_full(sums[r][v]);
      if (!kFirst) sum += load<Ints>(within + at);
      if (kLast) {
        store(total + at, load<Floats>(total + at) + to_floats(sum) * scale[v]);
      } else {
        store(within + at, sum);
      }
    }
  }
}

// total [R][kPanelWidth] = the sum over groups, in order, of their exact products times their
// scales.
template <int R>
PENSTOCK_INLINE void multiply_int4(const uint8_t* panel, const Rows& rows, int64_t row,
                                   int64_t depth, int64_t group, float* total) {
  const int8_t* x = static_cast<const int8_t*>(rows.values) + row * rows.stride;
  const int32_t* starts = rows.starts + row * rows.num_starts;
  const int64_t stride = rows.stride, num_starts = rows.num_starts, run = int4_run(group);
  __builtin_memset(total, 0, R * kPanelWidth * sizeof(float));
  SumsOfQuads sums[R][2];
  if (run == group) {
#pragma GCC unroll 1
    for (int64_t k = 0; k < depth; k += group, ++starts) {
      multiply_run<R>(panel, x + k, stride, starts, num_starts, group, sums);
      panel += group * kLanes;
      take_out<R, true, true>(sums, panel, total, nullptr);
      panel += 2 * kPanelWidth;
    }
    return;
  }
  int32_t within[R * kPanelWidth] = {};
  for (int64_t first = 0; first < depth; first += group) {
    const uint8_t* scales = panel + group * kLanes;
    for (int64_t k = first; k < first + group; k += run, panel += run * kLanes, ++starts) {
      multiply_run<R>(panel, x + k, stride, starts, num_starts, run, sums);
      if (k == first) {
        take_out<R, true, false>(sums, scales, total, within);
      } else if (k + run < first + group) {
        take_out<R, false, false>(sums, scales, total, within);
      } else {
        take_out<R, false, true>(sums, scales, total, within);
      }
    }
    panel += 2 * kPanelWidth;
  }
}

}  // namespace penstock::PENSTOCK_ISA
