#include <nanobind/stl/vector.h>

#include <vector>

#include "../cpu/bindings.h"

namespace nb = nanobind;

namespace penstock {
namespace {

struct PackedExperts {
  std::vector<PackedLinear> gate_up, down;

  PackedExperts(const std::vector<const PackedLinear*>& gate_up_of,
                const std::vector<const PackedLinear*>& down_of) {
    for (const PackedLinear* each : gate_up_of) gate_up.push_back(*each);
    for (const PackedLinear* each : down_of) down.push_back(*each);
  }
};

}  // namespace

void bind_experts(nb::module_& m) {
  nb::class_<PackedExperts>(m, "PackedExperts")
      .def(nb::init<const std::vector<const PackedLinear*>&,
                    const std::vector<const PackedLinear*>&>());
  m.def("experts", [](const PackedExperts& packed, uintptr_t x, uintptr_t logits, uintptr_t out,
                      int64_t tokens, int64_t top_k, Activation activation) {
    launch(kernels().experts,
           ExpertsArgs{packed.gate_up.data(), packed.down.data(), at<const float>(x),
                       at<const float>(logits), at<float>(out), tokens,
                       static_cast<int64_t>(packed.gate_up.size()), top_k, activation});
  });
}

}  // namespace penstock
