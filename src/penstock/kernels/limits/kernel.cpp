#include "kernel.h"

#include "../cpu/simd.h"
#include "../cpu/threads.h"

namespace penstock::PENSTOCK_ISA {
namespace {

constexpr int kChains = 12;

// Chains that differ, or the compiler would compute one of them and report all.
float multiply_add(int64_t count) {
  Floats sums[kChains];
#pragma GCC unroll 12
  for (int c = 0; c < kChains; ++c) sums[c] = broadcast(static_cast<float>(c));
  const Floats factor = broadcast(0.999f), term = broadcast(0.001f);
  for (int64_t i = 0; i < count; i += kChains) {
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) sums[c] = sums[c] * factor + term;
  }
  Floats total{};
#pragma GCC unroll 12
  for (int c = 0; c < kChains; ++c) total += sums[c];
  return sum(total);
}

float read(const float* memory, int64_t count) {
  Floats sums[4] = {};
  for (int64_t i = 0; i < count; i += 4 * kLanes) {
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) sums[c] += load<Floats>(memory + i + c * kLanes);
  }
  return sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

}  // namespace

void limit(const LimitArgs& args) {
  constexpr int64_t kPiece = 1 << 16;
  const int64_t tasks = args.memory ? (args.count + kPiece - 1) / kPiece : num_threads();
  parallel(tasks, [&](int64_t task) {
    const int64_t start = task * kPiece, left = args.count - start;
    const float found = args.memory ? read(args.memory + start, left < kPiece ? left : kPiece)
                                    : multiply_add(args.count);
    __atomic_store(args.result, &found, __ATOMIC_RELAXED);
  });
}

}  // namespace penstock::PENSTOCK_ISA
