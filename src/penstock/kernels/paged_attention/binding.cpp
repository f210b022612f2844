#include <nanobind/nanobind.h>
#include <nanobind/stl/shared_ptr.h>

#include <memory>
#include <stdexcept>

#include "../cpu/bindings.h"
#include "plan.h"

namespace nb = nanobind;

namespace penstock {
namespace {

using Plan = std::shared_ptr<AttentionPlan>;  // a recording keeps it, and plans anew

Plan plan(uintptr_t cu_seqlens_q, uintptr_t context_lens, int64_t num_sequences,
          uintptr_t block_table, int64_t max_blocks, int64_t tiles_per_block, int32_t num_heads,
          int32_t num_kv_heads, int32_t head_dim, float scale, float soft_cap, int32_t window,
          uintptr_t key_bias, int64_t max_positions) {
  const AttentionFacts facts{
      at<const int32_t>(cu_seqlens_q), at<const int32_t>(context_lens),
      at<const int64_t>(block_table), at<const float>(key_bias), num_sequences, max_blocks,
      tiles_per_block, max_positions, num_heads, num_kv_heads, head_dim, window, scale, soft_cap};
  const Plan planned = std::make_shared<AttentionPlan>();
  run([facts, planned] { *planned = plan_attention(facts); });
  return planned;
}

void attend(const float* query, int64_t query_stride, float* out, int64_t num_tokens,
            const LayerKV& cache, const AttentionPlan& plan, const float* sinks) {
  const AttentionFacts& facts = plan.facts;
  if (cache.num_kv_heads != facts.num_kv_heads || cache.head_dim != facts.head_dim) {
    throw std::invalid_argument("the cache has other heads than the plan");
  }
  if (num_tokens != plan.num_tokens) {
    throw std::invalid_argument("there are more or fewer queries than the plan has tokens");
  }
  if (plan.max_tile >= cache.num_tiles) {
    throw std::invalid_argument("the plan reads blocks that the cache does not have");
  }
  kernels().paged_attention(PagedAttentionArgs{
      query, out, &cache, plan.tiles.data(), plan.items.data(), plan.merges.data(), facts.key_bias,
      sinks, query_stride, static_cast<int64_t>(plan.items.size()),
      static_cast<int64_t>(plan.merges.size()), plan.num_partials, facts.max_positions,
      facts.num_heads, plan.max_tokens, facts.window, facts.scale, facts.soft_cap});
}

}  // namespace

void bind_paged_attention(nb::module_& m) {
  nb::class_<AttentionPlan>(m, "AttentionPlan");
  m.def("plan_attention", &plan);
  m.def("paged_attention", [](uintptr_t query, int64_t query_stride, uintptr_t out,
                              int64_t num_tokens, const LayerKV& cache, const Plan& plan,
                              uintptr_t sinks) {
    run([=, from = at<const float>(query), to = at<float>(out), layer = &cache] {
      attend(from, query_stride, to, num_tokens, *layer, *plan, at<const float>(sinks));
    });
  });
}

}  // namespace penstock
