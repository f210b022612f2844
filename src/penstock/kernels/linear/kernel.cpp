#include "kernel.h"

#include "../activation/functions.h"
#include "../cpu/threads.h"
#include "../norm/rows.h"
#include "packing.h"
#include "rounding.h"
#include "tiles.h"

namespace penstock::PENSTOCK_ISA {
namespace {

enum : int { kNormalisedScratch, kRoundedScratch, kScaleScratch, kSumScratch };

constexpr int64_t kBlockBytes = 192 * 1024;  // of rows, which stay in the second-level cache
constexpr int64_t kTaskProducts = 1 << 18;

PENSTOCK_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
PENSTOCK_INLINE int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
PENSTOCK_INLINE int64_t parts(int64_t whole, int64_t part) { return (whole + part - 1) / part; }

// Rows of the next tile when so many are left and no tile is to be much smaller than the others.
PENSTOCK_INLINE int next_rows(int64_t left, int most) {
  return static_cast<int>(parts(left, parts(left, most)));
}

// -- what the tiles read ------------------------------------------------------------------------

template <class T>
PENSTOCK_INLINE void round_row(const float* x, const PackedLinear& p, T* values, float* scale,
                               int32_t* sums) {
  const int64_t padded = p.padded_in();
  const Scale found = scale_of(largest_magnitude(x, p.in) / 127.0f);
  *scale = found.value;
  round_all(x, p.in, found.inverse, -127, 127, values);
  for (int64_t k = p.in; k < padded; ++k) values[k] = 0;
  const int64_t group = p.scheme == Scheme::kInt4 ? p.group : padded;
  for (int64_t k = 0; k < padded; k += group) {
    int32_t total = 0;
    for (int64_t i = k; i < k + group; ++i) total += values[i];
    *sums++ = total;
  }
}

Rows prepare(const LinearArgs& args) {
  const PackedLinear& p = *args.packed;
  const bool rounds = p.scheme == Scheme::kInt8 || p.scheme == Scheme::kInt4;
  const bool wide = p.scheme == Scheme::kInt8 && !kInt8Quads;
  if (!rounds && !args.norm_weight) return {args.x, p.in, nullptr, nullptr, 0};
  const int64_t padded = p.padded_in(), rows = args.rows;
  const int64_t num_sums = p.scheme == Scheme::kInt4 ? padded / p.group : 1;
  float* normalised = nullptr;
  if (args.norm_weight) {
    normalised = static_cast<float*>(scratch(kNormalisedScratch, rows * p.in * sizeof(float)));
  }
  void* values = rounds ? scratch(kRoundedScratch, rows * padded * (wide ? 2 : 1) + 64) : nullptr;
  float* scales = rounds ? static_cast<float*>(scratch(kScaleScratch, rows * 4)) : nullptr;
  int32_t* sums = rounds ? static_cast<int32_t*>(scratch(kSumScratch, rows * num_sums * 4)) : nullptr;
  const int64_t rows_per_task = larger(1, kTaskProducts / 16 / p.in);
  parallel(parts(rows, rows_per_task), [&](int64_t task) {
    const int64_t end = smaller(rows, (task + 1) * rows_per_task);
    for (int64_t row = task * rows_per_task; row < end; ++row) {
      const float* x = args.x + row * p.in;
      if (normalised) {
        normalise_row(x, args.norm_weight, args.norm_bias, args.norm_eps, p.in, normalised + row * p.in);
        x = normalised + row * p.in;
      }
      if (!rounds) continue;
      int32_t* row_sums = sums + row * num_sums;
      if (wide) {
        round_row(x, p, static_cast<int16_t*>(values) + row * padded, scales + row, row_sums);
      } else {
        round_row(x, p, static_cast<int8_t*>(values) + row * padded, scales + row, row_sums);
      }
    }
  });
  if (!rounds) return {normalised, p.in, nullptr, nullptr, 0};
  return {values, padded, scales, sums, num_sums};
}

// -- what becomes of their sums ------------------------------------------------------------------

PENSTOCK_INLINE void emit(Floats y, const LinearArgs& args, int64_t row, int64_t column, int64_t num_outputs) {
  const int64_t at = row * num_outputs + column;
  if (column + kLanes <= num_outputs) {
    if (args.residual) y = load<Floats>(args.residual + at) + y;
    store(args.out + at, y);
  } else if (column < num_outputs) {
    const int n = static_cast<int>(num_outputs - column);
    if (args.residual) y = load_first<Floats>(args.residual + at, n) + y;
    store_first(args.out + at, y, n);
  }
}

template <Scheme kScheme, int R>
void tile(const LinearArgs& args, const Rows& rows, int64_t row, int64_t panel) {
  const PackedLinear& p = *args.packed;
  const uint8_t* weights = p.panels + panel * p.panel_bytes(kLanes);
  Floats total[R][2];
  if constexpr (kScheme == Scheme::kFloat32) {
    multiply_floats<R, float>(weights, static_cast<const float*>(rows.values) + row * rows.stride, rows.stride, p.in, total);
  } else if constexpr (kScheme == Scheme::kBfloat16) {
    multiply_floats<R, uint16_t>(weights, static_cast<const float*>(rows.values) + row * rows.stride, rows.stride, p.in, total);
  } else if constexpr (kScheme == Scheme::kInt8) {
    multiply_int8<R>(weights, rows, row, p.padded_in(), total);
  } else {
    multiply_int4<R>(weights, rows, row, p.padded_in(), p.group, total);
  }
  const int64_t first = panel * 2 * kLanes, num_outputs = p.num_outputs();
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    Floats y[2] = {total[r][0], total[r][1]};
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) {
      if constexpr (kScheme == Scheme::kInt8) y[v] = y[v] * load<Floats>(p.scales + first + v * kLanes);
      if constexpr (kScheme == Scheme::kInt8 || kScheme == Scheme::kInt4) y[v] = y[v] * rows.scales[row + r];
      if (p.bias) y[v] = y[v] + load<Floats>(p.bias + first + v * kLanes);
    }
    if (p.gated) {
      emit(activate(y[0], args.activation) * y[1], args, row + r, panel * kLanes, num_outputs);
    } else {
      emit(activate(y[0], args.activation), args, row + r, first, num_outputs);
      emit(activate(y[1], args.activation), args, row + r, first + kLanes, num_outputs);
    }
  }
}

template <Scheme kScheme>
PENSTOCK_INLINE void tile_of(int count, const LinearArgs& args, const Rows& rows, int64_t row, int64_t panel) {
  switch (count) {
    case 1: return tile<kScheme, 1>(args, rows, row, panel);
    case 2: return tile<kScheme, 2>(args, rows, row, panel);
    case 3: return tile<kScheme, 3>(args, rows, row, panel);
    case 4: return tile<kScheme, 4>(args, rows, row, panel);
  }
  if constexpr (tile_rows(kScheme) > 4) {
    switch (count) {
      case 5: return tile<kScheme, 5>(args, rows, row, panel);
      case 6: return tile<kScheme, 6>(args, rows, row, panel);
    }
  }
  if constexpr (tile_rows(kScheme) > 6) {
    switch (count) {
      case 7: return tile<kScheme, 7>(args, rows, row, panel);
      case 8: return tile<kScheme, 8>(args, rows, row, panel);
    }
  }
}

template <Scheme kScheme>
void multiply(const LinearArgs& args, const Rows& rows) {
  constexpr int kTileRows = tile_rows(kScheme);
  const PackedLinear& p = *args.packed;
  const int64_t row_bytes = rows.stride * (kScheme == Scheme::kInt4 || (kScheme == Scheme::kInt8 && kInt8Quads) ? 1 : kScheme == Scheme::kInt8 ? 2 : 4);
  const int64_t most = larger(1, kBlockBytes / row_bytes / kTileRows) * kTileRows;
  const int64_t blocks = parts(args.rows, most), block_rows = parts(args.rows, blocks);
  const int64_t panels = p.num_panels(kLanes);
  const int64_t panel_products = block_rows * p.in * 2 * kLanes;
  const int64_t chunks = larger(1, smaller(panels, smaller(panels * panel_products / kTaskProducts, 8 * num_threads())));
  parallel(blocks * chunks, [&](int64_t task) {
    const int64_t first_row = task / chunks * block_rows;
    const int64_t last_row = smaller(args.rows, first_row + block_rows);
    const int64_t chunk = task % chunks;
    for (int64_t panel = chunk * panels / chunks; panel < (chunk + 1) * panels / chunks; ++panel) {
      for (int64_t row = first_row; row < last_row;) {
        const int count = next_rows(last_row - row, kTileRows);
        tile_of<kScheme>(count, args, rows, row, panel);
        row += count;
      }
    }
  });
}

}  // namespace

void linear(const LinearArgs& args) {
  const Rows rows = prepare(args);
  switch (args.packed->scheme) {
    case Scheme::kFloat32: return multiply<Scheme::kFloat32>(args, rows);
    case Scheme::kBfloat16: return multiply<Scheme::kBfloat16>(args, rows);
    case Scheme::kInt8: return multiply<Scheme::kInt8>(args, rows);
    case Scheme::kInt4: return multiply<Scheme::kInt4>(args, rows);
  }
}

void pack_linear(const PackArgs& args) {
  const PackedLinear& p = *args.packed;
  parallel(p.num_panels(kLanes), [&](int64_t panel) {
    float* row = static_cast<float*>(std::malloc(p.padded_in() * 5));
    pack_panel(args, panel, row, reinterpret_cast<int8_t*>(row + p.padded_in()));
    std::free(row);
  });
}

}  // namespace penstock::PENSTOCK_ISA
