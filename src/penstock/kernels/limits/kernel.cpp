#include "kernel.h"

#include "../cpu/amx.h"
#include "../cpu/integers.h"
#include "../cpu/threads.h"

namespace penstock::PENSTOCK_ISA {
namespace {

// Chains of sums that differ, or the compiler would compute one of them and report all.
constexpr int kChains = 12;

float multiply_floats(int64_t turns) {
  Floats sums[kChains];
#pragma GCC unroll 12
  for (int c = 0; c < kChains; ++c) sums[c] = broadcast(static_cast<float>(c));
  const Floats factor = broadcast(0.999f), term = broadcast(0.001f);
  for (int64_t i = 0; i < turns; ++i) {
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) sums[c] = sums[c] * factor + term;
  }
  Floats total{};
#pragma GCC unroll 12
  for (int c = 0; c < kChains; ++c) total += sums[c];
  return sum(total);
}

#if defined(PENSTOCK_ISA_amx)

constexpr int64_t kInt8Turn = 4 * 16 * 16 * 64;

float multiply_int8(int64_t turns) {
  TilesInUse tiles_in_use;
  alignas(64) int32_t numbers[16 * 16] = {};
  PENSTOCK_TILE_ZERO(0);
  PENSTOCK_TILE_ZERO(1);
  PENSTOCK_TILE_ZERO(2);
  PENSTOCK_TILE_ZERO(3);
  PENSTOCK_TILE_LOAD(4, numbers, 64);
  PENSTOCK_TILE_LOAD(5, numbers, 64);
  PENSTOCK_TILE_LOAD(6, numbers, 64);
  PENSTOCK_TILE_LOAD(7, numbers, 64);
  for (int64_t i = 0; i < turns; ++i) {
    PENSTOCK_TILE_MULTIPLY(0, 4, 6);
    PENSTOCK_TILE_MULTIPLY(1, 4, 7);
    PENSTOCK_TILE_MULTIPLY(2, 5, 6);
    PENSTOCK_TILE_MULTIPLY(3, 5, 7);
  }
  PENSTOCK_TILE_STORE(0, numbers, 64);
  return static_cast<float>(numbers[0]);
}

#else

constexpr int64_t kInt8Turn = kChains * kLanes * (kHasVnni ? 4 : 2);

float multiply_int8(int64_t turns) {
  Ints sums[kChains];
#pragma GCC unroll 12
  for (int c = 0; c < kChains; ++c) sums[c] = broadcast_int(c);
  int32_t numbers[kLanes];
  for (int lane = 0; lane < kLanes; ++lane)
    numbers[lane] = lane * 0x01010101 + static_cast<int>(turns);
  const Ints factor = load<Ints>(numbers);
  for (int64_t i = 0; i < turns; ++i) {
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) {
      if constexpr (kHasVnni) {
        sums[c] = add_quads(sums[c], reinterpret_cast<UnsignedQuads>(sums[c]),
                            reinterpret_cast<Quads>(factor));
      } else {
        sums[c] =
            add_pairs(sums[c], reinterpret_cast<Shorts>(sums[c]), reinterpret_cast<Shorts>(factor));
      }
    }
  }
  Ints total{};
#pragma GCC unroll 12
  for (int c = 0; c < kChains; ++c) total += sums[c];
  return sum(to_floats(total));
}

#endif

float read(const float* memory, int64_t count) {
  Floats sums[4] = {};
  for (int64_t i = 0; i < count; i += 4 * kLanes) {
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) sums[c] += load<Floats>(memory + i + c * kLanes);
  }
  return sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

constexpr int64_t kPiece = 1 << 16;

float work(const LimitArgs& args, int64_t task) {
  const int64_t start = task * kPiece, left = args.count - start;
  switch (args.limit) {
    case Limit::kFloats:
      return multiply_floats(args.count);
    case Limit::kInt8:
      return multiply_int8(args.count);
    case Limit::kMemory:
      return read(args.memory + start, left < kPiece ? left : kPiece);
  }
  return 0.0f;
}

}  // namespace

void limit(const LimitArgs& args) {
  const bool reads = args.limit == Limit::kMemory;
  const int64_t turn = args.limit == Limit::kInt8 ? kInt8Turn : kChains * kLanes;
  *args.done = args.count * (reads ? static_cast<int64_t>(sizeof(float)) : turn * num_threads());
  parallel(reads ? (args.count + kPiece - 1) / kPiece : num_threads(), [&](int64_t task) {
    const float found = work(args, task);
    __atomic_store(args.result, &found, __ATOMIC_RELAXED);
  });
}

}  // namespace penstock::PENSTOCK_ISA
