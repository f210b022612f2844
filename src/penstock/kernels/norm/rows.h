// The norm of one row, for the kernel of this op and for those that normalise what they read.
#pragma once

#include "../cpu/simd.h"

namespace penstock::PENSTOCK_ISA {

// Sums of f(x) over a row, lane by lane, always in the same order: whoever else is in the batch.
template <class F>
PENSTOCK_INLINE float sum_over(const float* x, int64_t width, F f) {
  Floats total[4] = {};
  int64_t i = 0;
  for (; i + 4 * kLanes <= width; i += 4 * kLanes) {
#pragma GCC unroll 4
    for (int part = 0; part < 4; ++part) total[part] += f(load<Floats>(x + i + part * kLanes));
  }
  for (; i + kLanes <= width; i += kLanes) total[0] += f(load<Floats>(x + i));
  if (i < width) {
    const int rest = static_cast<int>(width - i);
    float values[kLanes];
    store(values, f(load_first<Floats>(x + i, rest)));
    total[1] += load_first<Floats>(values, rest);
  }
  return sum((total[0] + total[1]) + (total[2] + total[3]));
}

// y = (x - mean) * scale * weight + bias; RMS norm has neither mean nor bias.
PENSTOCK_INLINE void normalise_row(const float* x, const float* weight, const float* bias, float eps,
                                   int64_t width, float* y) {
  const float count = static_cast<float>(width);
  float mean = 0.0f;
  if (bias) mean = sum_over(x, width, [](Floats v) { return v; }) / count;
  const float variance = sum_over(x, width, [mean](Floats v) { return (v - mean) * (v - mean); }) / count;
  const float scale = 1.0f / __builtin_sqrtf(variance + eps);
  int64_t i = 0;
  for (; i < width; i += kLanes) {
    const int n = width - i < kLanes ? static_cast<int>(width - i) : kLanes;
    const Floats v = n == kLanes ? load<Floats>(x + i) : load_first<Floats>(x + i, n);
    const Floats w = n == kLanes ? load<Floats>(weight + i) : load_first<Floats>(weight + i, n);
    Floats r = (v - mean) * scale * w;
    if (bias) r += n == kLanes ? load<Floats>(bias + i) : load_first<Floats>(bias + i, n);
    n == kLanes ? store(y + i, r) : store_first(y + i, r, n);
  }
}

}  // namespace penstock::PENSTOCK_ISA
