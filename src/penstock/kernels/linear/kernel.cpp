#include "kernel.h"

#include "../cpu/threads.h"
#include "amx.h"
#include "epilogue.h"
#include "packing.h"
#include "prologue.h"
#include "products.h"

namespace penstock::PENSTOCK_ISA {
namespace {

constexpr int64_t kBlockBytes = 192 * 1024;  // of rows, which stay in the second-level cache
constexpr int64_t kMostBlockRows = 96;       // whose sums stay in the first-level one
constexpr int64_t kDepth = 512;              // inputs at a time of floats, likewise with the panel
constexpr int64_t kTaskProducts = 1 << 18;
constexpr int kTasksPerThread = 8;

PENSTOCK_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
PENSTOCK_INLINE int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
PENSTOCK_INLINE int64_t parts(int64_t whole, int64_t part) { return (whole + part - 1) / part; }

// One tile: R rows and one panel, or for floats the inputs from `first` on.
struct Tile {
  const PackedLinear& packed;
  const Rows& rows;
  const uint8_t* panel;
  int64_t row, first, depth;
  float* total;
};

template <Scheme kScheme, int R>
[[gnu::noinline]] void multiply_tile(const Tile& t) {
  if constexpr (kScheme == Scheme::kInt8) {
    multiply_int8<R>(t.panel, t.rows, t.row, t.depth, t.total);
  } else if constexpr (kScheme == Scheme::kInt4) {
    multiply_int4<R>(t.panel, t.rows, t.row, t.depth, t.packed.group, t.total);
  } else {
    const float* x = static_cast<const float*>(t.rows.values) + t.row * t.rows.stride + t.first;
    const int64_t skipped = t.first * kPanelWidth;
    if constexpr (kScheme == Scheme::kFloat32) {
      const float* w = reinterpret_cast<const float*>(t.panel) + skipped;
      multiply_floats<R>(w, x, t.rows.stride, t.depth, t.total);
    } else {
      const uint16_t* w = reinterpret_cast<const uint16_t*>(t.panel) + skipped;
      multiply_floats<R>(w, x, t.rows.stride, t.depth, t.total);
    }
  }
}

template <Scheme kScheme, int R = 1>
void multiply_tile_of(int64_t count, const Tile& t) {
  if (count == R) return multiply_tile<kScheme, R>(t);
  if constexpr (R < kTileRows) return multiply_tile_of<kScheme, R + 1>(count, t);
}

// total [count][kPanelWidth] = the products of rows with one panel, in tiles of nearly equal size.
template <Scheme kScheme>
void multiply_rows(Tile t, int64_t count) {
  int64_t left = count;
  if constexpr (kScheme == Scheme::kInt8 && kHasTiles) {
    while (left >= kTileRegisterRows) {
      const int64_t now = multiply_int8_in_tiles(t.panel, t.rows, t.row, left, t.depth, t.total);
      t.row += now;
      t.total += now * kPanelWidth;
      left -= now;
    }
  }
  while (left > 0) {
    const int64_t now = parts(left, parts(left, kTileRows));
    multiply_tile_of<kScheme>(now, t);
    t.row += now;
    t.total += now * kPanelWidth;
    left -= now;
  }
}

template <Scheme kScheme>
void multiply_panel(const LinearArgs& args, const Rows& rows, int64_t row, int64_t count, int64_t panel) {
  const PackedLinear& p = *args.packed;
  alignas(64) float total[kMostBlockRows * kPanelWidth];
  Tile t{p, rows, p.panels + panel * p.panel_bytes(kLanes), row, 0, p.padded_in(), total};
  if constexpr (kScheme == Scheme::kFloat32 || kScheme == Scheme::kBfloat16) {
    __builtin_memset(total, 0, count * kPanelWidth * sizeof(float));
    for (; t.first < p.in; t.first += kDepth) {
      t.depth = smaller(kDepth, p.in - t.first);
      multiply_rows<kScheme>(t, count);
    }
  } else {
    multiply_rows<kScheme>(t, count);
  }
  finish(args, rows, row, count, panel, total);
}

constexpr int64_t bytes_of_a_number(Scheme scheme) {
  if (scheme == Scheme::kInt4 || (scheme == Scheme::kInt8 && kHasVnni)) return 1;
  return scheme == Scheme::kInt8 ? 2 : 4;
}

// Blocks of rows, and for each chunks of panels: tasks that are neither too small to hand out nor
// too few to share.
template <Scheme kScheme>
void multiply(const LinearArgs& args, const Rows& rows) {
  constexpr bool kFloats = kScheme == Scheme::kFloat32 || kScheme == Scheme::kBfloat16;
  const PackedLinear& p = *args.packed;
  const int64_t row_bytes = (kFloats ? smaller(kDepth, p.in) : rows.stride) * bytes_of_a_number(kScheme);
  const int64_t fitting = larger(1, kBlockBytes / row_bytes / kTileRows) * kTileRows;
  const int64_t blocks = parts(args.rows, smaller(fitting, kMostBlockRows));
  const int64_t block_rows = parts(args.rows, larger(1, blocks)), panels = p.num_panels(kLanes);
  const int64_t wanted = panels * kPanelWidth * block_rows * p.in / kTaskProducts;
  const int64_t most = smaller(panels, kTasksPerThread * num_threads());
  const int64_t chunks = larger(1, smaller(wanted, most));
  parallel(blocks * chunks, [&](int64_t task) {
    [[maybe_unused]] TilesInUse tiles_in_use;
    const int64_t row = task / chunks * block_rows, chunk = task % chunks;
    const int64_t count = smaller(block_rows, args.rows - row), end = (chunk + 1) * panels / chunks;
    for (int64_t panel = chunk * panels / chunks; panel < end; ++panel) {
      if (count > 0) multiply_panel<kScheme>(args, rows, row, count, panel);
    }
  });
}

}  // namespace

void linear(const LinearArgs& args) {
  switch (args.packed->scheme) {
    case Scheme::kFloat32:
      return multiply<Scheme::kFloat32>(args, prepare_floats(args));
    case Scheme::kBfloat16:
      return multiply<Scheme::kBfloat16>(args, prepare_floats(args));
    case Scheme::kInt8:
      return multiply<Scheme::kInt8>(args, prepare_rounded(args));
    case Scheme::kInt4:
      return multiply<Scheme::kInt4>(args, prepare_rounded(args));
  }
}

void pack_linear(const PackArgs& args) {
  const PackedLinear& p = *args.packed;
  const int64_t panels = p.num_panels(kLanes);
  const int64_t tasks = smaller(panels, kTasksPerThread * num_threads());
  const size_t bytes = staging_bytes(p);
  char* memory = static_cast<char*>(scratch(0, tasks * bytes));
  parallel(tasks, [&](int64_t task) {
    const Staging staging = stage(p, memory + task * bytes);
    for (int64_t panel = task * panels / tasks; panel < (task + 1) * panels / tasks; ++panel) {
      pack_panel(args, panel, staging);
    }
  });
}

}  // namespace penstock::PENSTOCK_ISA
