#include "../cpu/bindings.h"

namespace nb = nanobind;

namespace penstock {

void bind_norm(nb::module_& m) {
  m.def("norm", [](uintptr_t x, uintptr_t weight, uintptr_t bias, uintptr_t out, int64_t rows,
                   int64_t width, int64_t groups, float eps) {
    launch(kernels().norm, NormArgs{at<const float>(x), at<const float>(weight),
                                    at<const float>(bias), at<float>(out), rows, width, groups, eps});
  });
}

}  // namespace penstock
