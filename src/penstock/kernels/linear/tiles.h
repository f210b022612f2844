// The inner loops: a few rows times one panel. One function per scheme, all with the same order of
// sums for every number of rows, so that a row's bits do not depend on its neighbours.
#pragma once

#include "../cpu/simd.h"
#include "packed.h"

namespace penstock::PENSTOCK_ISA {

// Rows as a scheme multiplies them.
struct Rows {
  const void* values;     // float, int16 or int8, [rows][stride]
  int64_t stride;         // in elements
  const float* scales;    // [rows], of rounded rows
  const int32_t* sums;    // [rows][num_sums]: of the rounded values, to undo the weights' offsets
  int64_t num_sums;
};

// Rows of a tile: as many as leave every accumulator in a register. Nibbles need more of those for
// other things.
constexpr int tile_rows(Scheme scheme) {
#ifdef PENSTOCK_512
  return 8;
#else
  return scheme == Scheme::kInt4 ? 4 : 6;
#endif
}

// Whether int8 weights are kept in quads, unsigned, rather than in pairs.
inline constexpr bool kInt8Quads = kHasVnni;

template <class T>
PENSTOCK_INLINE int32_t four_bytes(const T* from) {
  int32_t r;
  __builtin_memcpy(&r, from, 4);
  return r;
}

template <int R, class Weight>
PENSTOCK_INLINE void multiply_floats(const uint8_t* panel, const float* x, int64_t stride,
                                     int64_t in, Floats (&total)[R][2]) {
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) total[r][0] = total[r][1] = Floats{};
  const Weight* w = reinterpret_cast<const Weight*>(panel);
  for (int64_t k = 0; k < in; ++k, w += 2 * kLanes) {
    Floats w0, w1;
    if constexpr (sizeof(Weight) == 4) {
      w0 = load<Floats>(w);
      w1 = load<Floats>(w + kLanes);
    } else {
      w0 = widen_bfloat16(load<Halves>(w));
      w1 = widen_bfloat16(load<Halves>(w + kLanes));
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const Floats b = broadcast(x[r * stride + k]);
      total[r][0] += w0 * b;
      total[r][1] += w1 * b;
    }
  }
}

template <int R>
PENSTOCK_INLINE void multiply_int8(const uint8_t* panel, const Rows& rows, int64_t row, int64_t in,
                                   Floats (&total)[R][2]) {
  Ints acc[R][2];
  if constexpr (kInt8Quads) {
    const int8_t* x = static_cast<const int8_t*>(rows.values) + row * rows.stride;
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      acc[r][0] = acc[r][1] = broadcast_int(-128 * rows.sums[(row + r) * rows.num_sums]);
    }
    for (int64_t k = 0; k < in; k += 4, panel += 8 * kLanes) {
      const Nibbles w0 = load<Nibbles>(panel), w1 = load<Nibbles>(panel + 4 * kLanes);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const Quads b = reinterpret_cast<Quads>(broadcast_int(four_bytes(x + r * rows.stride + k)));
        acc[r][0] = add_quads(acc[r][0], w0, b);
        acc[r][1] = add_quads(acc[r][1], w1, b);
      }
    }
  } else {
    const int16_t* x = static_cast<const int16_t*>(rows.values) + row * rows.stride;
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) acc[r][0] = acc[r][1] = Ints{};
    const int8_t* w = reinterpret_cast<const int8_t*>(panel);
    for (int64_t k = 0; k < in; k += 2, w += 4 * kLanes) {
      const Shorts w0 = widen_bytes(w), w1 = widen_bytes(w + 2 * kLanes);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const Shorts b = reinterpret_cast<Shorts>(broadcast_int(four_bytes(x + r * rows.stride + k)));
        acc[r][0] = add_pairs(acc[r][0], w0, b);
        acc[r][1] = add_pairs(acc[r][1], w1, b);
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    total[r][0] = to_floats(acc[r][0]);
    total[r][1] = to_floats(acc[r][1]);
  }
}

// Lower or upper halves of bytes.
template <int kUpper>
PENSTOCK_INLINE Nibbles halves_of(const uint8_t* from) {
  Shorts v = load<Shorts>(from);
  if constexpr (kUpper) v = v >> 4;
  return reinterpret_cast<Nibbles>(v & 0x0f0f);
}

// 32 inputs of one group: acc + the products of unsigned weights.
template <int R>
PENSTOCK_INLINE void multiply_nibbles(const uint8_t* w, const int8_t* x, int64_t stride,
                                      Ints (&acc)[R][2]) {
  if constexpr (kHasVnni) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const uint8_t* at = w + j * 8 * kLanes;
      const Nibbles low[2] = {halves_of<0>(at), halves_of<0>(at + 4 * kLanes)};
      const Nibbles high[2] = {halves_of<1>(at), halves_of<1>(at + 4 * kLanes)};
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const int8_t* from = x + r * stride + 8 * j;
        const Quads b = reinterpret_cast<Quads>(broadcast_int(four_bytes(from)));
        const Quads c = reinterpret_cast<Quads>(broadcast_int(four_bytes(from + 4)));
#pragma GCC unroll 2
        for (int v = 0; v < 2; ++v) {
          acc[r][v] = add_quads(acc[r][v], low[v], b);
          acc[r][v] = add_quads(acc[r][v], high[v], c);
        }
      }
    }
  } else {
    // Sixteen products of at most 15 * 127 fit into an int16.
    Shorts part[R][2];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) part[r][0] = part[r][1] = Shorts{};
#pragma GCC unroll 1
    for (int j = 0; j < 4; ++j) {
      const uint8_t* at = w + j * 8 * kLanes;
      {
        const Nibbles w0 = halves_of<0>(at), w1 = halves_of<0>(at + 4 * kLanes);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          const Quads b = reinterpret_cast<Quads>(broadcast_int(four_bytes(x + r * stride + 8 * j)));
          part[r][0] += multiply_pairs(w0, b);
          part[r][1] += multiply_pairs(w1, b);
        }
      }
      const Nibbles w0 = halves_of<1>(at), w1 = halves_of<1>(at + 4 * kLanes);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const Quads b = reinterpret_cast<Quads>(broadcast_int(four_bytes(x + r * stride + 8 * j + 4)));
        part[r][0] += multiply_pairs(w0, b);
        part[r][1] += multiply_pairs(w1, b);
      }
    }
    const Shorts one = Shorts{} + 1;
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      acc[r][0] = add_pairs(acc[r][0], part[r][0], one);
      acc[r][1] = add_pairs(acc[r][1], part[r][1], one);
    }
  }
}

template <int R>
PENSTOCK_INLINE void multiply_int4(const uint8_t* panel, const Rows& rows, int64_t row,
                                   int64_t in, int64_t group, Floats (&total)[R][2]) {
  const int8_t* x = static_cast<const int8_t*>(rows.values) + row * rows.stride;
  const int32_t* sums = rows.sums + row * rows.num_sums;
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) total[r][0] = total[r][1] = Floats{};
  for (int64_t k = 0, g = 0; k < in; k += group, ++g) {
    Ints acc[R][2];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      acc[r][0] = acc[r][1] = broadcast_int(-8 * sums[r * rows.num_sums + g]);
    }
    for (int64_t part = 0; part < group; part += 32, panel += 32 * kLanes) {
      multiply_nibbles<R>(panel, x + k + part, rows.stride, acc);
    }
    const Floats s0 = widen_bfloat16(load<Halves>(panel));
    const Floats s1 = widen_bfloat16(load<Halves>(panel + 2 * kLanes));
    panel += 4 * kLanes;
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      total[r][0] += to_floats(acc[r][0]) * s0;
      total[r][1] += to_floats(acc[r][1]) * s1;
    }
  }
}

}  // namespace penstock::PENSTOCK_ISA
