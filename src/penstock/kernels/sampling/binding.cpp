#include "../cpu/bindings.h"

namespace nb = nanobind;

namespace penstock {

void bind_sampling(nb::module_& m) {
  m.def("argmax", [](uintptr_t logits, uintptr_t token_ids, int64_t rows, int64_t vocab) {
    launch(kernels().argmax, ArgmaxArgs{at<const float>(logits), at<int64_t>(token_ids), rows, vocab});
  });
  m.def("draw", [](uintptr_t logits, uintptr_t temperature, uintptr_t top_k, uintptr_t top_p,
                   uintptr_t min_p, uintptr_t typical_p, uintptr_t uniforms, uintptr_t token_ids,
                   int64_t rows, int64_t vocab) {
    launch(kernels().draw,
           DrawArgs{at<const float>(logits), at<const float>(temperature), at<const float>(top_k),
                    at<const float>(top_p), at<const float>(min_p), at<const float>(typical_p),
                    at<const double>(uniforms), at<int64_t>(token_ids), rows, vocab});
  });
  m.def("top_logprobs", [](uintptr_t logits, uintptr_t chosen, uintptr_t logprobs, uintptr_t ranks,
                           uintptr_t top_ids, uintptr_t top_logprobs, int64_t rows, int64_t vocab,
                           int64_t num_top) {
    check_ids(at<const int64_t>(chosen), rows, vocab, "a vocabulary");
    launch(kernels().top_logprobs,
           TopLogprobsArgs{at<const float>(logits), at<const int64_t>(chosen), at<float>(logprobs),
                           at<int64_t>(ranks), at<int64_t>(top_ids), at<float>(top_logprobs), rows,
                           vocab, num_top});
  });
}

}  // namespace penstock
