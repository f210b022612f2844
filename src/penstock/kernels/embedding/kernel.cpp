#include "kernel.h"

#include "../cpu/simd.h"
#include "../cpu/threads.h"

namespace penstock::PENSTOCK_ISA {
namespace {

template <class Widen>
PENSTOCK_INLINE void widen_row(const uint16_t* from, float* to, int64_t width, Widen widen) {
  int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes) store(to + i, widen(load<Halves>(from + i)));
  const int rest = static_cast<int>(width - i);
  if (rest) store_first(to + i, widen(load_first<Halves>(from + i, rest)), rest);
}

void copy_row(const EmbeddingArgs& args, int64_t token) {
  const int64_t first = args.row_ids[token] * args.width;
  float* to = args.out + token * args.width;
  if (args.kind == 0) {
    __builtin_memcpy(to, static_cast<const float*>(args.table) + first, args.width * sizeof(float));
  } else if (args.kind == 1) {
    widen_row(static_cast<const uint16_t*>(args.table) + first, to, args.width,
              [](Halves v) { return widen_bfloat16(v); });
  } else {
    widen_row(static_cast<const uint16_t*>(args.table) + first, to, args.width,
              [](Halves v) { return widen_float16(v); });
  }
}

}  // namespace

void embedding(const EmbeddingArgs& args) {
  constexpr int64_t kRowsPerTask = 32;
  parallel((args.tokens + kRowsPerTask - 1) / kRowsPerTask, [&](int64_t task) {
    const int64_t end = (task + 1) * kRowsPerTask;
    for (int64_t token = task * kRowsPerTask; token < end && token < args.tokens; ++token) {
      copy_row(args, token);
    }
  });
}

}  // namespace penstock::PENSTOCK_ISA
