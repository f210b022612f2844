// What becomes of a panel's sums: scaled, biased, activated, added to a residual, and written.
#pragma once

#include "../activation/functions.h"
#include "kernel.h"
#include "products.h"

namespace penstock::PENSTOCK_ISA {

// y [count] to columns of one row, all or those that exist.
PENSTOCK_INLINE void emit(Floats y, const LinearArgs& args, int64_t row, int64_t column) {
  const int64_t left = args.packed->num_outputs() - column;
  const int64_t at = row * args.packed->num_outputs() + column;
  if (left >= kLanes) {
    if (args.residual) y = load<Floats>(args.residual + at) + y;
    store(args.out + at, y);
  } else if (left > 0) {
    const int n = static_cast<int>(left);
    if (args.residual) y = load_first<Floats>(args.residual + at, n) + y;
    store_first(args.out + at, y, n);
  }
}

template <Activation kActivation>
void finish_rows(const LinearArgs& args, const Rows& rows, int64_t row, int64_t count, int64_t panel,
                 const float* total) {
  const PackedLinear& p = *args.packed;
  const int64_t first = panel * kPanelWidth;
  for (int64_t r = 0; r < count; ++r) {
    Floats y[2];
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) {
      y[v] = load<Floats>(total + r * kPanelWidth + v * kLanes);
      if (p.scales) y[v] = y[v] * load<Floats>(p.scales + first + v * kLanes);
      if (rows.scales) y[v] = y[v] * rows.scales[row + r];
      if (p.bias) y[v] = y[v] + load<Floats>(p.bias + first + v * kLanes);
    }
    if (p.gated) {
      emit(activate<kActivation>(y[0]) * y[1], args, row + r, panel * kLanes);
    } else {
      emit(activate<kActivation>(y[0]), args, row + r, first);
      emit(activate<kActivation>(y[1]), args, row + r, first + kLanes);
    }
  }
}

// total [count][kPanelWidth] are the sums of rows from `row` on.
static void finish(const LinearArgs& args, const Rows& rows, int64_t row, int64_t count,
                   int64_t panel, const float* total) {
  switch (args.activation) {
    case Activation::kNone:
      return finish_rows<Activation::kNone>(args, rows, row, count, panel, total);
    case Activation::kSilu:
      return finish_rows<Activation::kSilu>(args, rows, row, count, panel, total);
    case Activation::kGelu:
      return finish_rows<Activation::kGelu>(args, rows, row, count, panel, total);
    case Activation::kGeluTanh:
      return finish_rows<Activation::kGeluTanh>(args, rows, row, count, panel, total);
    case Activation::kQuickGelu:
      return finish_rows<Activation::kQuickGelu>(args, rows, row, count, panel, total);
    case Activation::kRelu:
      return finish_rows<Activation::kRelu>(args, rows, row, count, panel, total);
  }
}

}  // namespace penstock::PENSTOCK_ISA
