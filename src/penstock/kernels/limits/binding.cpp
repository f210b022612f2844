#include <nanobind/nanobind.h>

#include "../cpu/bindings.h"

namespace nb = nanobind;

namespace penstock {

void bind_limits(nb::module_& m) {
  m.def("multiply_add", [](int64_t count) {
    float result = 0.0f;
    launch(kernels().limit, LimitArgs{nullptr, count, &result});
    return result;
  });
  m.def("read_memory", [](uintptr_t memory, int64_t count) {
    float result = 0.0f;
    launch(kernels().limit, LimitArgs{at<const float>(memory), count, &result});
    return result;
  });
}

}  // namespace penstock
