// Elements of the cache as vectors of floats, and back, for kernel.cpp files.
#pragma once

#include "../cpu/simd.h"

namespace penstock::PENSTOCK_ISA {

struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

PENSTOCK_INLINE Floats load_floats(const float* from) { return load<Floats>(from); }

PENSTOCK_INLINE Floats load_floats(const BFloat16* from) {
  return widen_bfloat16(load<Halves>(from));
}

PENSTOCK_INLINE Floats load_floats(const Float16* from) {
#if defined(PENSTOCK_512) && !defined(PENSTOCK_EMULATE)
  return reinterpret_cast<Floats>(_mm512_cvtph_ps(load<__m256i>(from)));
#else
  float part[kLanes];
#pragma GCC unroll 2
  for (int i = 0; i < kLanes; i += 8) store(part + i, _mm256_cvtph_ps(load<__m128i>(from + i)));
  return load<Floats>(part);
#endif
}

// int8 elements are still to be multiplied by their token's scale.
PENSTOCK_INLINE Floats load_floats(const int8_t* from) {
  return to_floats(widen(load<Bytes>(from)));
}

// Rounded to nearest, ties to even; a NaN stays one.
PENSTOCK_INLINE void store_rounded(float* to, Floats v) { store(to, v); }

PENSTOCK_INLINE void store_rounded(BFloat16* to, Floats v) {
  const Ints bits = reinterpret_cast<Ints>(v);
  const Ints rounded = bits + (((bits >> 16) & 1) + 0x7fff);
  const Ints upper = (v == v ? rounded >> 16 : Ints{} + 0x7fc0);
  store(to, __builtin_convertvector(upper, Halves));
}

PENSTOCK_INLINE void store_rounded(Float16* to, Floats v) {
#if defined(PENSTOCK_512) && !defined(PENSTOCK_EMULATE)
  store(to, _mm512_cvtps_ph(reinterpret_cast<__m512>(v), _MM_FROUND_TO_NEAREST_INT));
#else
  float part[kLanes];
  store(part, v);
#pragma GCC unroll 2
  for (int i = 0; i < kLanes; i += 8) {
    store(to + i, _mm256_cvtps_ph(load<__m256>(part + i), _MM_FROUND_TO_NEAREST_INT));
  }
#endif
}

PENSTOCK_INLINE void store_rounded(int8_t* to, Floats v) {
  store(to, __builtin_convertvector(round_to_ints(v), Bytes));
}

}  // namespace penstock::PENSTOCK_ISA
