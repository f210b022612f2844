// From a matrix [out, in] to panels.
#pragma once

#include <cstdlib>

#include "../cpu/simd.h"
#include "kernel.h"
#include "rounding.h"
#include "tiles.h"

namespace penstock::PENSTOCK_ISA {

// One row of the matrix as float32 or, if it is integers already, as int8.
struct SourceRow {
  const PackArgs& args;
  int64_t row;

  bool exists() const { return row < args.packed->out; }

  void read(float* to) const {
    const int64_t in = args.packed->in;
    const char* from = static_cast<const char*>(args.weight);
    switch (args.source) {
      case Source::kFloat32:
        __builtin_memcpy(to, from + row * in * 4, in * 4);
        break;
      case Source::kBfloat16: {
        const uint16_t* half = reinterpret_cast<const uint16_t*>(from) + row * in;
        for (int64_t k = 0; k < in; ++k) {
          const uint32_t bits = static_cast<uint32_t>(half[k]) << 16;
          __builtin_memcpy(to + k, &bits, 4);
        }
        break;
      }
      case Source::kFloat16: {
        const uint16_t* half = reinterpret_cast<const uint16_t*>(from) + row * in;
        for (int64_t k = 0; k < in; ++k) to[k] = _cvtsh_ss(half[k]);
        break;
      }
      case Source::kInt8:
        break;
    }
  }

  const int8_t* integers() const {
    return static_cast<const int8_t*>(args.weight) + row * args.packed->in;
  }
};

// To nearest, ties to even, as torch does it; not for NaN.
PENSTOCK_INLINE uint16_t to_bfloat16(float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, 4);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

PENSTOCK_INLINE float from_bfloat16(uint16_t half) {
  const uint32_t bits = static_cast<uint32_t>(half) << 16;
  float x;
  __builtin_memcpy(&x, &bits, 4);
  return x;
}

PENSTOCK_INLINE void pack_float_row(const SourceRow& source, int column, uint8_t* panel, float* row) {
  const PackedLinear& p = *source.args.packed;
  source.read(row);
  for (int64_t k = 0; k < p.in; ++k) {
    if (p.scheme == Scheme::kFloat32) {
      __builtin_memcpy(panel + (k * 2 * kLanes + column) * 4, row + k, 4);
    } else {
      const uint16_t half = to_bfloat16(row[k]);
      __builtin_memcpy(panel + (k * 2 * kLanes + column) * 2, &half, 2);
    }
  }
}

PENSTOCK_INLINE void pack_int8_row(const SourceRow& source, int column, uint8_t* panel, float* row,
                                   int8_t* values, float* scale) {
  const PackedLinear& p = *source.args.packed;
  if (source.args.source == Source::kInt8) {
    __builtin_memcpy(values, source.integers(), p.in);
    *scale = source.args.scales[source.row];
  } else {
    source.read(row);
    const Scale found = scale_of(largest_magnitude(row, p.in) / 127.0f);
    round_all(row, p.in, found.inverse, -127, 127, values);
    *scale = found.value;
  }
  constexpr int n = kInt8Quads ? 4 : 2;
  const int offset = kInt8Quads ? 128 : 0;
  for (int64_t k = 0; k < p.padded_in(); ++k) {
    const int value = k < p.in ? values[k] : 0;
    panel[(k / n * 2 * kLanes + column) * n + k % n] = static_cast<uint8_t>(value + offset);
  }
}

// The value of largest magnitude in a group becomes -8.
PENSTOCK_INLINE void round_group(const float* row, int64_t count, int8_t* values, uint16_t* scale) {
  float found = 0.0f;
  for (int64_t k = 0; k < count; ++k) {
    if (__builtin_fabsf(row[k]) > __builtin_fabsf(found)) found = row[k];
  }
  const Scale kept = scale_of(from_bfloat16(to_bfloat16(found / -8.0f)));
  *scale = to_bfloat16(kept.value);
  round_all(row, count, kept.inverse, -8, 7, values);
}

PENSTOCK_INLINE void pack_int4_row(const SourceRow& source, int column, uint8_t* panel, float* row,
                                   int8_t* values) {
  const PackedLinear& p = *source.args.packed;
  const int64_t groups = p.padded_in() / p.group;
  const bool rounded = source.args.source == Source::kInt8;
  if (rounded) {
    __builtin_memcpy(values, source.integers(), p.in);
  } else {
    source.read(row);
  }
  __builtin_memset(values + p.in, 0, p.padded_in() - p.in);
  for (int64_t g = 0; g < groups; ++g, panel += (p.group / 2 + 2) * 2 * kLanes) {
    const int64_t first = g * p.group;
    const int64_t count = p.in - first < p.group ? p.in - first : p.group;
    uint16_t scale;
    if (rounded) {
      scale = to_bfloat16(source.args.scales[source.row * groups + g]);
    } else {
      round_group(row + first, count, values + first, &scale);
    }
    for (int64_t k = 0; k < p.group; ++k) {
      const int nibble = values[first + k] + 8;
      uint8_t* at = panel + (k / 8 * 2 * kLanes + column) * 4 + k % 4;
      *at = static_cast<uint8_t>(k % 8 < 4 ? nibble : *at | nibble << 4);
    }
    __builtin_memcpy(panel + p.group * kLanes + column * 2, &scale, 2);
  }
}

PENSTOCK_INLINE void pack_panel(const PackArgs& args, int64_t number, float* row, int8_t* values) {
  const PackedLinear& p = *args.packed;
  uint8_t* panel = p.panels + number * p.panel_bytes(kLanes);
  __builtin_memset(panel, 0, p.panel_bytes(kLanes));
  for (int column = 0; column < 2 * kLanes; ++column) {
    const SourceRow source{args, p.row_of(number, column / kLanes, column % kLanes, kLanes)};
    const int64_t at = number * 2 * kLanes + column;
    if (p.bias) p.bias[at] = source.exists() ? args.bias[source.row] : 0.0f;
    if (p.scales) p.scales[at] = 0.0f;
    if (!source.exists()) continue;
    switch (p.scheme) {
      case Scheme::kFloat32:
      case Scheme::kBfloat16:
        pack_float_row(source, column, panel, row);
        break;
      case Scheme::kInt8:
        pack_int8_row(source, column, panel, row, values, p.scales + at);
        break;
      case Scheme::kInt4:
        pack_int4_row(source, column, panel, row, values);
        break;
    }
  }
}

}  // namespace penstock::PENSTOCK_ISA
