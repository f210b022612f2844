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
PENSTOCK_INLINE Floats widen_float16(Halves v) {
#if defined(PENSTOCK_512) && !defined(PENSTOCK_EMULATE)
  return reinterpret_cast<Floats>(_mm512_cvtph_ps(reinterpret_cast<__m256i>(v)));
#else
  Floats wide;
  __m128i part[kLanes / 8];
  __m256 widened[kLanes / 8];
  __builtin_memcpy(part, &v, sizeof v);
  for (int i = 0; i < kLanes / 8; ++i) widened[i] = _mm256_cvtph_ps(part[i]);
  __builtin_memcpy(&wide, widened, sizeof wide);
  return wide;
#endif
}

// True if any element of a comparison's result is.
PENSTOCK_INLINE bool any(Ints mask) {
#if defined(PENSTOCK_512) && !defined(PENSTOCK_EMULATE)
  return _mm512_movepi32_mask(reinterpret_cast<__m512i>(mask)) != 0;
#elif !defined(PENSTOCK_512)
  return _mm256_movemask_ps(reinterpret_cast<__m256>(mask)) != 0;
#else
  int32_t found = 0;
  for (int i = 0; i < kLanes; ++i) found |= mask[i];
  return found != 0;
#endif
}

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

// e^x within 2 units in the last place, for -87.3 <= x <= 88.
// Cody-Waite reduction to |r| <= ln(2)/2, then a polynomial of degree 6.
PENSTOCK_INLINE Floats exponential_in_range(Floats x) {
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
  return e * scale;
}

// The same for every x: 0 below -87.3, finite above 88.
PENSTOCK_INLINE Floats exponential(Floats x) {
  const Floats low = broadcast(-87.33654f), high = broadcast(88.0f);
  const auto underflow = x < low;
  x = x < low ? low : x;
  x = x > high ? high : x;
  return underflow ? Floats{} : exponential_in_range(x);
}

}  // namespace penstock::PENSTOCK_ISA
