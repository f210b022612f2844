#include "kernel.h"

#include "../cpu/threads.h"
#include "row.h"
#include "threshold.h"

namespace penstock::PENSTOCK_ISA {
namespace {

// f(row, index) for every row: side by side where there are enough of them.
template <class F>
PENSTOCK_INLINE void over_rows(const float* logits, int64_t rows, int64_t vocab, F f) {
  const int64_t threads = num_threads(), blocks = (vocab + kBlock - 1) / kBlock;
  const bool split = rows < threads;
  const int64_t tasks = split ? 1 : (rows < 4 * threads ? rows : 4 * threads);
  const int64_t numbers = (3 * blocks + kLanes + 2 * (vocab + 1) + 15) / 16 * 16;
  const size_t bytes = kBuckets * sizeof(double) + numbers * sizeof(float);
  char* memory = static_cast<char*>(scratch(0, tasks * bytes));
  const auto some_rows = [=](int64_t task) {
    Row fresh{};
    fresh.vocab = vocab;
    fresh.blocks = blocks;
    fresh.buckets = reinterpret_cast<double*>(memory + task * bytes);
    fresh.largest = reinterpret_cast<float*>(fresh.buckets + kBuckets);
    fresh.mass = fresh.largest + blocks + kLanes;
    fresh.moment = fresh.mass + blocks;
    fresh.weights = fresh.moment + blocks;
    fresh.keys = reinterpret_cast<int32_t*>(fresh.weights + vocab + 1);
    fresh.split = split;
    for (int64_t index = task; index < rows; index += tasks) {
      Row row = fresh;
      row.logits = logits + index * vocab;
      f(row, index);
    }
  };
  if (split) {
    some_rows(0);
  } else {
    parallel(tasks, [&](int64_t task) { some_rows(task); });
  }
}

float option(const float* column, int64_t index, float absent) {
  return column ? column[index] : absent;
}

void shape(Row& row, const DrawArgs& args, int64_t index) {
  const float top_k = option(args.top_k, index, 0.0f), top_p = option(args.top_p, index, 1.0f);
  const float min_p = option(args.min_p, index, 0.0f), typical_p = option(args.typical_p, index, 1.0f);
  if (top_k > 0.0f && top_k < static_cast<float>(row.vocab)) {
    keep_top_k(row, static_cast<int64_t>(top_k));
  }
  if (top_p < 1.0f) row.limit = holding(row, top_p, add_up(row).mass, 0.0f);
  if (min_p > 0.0f) {
    const float least_likely = -__builtin_logf(min_p);
    row.limit = least_likely < row.limit ? least_likely : row.limit;
  }
  if (typical_p < 1.0f) {
    // Surprise and entropy are distance and mean distance, each plus the same constant.
    const Totals totals = add_up<true>(row);
    row.spread = holding(row, typical_p, totals.mass, static_cast<float>(totals.mean));
  }
}

// The token at which the masses, added up in the order of the vocabulary, exceed a share of them.
int64_t look_up(Row& row, double uniform) {
  const double sought = uniform * add_up(row).mass;
  int64_t block = 0, found = 0;
  double before = 0.0;
  for (int64_t each = 0; each < row.blocks; ++each) {
    if (row.mass[each] == 0.0f) continue;
    block = each;
    if (before + row.mass[each] > sought) break;
    before += row.mass[each];
  }
  float padded[kBlock], weights[kBlock];
  const float* x = block_of(row, block, padded);
  for (int i = 0; i < kBlock; i += kLanes) store(weights + i, weight(place(row, x + i)));
  for (int64_t i = 0; i < kBlock; ++i) {
    if (weights[i] == 0.0f) continue;
    found = block * kBlock + i;  // rounding may leave a little unreached: then it is the last
    before += weights[i];
    if (before > sought) break;
  }
  return found;
}

// The likeliest tokens by insertion: most blocks have none.
void find_top(const Row& row, int64_t count, int64_t* ids, float* values) {
  int64_t held = 0;
  for (int64_t token = 0; count > 0 && token < row.vocab; ++token) {
    if (held == count && token % kBlock == 0 && !(row.largest[token / kBlock] > values[count - 1])) {
      token += kBlock - 1;
      continue;
    }
    const float x = row.logits[token] > -kInfinity ? row.logits[token] : -kInfinity;
    if (held == count && !(x > values[count - 1])) continue;
    int64_t place = held < count ? held++ : count - 1;
    for (; place > 0 && x > values[place - 1]; --place) {
      values[place] = values[place - 1];
      ids[place] = ids[place - 1];
    }
    values[place] = x;
    ids[place] = token;
  }
}

int64_t rank_of(const Row& row, float x) {
  const Ints none{};
  int64_t larger = 0;
  float padded[kBlock];
  for (int64_t block = 0; block < row.blocks; ++block) {
    if (!(row.largest[block] > x)) continue;
    const float* from = block_of(row, block, padded);
    Ints count = none;
    for (int i = 0; i < kBlock; i += kLanes) count -= load<Floats>(from + i) > x;
    larger += static_cast<int64_t>(sum(to_floats(count)));
  }
  return larger + 1;
}

}  // namespace

void argmax(const ArgmaxArgs& args) {
  over_rows(args.logits, args.rows, args.vocab, [&args](Row& row, int64_t index) {
    find_largest(row);
    args.token_ids[index] = first_best(row);
  });
}

void draw(const DrawArgs& args) {
  over_rows(args.logits, args.rows, args.vocab, [&args](Row& row, int64_t index) {
    find_largest(row);
    row.temperature = option(args.temperature, index, 1.0f);
    if (row.temperature == 0.0f || !is_finite(row.best)) {
      args.token_ids[index] = first_best(row);
      return;
    }
    shape(row, args, index);
    args.token_ids[index] = look_up(row, args.uniforms[index]);
  });
}

void top_logprobs(const TopLogprobsArgs& args) {
  over_rows(args.logits, args.rows, args.vocab, [&args](Row& row, int64_t index) {
    find_largest(row);
    float total = row.best;
    if (is_finite(row.best)) total += static_cast<float>(__builtin_log(add_up(row).mass));
    const float x = row.logits[args.chosen[index]];
    const float chosen = x > -kInfinity ? x : -kInfinity;
    args.logprobs[index] = chosen - total;
    args.ranks[index] = rank_of(row, chosen);
    float* values = args.top_logprobs + index * args.num_top;
    find_top(row, args.num_top, args.top_ids + index * args.num_top, values);
    for (int64_t i = 0; i < args.num_top; ++i) values[i] -= total;
  });
}

}  // namespace penstock::PENSTOCK_ISA
