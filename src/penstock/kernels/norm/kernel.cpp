#include "kernel.h"

#include "../cpu/threads.h"
#include "rows.h"

namespace penstock::PENSTOCK_ISA {

void norm(const NormArgs& args) {
  constexpr int64_t kRowsPerTask = 8;
  parallel((args.rows + kRowsPerTask - 1) / kRowsPerTask, [&](int64_t task) {
    const int64_t end = (task + 1) * kRowsPerTask < args.rows ? (task + 1) * kRowsPerTask : args.rows;
    for (int64_t row = task * kRowsPerTask; row < end; ++row) {
      const int64_t group = row % args.groups * args.width;
      normalise_row(args.x + row * args.width, args.weight + group,
                    args.bias ? args.bias + group : nullptr, args.eps, args.width,
                    args.out + row * args.width);
    }
  });
}

}  // namespace penstock::PENSTOCK_ISA
