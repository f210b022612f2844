#include "../cpu/bindings.h"

namespace nb = nanobind;

namespace penstock {
namespace {

// How much was done.
int64_t run(Limit limit, int64_t count, const float* memory) {
  float result = 0.0f;
  int64_t done = 0;
  launch(kernels().limit, LimitArgs{limit, count, memory, &done, &result});
  return done;
}

}  // namespace

void bind_limits(nb::module_& m) {
  m.def("multiply_floats", [](int64_t turns) { return run(Limit::kFloats, turns, nullptr); });
  m.def("multiply_int8", [](int64_t turns) { return run(Limit::kInt8, turns, nullptr); });
  m.def("read_memory", [](uintptr_t memory, int64_t count) {
    return run(Limit::kMemory, count, at<const float>(memory));
  });
}

}  // namespace penstock
