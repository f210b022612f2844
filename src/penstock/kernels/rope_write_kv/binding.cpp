#include <nanobind/nanobind.h>

#include <stdexcept>
#include <string>

#include "../cpu/bindings.h"

namespace nb = nanobind;

namespace penstock {
namespace {

void write(void (*kernel)(const RopeWriteKVArgs&), RopeWriteKVArgs args) {
  constexpr int64_t kNone = INT64_MIN;
  int64_t bad_slot = kNone;
  args.bad_slot = &bad_slot;
  kernel(args);
  if (bad_slot != kNone) {
    throw std::out_of_range("slot " + std::to_string(bad_slot) + " is outside a cache of " +
                            std::to_string(args.cache->num_tiles * kTileTokens) + " slots");
  }
}

}  // namespace

void bind_rope_write_kv(nb::module_& m) {
  m.def("rope_write_kv", [](uintptr_t heads, uintptr_t norm_weight, uintptr_t norm_bias, float eps,
                            uintptr_t cos, uintptr_t sin, int64_t half, const LayerKV& cache,
                            uintptr_t slots, int64_t num_tokens, int64_t num_heads) {
    const RopeWriteKVArgs args{at<float>(heads), at<const float>(norm_weight),
                               at<const float>(norm_bias), at<const float>(cos),
                               at<const float>(sin), at<const int64_t>(slots), &cache, nullptr,
                               num_tokens, num_heads, half, eps};
    run([args, kernel = kernels().rope_write_kv] { write(kernel, args); });
  });
}

}  // namespace penstock
