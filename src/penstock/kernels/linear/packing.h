// From a matrix [out, in] to panels: row by row into a staging area, then across rows.
#pragma once

#include "kernel.h"
#include "products.h"
#include "rounding.h"

namespace penstock::PENSTOCK_ISA {

// Where a panel's rows stand before they are interleaved, in the numbers they are kept in: those of
// 4 bits in a byte each.
struct Staging {
  float* floats;     // [padded in]: one row before it is rounded
  uint8_t* numbers;  // [kPanelWidth][stride]
  uint16_t* scales;  // [kPanelWidth][groups] of int4
  int64_t stride;
};

PENSTOCK_INLINE int64_t stored_bytes(Scheme scheme) {
  return scheme == Scheme::kFloat32 ? 4 : scheme == Scheme::kBfloat16 ? 2 : 1;
}

PENSTOCK_INLINE int64_t staging_bytes(const PackedLinear& p) {
  const int64_t depth = p.padded_in() + kLanes;
  return depth * 4 + kPanelWidth * (depth * stored_bytes(p.scheme) + depth * 2) + 64;
}

PENSTOCK_INLINE Staging stage(const PackedLinear& p, char* memory) {
  const int64_t depth = p.padded_in() + kLanes, stride = depth * stored_bytes(p.scheme);
  float* floats = reinterpret_cast<float*>(memory);
  uint8_t* numbers = reinterpret_cast<uint8_t*>(floats + depth);
  return {floats, numbers, reinterpret_cast<uint16_t*>(numbers + kPanelWidth * stride), stride};
}

// One row of the matrix as floats. They may be where they were.
PENSTOCK_INLINE const float* read_row(const PackArgs& args, int64_t row, float* to) {
  const int64_t in = args.packed->in;
  if (args.source == Source::kFloat32) return static_cast<const float*>(args.weight) + row * in;
  const uint16_t* from = static_cast<const uint16_t*>(args.weight) + row * in;
  for (int64_t k = 0; k < in; k += kLanes) {
    const int n = in - k < kLanes ? static_cast<int>(in - k) : kLanes;
    const Halves halves = n == kLanes ? load<Halves>(from + k) : load_first<Halves>(from + k, n);
    if (args.source == Source::kBfloat16) {
      store(to + k, widen_bfloat16(halves));
    } else {
      uint16_t half[kLanes];
      store(half, halves);
      for (int i = 0; i < kLanes; i += 8) {
        store(to + k + i, _mm256_cvtph_ps(load<__m128i>(half + i)));
      }
    }
  }
  return to;
}

PENSTOCK_INLINE void stage_floats(const PackArgs& args, int64_t row, const Staging& s,
                                  uint8_t* to) {
  const int64_t in = args.packed->in;
  if (args.packed->scheme == Scheme::kBfloat16 && args.source == Source::kBfloat16) {
    __builtin_memcpy(to, static_cast<const uint16_t*>(args.weight) + row * in, in * 2);
    return;
  }
  const float* floats = read_row(args, row, s.floats);
  if (args.packed->scheme == Scheme::kFloat32) {
    __builtin_memcpy(to, floats, in * 4);
    return;
  }
  for (int64_t k = 0; k < in; ++k) {
    const uint16_t half = to_bfloat16(floats[k]);
    __builtin_memcpy(to + k * 2, &half, 2);
  }
}

PENSTOCK_INLINE const int8_t* integers(const PackArgs& args, int64_t row) {
  return static_cast<const int8_t*>(args.weight) + row * args.packed->in;
}

PENSTOCK_INLINE float stage_int8(const PackArgs& args, int64_t row, const Staging& s, int8_t* to) {
  const PackedLinear& p = *args.packed;
  if (args.source == Source::kInt8) {
    __builtin_memcpy(to, integers(args, row), p.in);
    return args.scales[row];
  }
  const float* floats = read_row(args, row, s.floats);
  const Scale found = scale_of(largest_magnitude(floats, p.in) / 127.0f);
  round_all(floats, p.in, found.inverse, -127, 127, to);
  return found.value;
}

// The number of largest magnitude in a group, the first of equals.
PENSTOCK_INLINE float most_extreme(const float* x, int64_t count) {
  Floats above{}, below{};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const Floats v = load<Floats>(x + i);
    above = maximum(above, v);
    below = maximum(below, -v);
  }
  if (i < count) {
    const Floats v = load_first<Floats>(x + i, static_cast<int>(count - i));
    above = maximum(above, v);
    below = maximum(below, -v);
  }
  const float positive = largest(above), negative = largest(below);
  if (positive != negative) return positive > negative ? positive : -negative;
  for (i = 0; i + 1 < count && __builtin_fabsf(x[i]) != positive;) ++i;
  return x[i];
}

PENSTOCK_INLINE void stage_int4(const PackArgs& args, int64_t row, const Staging& s, int8_t* to,
                                uint16_t* scales) {
  const PackedLinear& p = *args.packed;
  const int64_t groups = p.num_groups();
  if (args.source == Source::kInt8) {
    __builtin_memcpy(to, integers(args, row), p.in);
    for (int64_t g = 0; g < groups; ++g) scales[g] = to_bfloat16(args.scales[row * groups + g]);
    return;
  }
  const float* floats = read_row(args, row, s.floats);
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t first = g * p.group, left = p.in - first;
    const int64_t count = left < p.group ? left : p.group;
    const float extreme = most_extreme(floats + first, count);
    const Scale kept = scale_of(from_bfloat16(to_bfloat16(extreme / -8.0f)));
    round_all(floats + first, count, kept.inverse, -8, 7, to + first);
    scales[g] = to_bfloat16(kept.value);
  }
}

// Numbers of T from the rows of the staging area to a panel, one number of every row in turn.
template <class T>
PENSTOCK_INLINE void interleave(const Staging& s, int64_t depth, T offset, uint8_t* panel) {
  for (int64_t k = 0; k < depth; ++k, panel += kPanelWidth * sizeof(T)) {
#pragma GCC unroll 32
    for (int column = 0; column < kPanelWidth; ++column) {
      T number;
      __builtin_memcpy(&number, s.numbers + column * s.stride + k * sizeof(T), sizeof(T));
      number ^= offset;
      __builtin_memcpy(panel + column * sizeof(T), &number, sizeof(T));
    }
  }
}

// Quads of int4: those of the first vector's rows below those of the second's.
PENSTOCK_INLINE void interleave_int4(const PackedLinear& p, const Staging& s, uint8_t* panel) {
  constexpr uint32_t kEights = 0x08080808, kLower = 0x0f0f0f0f;
  const int64_t groups = p.num_groups();
  for (int64_t g = 0; g < groups; ++g) {
    for (int64_t k = g * p.group; k < (g + 1) * p.group; k += 4, panel += 4 * kLanes) {
      for (int lane = 0; lane < kLanes; ++lane) {
        uint32_t first, second;
        __builtin_memcpy(&first, s.numbers + lane * s.stride + k, 4);
        __builtin_memcpy(&second, s.numbers + (kLanes + lane) * s.stride + k, 4);
        // A two's complement number of 4 bits plus 8 is that number with its upper bit turned.
        first = (first & kLower) ^ kEights;
        second = (second & kLower) ^ kEights;
        const uint32_t both = first | second << 4;
        __builtin_memcpy(panel + lane * 4, &both, 4);
      }
    }
    for (int column = 0; column < kPanelWidth; ++column, panel += 2) {
      __builtin_memcpy(panel, s.scales + column * groups + g, 2);
    }
  }
}

PENSTOCK_INLINE void interleave_all(const PackedLinear& p, const Staging& s, uint8_t* panel) {
  const int64_t depth = p.padded_in();
  switch (p.scheme) {
    case Scheme::kFloat32:
      return interleave<uint32_t>(s, depth, 0, panel);
    case Scheme::kBfloat16:
      return interleave<uint16_t>(s, depth, 0, panel);
    case Scheme::kInt8:
      if constexpr (kHasVnni) return interleave<uint32_t>(s, depth / 4, 0x80808080, panel);
      return interleave<uint16_t>(s, depth / 2, 0, panel);
    case Scheme::kInt4:
      return interleave_int4(p, s, panel);
  }
}

PENSTOCK_INLINE void pack_panel(const PackArgs& args, int64_t panel, const Staging& s) {
  const PackedLinear& p = *args.packed;
  for (int column = 0; column < kPanelWidth; ++column) {
    const int64_t row = p.row_of(panel, column / kLanes, column % kLanes, kLanes);
    const int64_t at = panel * kPanelWidth + column;
    uint8_t* to = s.numbers + column * s.stride;
    uint16_t* scales = s.scales + column * p.num_groups();
    __builtin_memset(to, 0, s.stride);
    __builtin_memset(scales, 0, p.num_groups() * 2);
    if (p.bias) p.bias[at] = row < p.out ? args.bias[row] : 0.0f;
    if (p.scales) p.scales[at] = 0.0f;
    if (row >= p.out) continue;
    if (p.scheme == Scheme::kInt8) {
      p.scales[at] = stage_int8(args, row, s, reinterpret_cast<int8_t*>(to));
    } else if (p.scheme == Scheme::kInt4) {
      stage_int4(args, row, s, reinterpret_cast<int8_t*>(to), scales);
    } else {
      stage_floats(args, row, s, to);
    }
  }
  interleave_all(p, s, p.panels + panel * p.panel_bytes(kLanes));
}

}  // namespace penstock::PENSTOCK_ISA
