// Vectors for kernels. Only for kernel.cpp files and table.cpp, which are compiled once per
// instruction set: everything here is in that set's namespace. Kernels must not call inline
// functions or templates of the standard library, whose copy for one instruction set the linker
// might hand to another; <cstdint>, <cstddef> and builtins are all they need.
//
// Arithmetic on vectors is written with operators; a * b + c becomes one fused multiply-add.
// With PENSTOCK_EMULATE the compiler lowers 512-bit vectors to smaller ones, and the few
// instructions it has no operator for are spelled out, so that any processor can test all of it.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace penstock::PENSTOCK_ISA {

#if defined(PENSTOCK_ISA_avx512) || defined(PENSTOCK_ISA_avx512_vnni) || defined(PENSTOCK_ISA_amx)
#define PENSTOCK_512 1
inline constexpr int kLanes = 16;
#else
inline constexpr int kLanes = 8;
#endif

#define PENSTOCK_INLINE [[gnu::always_inline]] static inline

typedef float Floats __attribute__((vector_size(kLanes * 4)));
typedef int32_t Ints __attribute__((vector_size(kLanes * 4)));
typedef uint16_t Halves __attribute__((vector_size(kLanes * 2)));
typedef int8_t Bytes __attribute__((vector_size(kLanes)));
typedef int16_t Shorts __attribute__((vector_size(kLanes * 4)));  // two for each float
typedef int8_t Quads __attribute__((vector_size(kLanes * 4)));    // four for each float
typedef uint8_t Nibbles __attribute__((vector_size(kLanes * 4)));

template <class V, class T>
PENSTOCK_INLINE V load(const T* from) {
  V v;
  __builtin_memcpy(&v, from, sizeof v);
  return v;
}

template <class V, class T>
PENSTOCK_INLINE void store(T* to, V v) {
  __builtin_memcpy(to, &v, sizeof v);
}

// The first n elements, n <= kLanes; the others are 0.
template <class V, class T>
PENSTOCK_INLINE V load_first(const T* from, int n) {
  V v{};
  __builtin_memcpy(&v, from, n * sizeof(T));
  return v;
}

template <class V, class T>
PENSTOCK_INLINE void store_first(T* to, V v, int n) {
  __builtin_memcpy(to, &v, n * sizeof(T));
}

PENSTOCK_INLINE Floats broadcast(float x) { return x - Floats{}; }

PENSTOCK_INLINE Ints broadcast_int(int32_t x) { return x - Ints{}; }

PENSTOCK_INLINE Floats to_floats(Ints v) { return __builtin_convertvector(v, Floats); }

// The compiler's own conversions take several times as many instructions.
PENSTOCK_INLINE Ints widen(Halves v) {
#if defined(PENSTOCK_512) && !defined(PENSTOCK_EMULATE)
  return reinterpret_cast<Ints>(_mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(v)));
#elif !defined(PENSTOCK_512)
  return reinterpret_cast<Ints>(_mm256_cvtepu16_epi32(reinterpret_cast<__m128i>(v)));
#else
  return __builtin_convertvector(v, Ints);
#endif
}

PENSTOCK_INLINE Ints widen(Bytes v) {
#if defined(PENSTOCK_512) && !defined(PENSTOCK_EMULATE)
  return reinterpret_cast<Ints>(_mm512_cvtepi8_epi32(reinterpret_cast<__m128i>(v)));
#elif !defined(PENSTOCK_512)
  return reinterpret_cast<Ints>(_mm256_cvtepi8_epi32(_mm_set_epi64x(0, reinterpret_cast<int64_t>(v))));
#else
  return __builtin_convertvector(v, Ints);
#endif
}

// bfloat16 is the upper half of a float.
PENSTOCK_INLINE Floats widen_bfloat16(Halves v) { return reinterpret_cast<Floats>(widen(v) << 16); }

PENSTOCK_INLINE Floats maximum(Floats a, Floats b) { return a > b ? a : b; }
PENSTOCK_INLINE Floats magnitude(Floats a) {
  return reinterpret_cast<Floats>(reinterpret_cast<Ints>(a) & 0x7fffffff);
}

// The sum in a fixed order: halves are added until one is left.
PENSTOCK_INLINE float sum(Floats v) {
  float part[kLanes];
  store(part, v);
#pragma GCC unroll 4
  for (int width = kLanes / 2; width > 0; width /= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < width; ++i) part[i] += part[i + width];
  }
  return part[0];
}

PENSTOCK_INLINE float largest(Floats v) {
  float part[kLanes];
  store(part, v);
  float found = part[0];
#pragma GCC unroll 16
  for (int i = 1; i < kLanes; ++i) found = part[i] > found ? part[i] : found;
  return found;
}

// Rounded to nearest, ties to even. |v| < 2^31.
PENSTOCK_INLINE Ints round_to_ints(Floats v) {
#if defined(PENSTOCK_512) && !defined(PENSTOCK_EMULATE)
  return reinterpret_cast<Ints>(_mm512_cvtps_epi32(reinterpret_cast<__m512>(v)));
#elif !defined(PENSTOCK_512)
  return reinterpret_cast<Ints>(_mm256_cvtps_epi32(reinterpret_cast<__m256>(v)));
#else
  Ints r;
  for (int i = 0; i < kLanes; ++i) r[i] = static_cast<int32_t>(__builtin_nearbyintf(v[i]));
  return r;
#endif
}

// How many int8 one instruction multiplies and adds into an int32: with VNNI four, else two.
#if defined(PENSTOCK_ISA_avx_vnni) || defined(PENSTOCK_ISA_avx512_vnni) || defined(PENSTOCK_ISA_amx)
inline constexpr bool kHasVnni = true;
#else
inline constexpr bool kHasVnni = false;
#endif

// 2 * kLanes int8 as int16.
PENSTOCK_INLINE Shorts widen_bytes(const int8_t* from) {
#if defined(PENSTOCK_512) && !defined(PENSTOCK_EMULATE)
  return reinterpret_cast<Shorts>(_mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))));
#elif !defined(PENSTOCK_512)
  return reinterpret_cast<Shorts>(_mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
#else
  typedef int8_t Narrow __attribute__((vector_size(kLanes * 2)));
  return __builtin_convertvector(load<Narrow>(from), Shorts);
#endif
}

// acc + a0 * b0 + a1 * b1 for each neighbouring pair of int16.
PENSTOCK_INLINE Ints add_pairs(Ints acc, Shorts a, Shorts b) {
#if defined(PENSTOCK_512) && !defined(PENSTOCK_EMULATE)
  return acc + reinterpret_cast<Ints>(_mm512_madd_epi16(reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b)));
#elif !defined(PENSTOCK_512)
  return acc + reinterpret_cast<Ints>(_mm256_madd_epi16(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b)));
#else
  for (int i = 0; i < kLanes; ++i) acc[i] += a[2 * i] * b[2 * i] + a[2 * i + 1] * b[2 * i + 1];
  return acc;
#endif
}

// acc + the sum of four products of an unsigned byte with a signed one.
PENSTOCK_INLINE Ints add_quads(Ints acc, Nibbles a, Quads b) {
#if defined(PENSTOCK_ISA_avx_vnni) && !defined(PENSTOCK_EMULATE)
  return reinterpret_cast<Ints>(_mm256_dpbusd_avx_epi32(reinterpret_cast<__m256i>(acc), reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b)));
#elif defined(PENSTOCK_512) && defined(__AVX512VNNI__)
  return reinterpret_cast<Ints>(_mm512_dpbusd_epi32(reinterpret_cast<__m512i>(acc), reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b)));
#else
  for (int i = 0; i < kLanes; ++i)
    for (int j = 4 * i; j < 4 * i + 4; ++j) acc[i] += static_cast<int32_t>(a[j]) * b[j];
  return acc;
#endif
}

// The sums of two products of an unsigned byte with a signed one; they must fit into int16.
PENSTOCK_INLINE Shorts multiply_pairs(Nibbles a, Quads b) {
#if defined(PENSTOCK_512) && !defined(PENSTOCK_EMULATE)
  return reinterpret_cast<Shorts>(_mm512_maddubs_epi16(reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b)));
#elif !defined(PENSTOCK_512)
  return reinterpret_cast<Shorts>(_mm256_maddubs_epi16(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b)));
#else
  Shorts r;
  for (int i = 0; i < 2 * kLanes; ++i)
    r[i] = static_cast<int16_t>(a[2 * i] * b[2 * i] + a[2 * i + 1] * b[2 * i + 1]);
  return r;
#endif
}

// e^x within 2 units in the last place; 0 below -87.3, finite for x <= 88.
// Cody-Waite reduction to |r| <= ln(2)/2, then a polynomial of degree 6.
PENSTOCK_INLINE Floats exponential(Floats x) {
  const Floats low = broadcast(-87.33654f), high = broadcast(88.0f);
  const auto underflow = x < low;
  x = x < low ? low : x;
  x = x > high ? high : x;
  const Ints n = round_to_ints(x * 1.44269504f);
  const Floats k = to_floats(n);
  const Floats r = (x - k * 0.693359375f) - k * -2.12194440e-4f;
  Floats p = broadcast(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  const Floats e = (p * r) * r + (r + 1.0f);
  const Floats scale = reinterpret_cast<Floats>((n + 127) << 23);
  return underflow ? Floats{} : e * scale;
}

}  // namespace penstock::PENSTOCK_ISA
