#pragma once

#include <cstdint>

#include "../cpu/declare.h"

namespace penstock {

// Work of known size that nothing but the processor's arithmetic, or its memory, can hold up.
struct LimitArgs {
  const float* memory;  // [count], count a multiple of 64, or null: multiply and add instead
  int64_t count;        // or: multiply-adds of vectors for every thread, a multiple of 12
  float* result;        // keeps the work from being optimised away
};

PENSTOCK_FOR_EACH_ISA(void limit(const LimitArgs& args))

}  // namespace penstock
