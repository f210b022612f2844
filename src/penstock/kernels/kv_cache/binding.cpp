#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include <stdexcept>
#include <string>

#include "../cpu/bindings.h"
#include "layer.h"

namespace nb = nanobind;

namespace penstock {
namespace {

KVType type_named(const std::string& name) {
  if (name == "float32") return KVType::float32;
  if (name == "bfloat16") return KVType::bfloat16;
  if (name == "float16") return KVType::float16;
  if (name == "int8") return KVType::int8;
  throw std::invalid_argument("no cache of " + name);
}

}  // namespace

void bind_kv_cache(nb::module_& m) {
  m.attr("TILE_TOKENS") = kTileTokens;
  nb::class_<LayerKV>(m, "LayerKV")
      .def("__init__", [](LayerKV* layer, uintptr_t keys, uintptr_t values, uintptr_t key_scales,
                          uintptr_t value_scales, int64_t num_tiles, int64_t num_kv_heads,
                          int64_t head_dim, const std::string& dtype) {
        new (layer) LayerKV{at<void>(keys),         at<void>(values), at<float>(key_scales),
                            at<float>(value_scales), num_tiles,        num_kv_heads,
                            head_dim,               type_named(dtype)};
      });
}

}  // namespace penstock
