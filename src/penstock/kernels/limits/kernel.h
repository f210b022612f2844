#pragma once

#include <cstdint>

#include "../cpu/declare.h"

namespace penstock {

// Work of known size that nothing but the processor's arithmetic, or its memory, can hold up.
enum class Limit : int { kFloats, kInt8, kMemory };

struct LimitArgs {
  Limit limit;
  int64_t count;        // turns of the arithmetic for every thread, or floats in memory, in 64s
  const float* memory;  // [count] for kMemory, else null
  int64_t* done;        // multiply-adds of all threads, or bytes read
  float* result;        // keeps the work from being optimised away
};

PENSTOCK_FOR_EACH_ISA(void limit(const LimitArgs& args))

}  // namespace penstock
