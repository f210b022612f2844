// Integers of 8 and 16 bits in vectors, and their products. The rules of simd.h hold.
#pragma once

#include "simd.h"

namespace penstock::PENSTOCK_ISA {

typedef int16_t Shorts __attribute__((vector_size(kLanes * 4)));         // pairs, one for each float
typedef int8_t Quads __attribute__((vector_size(kLanes * 4)));           // four for each float
typedef uint8_t UnsignedQuads __attribute__((vector_size(kLanes * 4)));

// Whether one instruction multiplies quads and adds their products into int32. Sums of quads are
// kept in int32 then, and else in pairs of int16.
#if defined(PENSTOCK_ISA_avx_vnni) || defined(PENSTOCK_ISA_avx512_vnni) || defined(PENSTOCK_ISA_amx)
inline constexpr bool kHasVnni = true;
typedef Ints SumsOfQuads;
#else
inline constexpr bool kHasVnni = false;
typedef Shorts SumsOfQuads;
#endif

// Instructions of the vector's width; absent where they are emulated.
#if defined(PENSTOCK_512) && !defined(PENSTOCK_EMULATE)
#define PENSTOCK_VECTOR(instruction) _mm512_##instruction
typedef __m512i Register;
#elif !defined(PENSTOCK_512)
#define PENSTOCK_VECTOR(instruction) _mm256_##instruction
typedef __m256i Register;
#endif

PENSTOCK_INLINE Ints broadcast_int(int32_t x) { return x - Ints{}; }

// 2 * kLanes int8 as int16. (GCC makes six instructions of the plain conversion.)
PENSTOCK_INLINE Shorts widen_bytes(const int8_t* from) {
#if defined(PENSTOCK_512) && !defined(PENSTOCK_EMULATE)
  typedef __m256i Half;
#elif !defined(PENSTOCK_512)
  typedef __m128i Half;
#endif
#ifdef PENSTOCK_VECTOR
  return reinterpret_cast<Shorts>(PENSTOCK_VECTOR(cvtepi8_epi16)(load<Half>(from)));
#else
  typedef int8_t Half __attribute__((vector_size(kLanes * 2)));
  return __builtin_convertvector(load<Half>(from), Shorts);
#endif
}

// Store kLanes integers that fit into T, int8 or int16.
template <class T>
PENSTOCK_INLINE void store_narrow(T* to, Ints v) {
#if defined(PENSTOCK_512)
  typedef T Narrow __attribute__((vector_size(kLanes * sizeof(T))));
  store(to, __builtin_convertvector(v, Narrow));
#else
  const __m256i wide = reinterpret_cast<__m256i>(v);
  __m128i narrow = _mm_packs_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
  if (sizeof(T) == 1) narrow = _mm_packs_epi16(narrow, narrow);
  __builtin_memcpy(to, &narrow, kLanes * sizeof(T));
#endif
}

// total + a0 * b0 + a1 * b1 for each pair.
PENSTOCK_INLINE Ints add_pairs(Ints total, Shorts a, Shorts b) {
#ifdef PENSTOCK_VECTOR
  return total + reinterpret_cast<Ints>(PENSTOCK_VECTOR(madd_epi16)(reinterpret_cast<Register>(a),
                                                                    reinterpret_cast<Register>(b)));
#else
  for (int i = 0; i < kLanes; ++i) total[i] += a[2 * i] * b[2 * i] + a[2 * i + 1] * b[2 * i + 1];
  return total;
#endif
}

// total + a0 * b0 + a1 * b1 + a2 * b2 + a3 * b3 for each quad.
PENSTOCK_INLINE Ints add_quads(Ints total, UnsignedQuads a, Quads b) {
#if defined(PENSTOCK_ISA_avx_vnni) && !defined(PENSTOCK_EMULATE)
  return reinterpret_cast<Ints>(_mm256_dpbusd_avx_epi32(reinterpret_cast<Register>(total),
                                                        reinterpret_cast<Register>(a),
                                                        reinterpret_cast<Register>(b)));
#elif defined(__AVX512VNNI__)
  return reinterpret_cast<Ints>(_mm512_dpbusd_epi32(reinterpret_cast<Register>(total),
                                                    reinterpret_cast<Register>(a),
                                                    reinterpret_cast<Register>(b)));
#else
  for (int i = 0; i < 4 * kLanes; ++i) total[i / 4] += static_cast<int32_t>(a[i]) * b[i];
  return total;
#endif
}

// total + a0 * b0 + a1 * b1 for each half of a quad. The sums of two products must fit into int16.
PENSTOCK_INLINE Shorts add_halves(Shorts total, UnsignedQuads a, Quads b) {
#ifdef PENSTOCK_VECTOR
  return total + reinterpret_cast<Shorts>(PENSTOCK_VECTOR(maddubs_epi16)(
                     reinterpret_cast<Register>(a), reinterpret_cast<Register>(b)));
#else
  for (int i = 0; i < 2 * kLanes; ++i) {
    total[i] = static_cast<int16_t>(total[i] + a[2 * i] * b[2 * i] + a[2 * i + 1] * b[2 * i + 1]);
  }
  return total;
#endif
}

// Both by the name of what they add to, and what either kind of sum comes to.
PENSTOCK_INLINE Ints add_products(Ints total, UnsignedQuads a, Quads b) {
  return add_quads(total, a, b);
}
PENSTOCK_INLINE Shorts add_products(Shorts total, UnsignedQuads a, Quads b) {
  return add_halves(total, a, b);
}
PENSTOCK_INLINE Ints in_full(Ints sums) { return sums; }
PENSTOCK_INLINE Ints in_full(Shorts sums) { return add_pairs(Ints{}, sums, Shorts{} + 1); }

// The sum of int8; count is a multiple of 32.
PENSTOCK_INLINE int32_t sum_bytes(const int8_t* values, int64_t count) {
  const __m256i ones = _mm256_set1_epi8(1), wide_ones = _mm256_set1_epi16(1);
  __m256i sums = _mm256_setzero_si256();
  for (int64_t i = 0; i < count; i += 32) {
    const __m256i halves = _mm256_maddubs_epi16(ones, load<__m256i>(values + i));
    sums = _mm256_add_epi32(sums, _mm256_madd_epi16(halves, wide_ones));
  }
  __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
  sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xb1)));
}

// The sums of the first and of the second halves of all quads, as two int16; count is 32 or 64.
PENSTOCK_INLINE int32_t sum_halves(const int8_t* values, int64_t count) {
  const __m256i ones = _mm256_set1_epi8(1);
  __m256i sums = _mm256_maddubs_epi16(ones, load<__m256i>(values));
  if (count > 32) {
    sums = _mm256_add_epi16(sums, _mm256_maddubs_epi16(ones, load<__m256i>(values + 32)));
  }
  __m128i sum = _mm_add_epi16(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
  sum = _mm_add_epi16(sum, _mm_shuffle_epi32(sum, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi16(sum, _mm_shuffle_epi32(sum, 0xb1)));
}

}  // namespace penstock::PENSTOCK_ISA
