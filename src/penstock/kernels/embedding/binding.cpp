#include "../cpu/bindings.h"

namespace nb = nanobind;

namespace penstock {

void bind_embedding(nb::module_& m) {
  m.def("embedding", [](uintptr_t row_ids, uintptr_t table, uintptr_t out, int64_t tokens,
                        int64_t rows, int64_t width, int kind) {
    const EmbeddingArgs args{at<const int64_t>(row_ids), at<const void>(table), at<float>(out),
                             tokens, width, kind};
    run([args, rows, kernel = kernels().embedding] {
      check_ids(args.row_ids, args.tokens, rows, "a table");
      kernel(args);
    });
  });
}

}  // namespace penstock
