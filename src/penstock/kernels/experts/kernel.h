#pragma once

#include <cstdint>

#include "../activation/kinds.h"
#include "../cpu/declare.h"
#include "../linear/packed.h"

namespace penstock {

// A mixture of gated MLPs, as experts/reference.py describes it. All memory is float32 and dense.
struct ExpertsArgs {
  const PackedLinear* gate_up;  // [experts]
  const PackedLinear* down;     // [experts]
  const float* x;               // [tokens, width]
  const float* logits;          // [tokens, experts]
  float* out;                   // [tokens, width]
  int64_t tokens, experts, top_k;
  Activation activation;
};

PENSTOCK_FOR_EACH_ISA(void experts(const ExpertsArgs& args))

}  // namespace penstock
