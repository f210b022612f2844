// Which experts each token visits, and the visits in the order in which experts receive them.
#pragma once

#include "../cpu/simd.h"
#include "kernel.h"

namespace penstock::PENSTOCK_ISA {

// A visit is one token at one of its experts. Visits are numbered by expert, then by token.
struct Routes {
  int32_t* chosen;  // [tokens, top_k]: experts, the best first
  float* shares;    // [tokens, top_k]: what each has in the token's output
  int32_t* visits;  // [tokens, top_k]: the visit's number
  int32_t* gather;  // [visits]: the visit's token
  int32_t* starts;  // [experts + 1]: each expert's first visit
};

PENSTOCK_INLINE int64_t routes_bytes(const ExpertsArgs& args) {
  return 16 * args.tokens * args.top_k + 4 * (args.experts + 1);
}

PENSTOCK_INLINE Routes lay_out_routes(const ExpertsArgs& args, void* memory) {
  const int64_t count = args.tokens * args.top_k;
  int32_t* at = static_cast<int32_t*>(memory);
  return {at, reinterpret_cast<float*>(at + count), at + 2 * count, at + 3 * count, at + 4 * count};
}

// The best experts of one token; of equals the first. Their shares are the softmax of their logits,
// which is the softmax of all logits, scaled to a sum of 1.
PENSTOCK_INLINE void choose(const float* logits, int64_t experts, int64_t top_k, int32_t* chosen,
                            float* shares) {
  for (int64_t pick = 0; pick < top_k; ++pick) {
    int64_t best = -1;
    for (int64_t expert = 0; expert < experts; ++expert) {
      bool taken = false;
      for (int64_t i = 0; i < pick; ++i) taken |= chosen[i] == expert;
      if (!taken && (best < 0 || logits[expert] > logits[best])) best = expert;
    }
    chosen[pick] = static_cast<int32_t>(best);
  }
  float total = 0.0f;
  for (int64_t i = 0; i < top_k; ++i) {
    shares[i] = exponential(broadcast(logits[chosen[i]] - logits[chosen[0]]))[0];
    total += shares[i];
  }
  for (int64_t i = 0; i < top_k; ++i) shares[i] /= total;
}

// Number the visits: by counting, then by adding up.
PENSTOCK_INLINE void number_visits(const ExpertsArgs& args, const Routes& r) {
  const int64_t count = args.tokens * args.top_k;
  __builtin_memset(r.starts, 0, (args.experts + 1) * sizeof(int32_t));
  for (int64_t i = 0; i < count; ++i) ++r.starts[r.chosen[i] + 1];
  for (int64_t expert = 0; expert < args.experts; ++expert)
    r.starts[expert + 1] += r.starts[expert];
  for (int64_t i = 0; i < count; ++i) {
    r.visits[i] = r.starts[r.chosen[i]]++;
    r.gather[r.visits[i]] = static_cast<int32_t>(i / args.top_k);
  }
  for (int64_t expert = args.experts; expert > 0; --expert) r.starts[expert] = r.starts[expert - 1];
  r.starts[0] = 0;
}

}  // namespace penstock::PENSTOCK_ISA
