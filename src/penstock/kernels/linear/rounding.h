// Rounding to 8 and 4 bits, number for number as kernels/quantization.py does it.
#pragma once

#include "../cpu/integers.h"

namespace penstock::PENSTOCK_ISA {

inline constexpr float kSmallestNormal = 1.17549435e-38f;

struct Scale {
  float value, inverse;
};

PENSTOCK_INLINE Scale scale_of(float value) {
  if (value < kSmallestNormal && value > -kSmallestNormal) return {0.0f, 0.0f};
  return {value, 1.0f / value};
}

PENSTOCK_INLINE float largest_magnitude(const float* x, int64_t count) {
  Floats found[4] = {};
  int64_t i = 0;
  for (; i + 4 * kLanes <= count; i += 4 * kLanes) {
#pragma GCC unroll 4
    for (int p = 0; p < 4; ++p) {
      found[p] = maximum(found[p], magnitude(load<Floats>(x + i + p * kLanes)));
    }
  }
  for (; i < count; i += kLanes) {
    const int n = count - i < kLanes ? static_cast<int>(count - i) : kLanes;
    found[0] = maximum(found[0], magnitude(load_first<Floats>(x + i, n)));
  }
  return largest(maximum(maximum(found[0], found[1]), maximum(found[2], found[3])));
}

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

// v * inverse to the nearest integer, halves to even, within [low, high].
PENSTOCK_INLINE Ints rounded(Floats v, float inverse, int low, int high) {
  const Ints r = round_to_ints(v * inverse);
  const Ints raised = r < low ? broadcast_int(low) : r;
  return raised > high ? broadcast_int(high) : raised;
}

template <class T>
PENSTOCK_INLINE void round_all(const float* x, int64_t count, float inverse, int low, int high, T* to) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    store_narrow(to + i, rounded(load<Floats>(x + i), inverse, low, high));
  }
  if (i < count) {
    T rest[kLanes];
    const int n = static_cast<int>(count - i);
    store_narrow(rest, rounded(load_first<Floats>(x + i, n), inverse, low, high));
    __builtin_memcpy(to + i, rest, n * sizeof(T));
  }
}

}  // namespace penstock::PENSTOCK_ISA
