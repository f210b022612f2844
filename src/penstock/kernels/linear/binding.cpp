#include "../cpu/bindings.h"

namespace nb = nanobind;

namespace penstock {

void bind_linear(nb::module_& m) {
  nb::enum_<Scheme>(m, "Scheme")
      .value("float32", Scheme::kFloat32)
      .value("bfloat16", Scheme::kBfloat16)
      .value("int8", Scheme::kInt8)
      .value("int4", Scheme::kInt4);
  nb::enum_<Source>(m, "Source")
      .value("float32", Source::kFloat32)
      .value("bfloat16", Source::kBfloat16)
      .value("float16", Source::kFloat16)
      .value("int8", Source::kInt8);
  nb::enum_<Activation>(m, "Activation")
      .value("none", Activation::kNone)
      .value("silu", Activation::kSilu)
      .value("gelu", Activation::kGelu)
      .value("gelu_tanh", Activation::kGeluTanh)
      .value("quick_gelu", Activation::kQuickGelu)
      .value("relu", Activation::kRelu);
  nb::class_<PackedLinear>(m, "PackedLinear")
      .def("__init__",
           [](PackedLinear* self, Scheme scheme, bool gated, int64_t out, int64_t in, int64_t group,
              uintptr_t panels, uintptr_t scales, uintptr_t bias) {
             new (self) PackedLinear{scheme, gated, out, in, group, at<uint8_t>(panels),
                                     at<float>(scales), at<float>(bias)};
           });
  m.def("packed_sizes", [](Scheme scheme, bool gated, int64_t out, int64_t in, int64_t group) {
    const PackedLinear p{scheme, gated, out, in, group, nullptr, nullptr, nullptr};
    const int lanes = kernels().lanes;
    return nb::make_tuple(p.num_panels(lanes) * p.panel_bytes(lanes), p.num_panels(lanes) * 2 * lanes);
  });
  m.def("pack_linear", [](const PackedLinear& packed, Source source, uintptr_t weight,
                          uintptr_t scales, uintptr_t bias) {
    launch(kernels().pack_linear, PackArgs{&packed, source, at<const void>(weight),
                                           at<const float>(scales), at<const float>(bias)});
  });
  m.def("linear", [](const PackedLinear& packed, uintptr_t x, int64_t rows, uintptr_t norm_weight,
                     uintptr_t norm_bias, float norm_eps, Activation activation, uintptr_t residual,
                     uintptr_t out) {
    launch(kernels().linear,
           LinearArgs{&packed, at<const float>(x), nullptr, at<const float>(norm_weight),
                      at<const float>(norm_bias), norm_eps, activation, at<const float>(residual),
                      at<float>(out), rows});
  });
}

}  // namespace penstock
