#pragma once

#include <cstdint>

#include "../cpu/declare.h"

namespace penstock {

// A norm of rows, as norm/contract.py describes it. All memory is float32 and dense.
struct NormArgs {
  const float* x;       // [rows, width]
  const float* weight;  // [groups, width]; row r uses group r % groups
  const float* bias;    // [groups, width], or null for RMS
  float* out;           // [rows, width]
  int64_t rows, width, groups;
  float eps;
};

PENSTOCK_FOR_EACH_ISA(void norm(const NormArgs& args))

}  // namespace penstock
