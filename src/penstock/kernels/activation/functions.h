// Activations on vectors.
#pragma once

#include "../cpu/simd.h"
#include "kinds.h"

namespace penstock::PENSTOCK_ISA {

PENSTOCK_INLINE Floats sigmoid(Floats x) { return 1.0f / (1.0f + exponential(-x)); }

PENSTOCK_INLINE Floats hyperbolic_tangent(Floats x) {
  return 1.0f - 2.0f / (exponential(x + x) + 1.0f);
}

// Abramowitz and Stegun 7.1.26: within 1.5e-7.
PENSTOCK_INLINE Floats error_function(Floats x) {
  const Floats a = magnitude(x);
  const Floats t = 1.0f / (1.0f + a * 0.3275911f);
  Floats p = t * 1.061405429f - 1.453152027f;
  p = p * t + 1.421413741f;
  p = p * t - 0.284496736f;
  p = p * t + 0.254829592f;
  const Floats positive = 1.0f - p * t * exponential(-a * a);
  return x < 0.0f ? -positive : positive;
}

template <Activation kKind>
PENSTOCK_INLINE Floats activate(Floats x) {
  switch (kKind) {
    case Activation::kSilu:
      return x * sigmoid(x);
    case Activation::kGelu:
      return 0.5f * x * (1.0f + error_function(x * 0.70710678f));
    case Activation::kGeluTanh:
      return 0.5f * x * (1.0f + hyperbolic_tangent(0.79788456f * (x + 0.044715f * x * x * x)));
    case Activation::kQuickGelu:
      return x * sigmoid(1.702f * x);
    case Activation::kRelu:
      return x > 0.0f ? x : Floats{};
    case Activation::kNone:
      return x;
  }
  return x;
}

}  // namespace penstock::PENSTOCK_ISA
