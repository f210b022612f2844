#include "kernel.h"

#include "../cpu/threads.h"
#include "../linear/kernel.h"
#include "routing.h"

namespace penstock::PENSTOCK_ISA {
namespace {

// The linears of the experts use the ones before these.
enum : int { kRoutesScratch = 4, kHiddenScratch, kVisitsScratch };

constexpr int64_t kTokensPerTask = 16;

// A token's output: its experts' outputs by their shares, in the token's own order.
PENSTOCK_INLINE void combine(const Routes& r, const float* visits, int64_t token, int64_t top_k,
                             int64_t width, float* out) {
  float* y = out + token * width;
  for (int64_t pick = token * top_k; pick < (token + 1) * top_k; ++pick) {
    const float* from = visits + r.visits[pick] * width;
    const float share = r.shares[pick];
    const bool first = pick == token * top_k;
    for (int64_t i = 0; i < width; ++i) y[i] = first ? from[i] * share : y[i] + from[i] * share;
  }
}

PENSTOCK_INLINE void visit(const ExpertsArgs& args, const Routes& r, int64_t expert, float* hidden,
                           float* visits) {
  const int64_t first = r.starts[expert], rows = r.starts[expert + 1] - first;
  if (rows == 0) return;
  LinearArgs up{};
  up.packed = args.gate_up + expert;
  up.x = args.x;
  up.gather = r.gather + first;
  up.activation = args.activation;
  up.out = hidden;
  up.rows = rows;
  linear(up);
  LinearArgs down{};
  down.packed = args.down + expert;
  down.x = hidden;
  down.out = visits + first * args.down->out;
  down.rows = rows;
  linear(down);
}

}  // namespace

void experts(const ExpertsArgs& args) {
  if (args.tokens == 0) return;
  const int64_t width = args.down->out, count = args.tokens * args.top_k;
  const Routes r = lay_out_routes(args, scratch(kRoutesScratch, routes_bytes(args)));
  float* hidden =
      static_cast<float*>(scratch(kHiddenScratch, args.tokens * args.down->in * sizeof(float)));
  float* visits = static_cast<float*>(scratch(kVisitsScratch, count * width * sizeof(float)));
  const int64_t tasks = (args.tokens + kTokensPerTask - 1) / kTokensPerTask;
  const auto for_each_token = [&](auto&& work) {
    parallel(tasks, [&](int64_t task) {
      const int64_t first = task * kTokensPerTask;
      for (int64_t t = first; t < first + kTokensPerTask && t < args.tokens; ++t) work(t);
    });
  };
  for_each_token([&](int64_t t) {
    choose(args.logits + t * args.experts, args.experts, args.top_k, r.chosen + t * args.top_k,
           r.shares + t * args.top_k);
  });
  number_visits(args, r);
  for (int64_t expert = 0; expert < args.experts; ++expert) visit(args, r, expert, hidden, visits);
  for_each_token([&](int64_t t) { combine(r, visits, t, args.top_k, width, args.out); });
}

}  // namespace penstock::PENSTOCK_ISA
