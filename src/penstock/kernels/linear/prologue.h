// What happens to rows before they are multiplied: gathered, normalised, rounded.
#pragma once

#include "../cpu/threads.h"
#include "../norm/rows.h"
#include "kernel.h"
#include "rounding.h"
#include "products.h"

namespace penstock::PENSTOCK_ISA {

enum : int { kFloatScratch, kRoundedScratch, kScaleScratch, kStartScratch };

constexpr int64_t kNumbersPerTask = 1 << 14;

// Rows on their way: where one stands while it is normalised, and where they end.
struct Prepared {
  float* floats;
  void* values;
  float* scales;
  int32_t* starts;
  int64_t num_starts;
};

PENSTOCK_INLINE int64_t num_starts(const PackedLinear& p) {
  if (p.scheme == Scheme::kInt4) return p.padded_in() / int4_run(p.group);
  return p.scheme == Scheme::kInt8 && kHasVnni ? 1 : 0;
}

template <class T>
PENSTOCK_INLINE void round_row(const float* x, const PackedLinear& p, T* values, float* scale) {
  const Scale found = scale_of(largest_magnitude(x, p.in) / 127.0f);
  *scale = found.value;
  round_all(x, p.in, found.inverse, -127, 127, values);
  __builtin_memset(values + p.in, 0, (p.padded_in() - p.in) * sizeof(T));
}

// What undoes the offsets of the weights: 128 in int8, 8 in int4.
PENSTOCK_INLINE void find_starts(const PackedLinear& p, const int8_t* values, int32_t* starts) {
  const int64_t depth = p.padded_in();
  if (p.scheme == Scheme::kInt8) {
    *starts = -128 * sum_bytes(values, depth);
    return;
  }
  const int64_t run = int4_run(p.group);
  for (int64_t k = 0; k < depth; k += run) {
    if constexpr (kHasVnni) {
      *starts++ = -8 * sum_bytes(values + k, run);
    } else {
      const int32_t halves = sum_halves(values + k, run);
      const int32_t first = -8 * static_cast<int16_t>(halves), second = -8 * (halves >> 16);
      *starts++ = static_cast<int32_t>(static_cast<uint32_t>(second) << 16 | (first & 0xffff));
    }
  }
}

PENSTOCK_INLINE void round_into(const Prepared& to, const PackedLinear& p, const float* x, int64_t row) {
  const int64_t depth = p.padded_in();
  if (p.scheme == Scheme::kInt8 && !kHasVnni) {
    round_row(x, p, static_cast<int16_t*>(to.values) + row * depth, to.scales + row);
  } else {
    int8_t* values = static_cast<int8_t*>(to.values) + row * depth;
    round_row(x, p, values, to.scales + row);
    find_starts(p, values, to.starts + row * to.num_starts);
  }
}

// Rows of floats, when nothing is rounded.
static Rows prepare_floats(const LinearArgs& args) {
  const int64_t in = args.packed->in;
  if (!args.norm_weight && !args.gather) return {args.x, in, nullptr, nullptr, 0};
  float* floats = static_cast<float*>(scratch(kFloatScratch, args.rows * in * sizeof(float)));
  const int64_t rows_per_task = 1 + kNumbersPerTask / in;
  parallel((args.rows + rows_per_task - 1) / rows_per_task, [&](int64_t task) {
    for (int64_t row = task * rows_per_task; row < (task + 1) * rows_per_task && row < args.rows; ++row) {
      const float* x = args.x + (args.gather ? args.gather[row] : row) * in;
      if (args.norm_weight) {
        normalise_row(x, args.norm_weight, args.norm_bias, args.norm_eps, in, floats + row * in);
      } else {
        __builtin_memcpy(floats + row * in, x, in * sizeof(float));
      }
    }
  });
  return {floats, in, nullptr, nullptr, 0};
}

static Rows prepare_rounded(const LinearArgs& args) {
  const PackedLinear& p = *args.packed;
  const int64_t depth = p.padded_in(), rows_per_task = 1 + kNumbersPerTask / p.in;
  const int64_t tasks = (args.rows + rows_per_task - 1) / rows_per_task;
  Prepared to{};
  to.num_starts = num_starts(p);
  to.values = scratch(kRoundedScratch, args.rows * depth * sizeof(int16_t));
  to.scales = static_cast<float*>(scratch(kScaleScratch, args.rows * sizeof(float)));
  to.starts = static_cast<int32_t*>(scratch(kStartScratch, args.rows * to.num_starts * sizeof(int32_t)));
  if (args.norm_weight) to.floats = static_cast<float*>(scratch(kFloatScratch, tasks * p.in * sizeof(float)));
  parallel(tasks, [&](int64_t task) {
    for (int64_t row = task * rows_per_task; row < (task + 1) * rows_per_task && row < args.rows; ++row) {
      const float* x = args.x + (args.gather ? args.gather[row] : row) * p.in;
      if (args.norm_weight) {
        float* y = to.floats + task * p.in;
        normalise_row(x, args.norm_weight, args.norm_bias, args.norm_eps, p.in, y);
        x = y;
      }
      round_into(to, p, x, row);
    }
  });
  return {to.values, depth, to.scales, to.starts, to.num_starts};
}

}  // namespace penstock::PENSTOCK_ISA
