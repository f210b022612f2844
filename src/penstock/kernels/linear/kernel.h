#pragma once

#include <cstdint>

#include "../activation/kinds.h"
#include "../cpu/declare.h"
#include "packed.h"

namespace penstock {

// A linear with what surrounds it, as linear/reference.py describes it. Floats are dense.
struct LinearArgs {
  const PackedLinear* packed;
  const float* x;            // [*, in]
  const int32_t* gather;     // [rows]: which row of x each is, or null: row after row
  const float* norm_weight;  // [in], or null: no norm
  const float* norm_bias;    // [in], or null: RMS
  float norm_eps;
  Activation activation;
  const float* residual;  // [rows, outputs], or null
  float* out;             // [rows, outputs]
  int64_t rows;
};

enum class Source : int { kFloat32, kBfloat16, kFloat16, kInt8 };

// Fill a packed weight from a matrix [out, in]. From kInt8, integers are taken as they are with the
// scales given: [out] for kInt8, [out, groups] for kInt4.
struct PackArgs {
  const PackedLinear* packed;
  Source source;
  const void* weight;
  const float* scales;  // with Source::kInt8 only
  const float* bias;    // [out], or null
};

PENSTOCK_FOR_EACH_ISA(void linear(const LinearArgs& args))
PENSTOCK_FOR_EACH_ISA(void pack_linear(const PackArgs& args))

}  // namespace penstock
