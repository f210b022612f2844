#pragma once

#include <cstdint>

#include "../cpu/declare.h"

namespace penstock {

// What contract.py and reference.py say of argmax, draw and top_logprobs. All memory is dense.

struct ArgmaxArgs {
  const float* logits;  // [rows, vocab]
  int64_t* token_ids;   // [rows]
  int64_t rows, vocab;
};

struct DrawArgs {
  const float* logits;                                        // [rows, vocab]
  const float *temperature, *top_k, *top_p, *min_p, *typical_p;  // [rows] each, or null
  const double* uniforms;                                     // [rows]
  int64_t* token_ids;                                         // [rows]
  int64_t rows, vocab;
};

struct TopLogprobsArgs {
  const float* logits;    // [rows, vocab]
  const int64_t* chosen;  // [rows]
  float* logprobs;        // [rows]
  int64_t* ranks;         // [rows]
  int64_t* top_ids;       // [rows, num_top]
  float* top_logprobs;    // [rows, num_top]
  int64_t rows, vocab, num_top;
};

PENSTOCK_FOR_EACH_ISA(void argmax(const ArgmaxArgs& args); void draw(const DrawArgs& args);
                      void top_logprobs(const TopLogprobsArgs& args))

}  // namespace penstock
