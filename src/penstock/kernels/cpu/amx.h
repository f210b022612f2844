// The tile registers of AMX: eight matrices of 16 rows of 64 bytes, and the product of two of them.
//
// Registers are named by literal numbers, as the instructions demand. With PENSTOCK_EMULATE they
// are plain memory.
#pragma once

#include "simd.h"

namespace penstock::PENSTOCK_ISA {

#ifdef PENSTOCK_ISA_amx
inline constexpr bool kHasTiles = true;
#else
inline constexpr bool kHasTiles = false;
#endif

inline constexpr int kTileRegisterRows = 16;

#if defined(PENSTOCK_ISA_amx) && !defined(PENSTOCK_EMULATE)

// While one lives, this thread's tile registers are of full size.
class TilesInUse {
 public:
  TilesInUse() {
    struct alignas(64) {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t bytes_of_a_row[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } shape;
    _tile_loadconfig(&shape);
  }
  ~TilesInUse() { _tile_release(); }
  TilesInUse(const TilesInUse&) = delete;
  TilesInUse& operator=(const TilesInUse&) = delete;
};

#define PENSTOCK_TILE_ZERO(number) _tile_zero(number)
#define PENSTOCK_TILE_LOAD(number, from, stride) _tile_loadd(number, from, stride)
#define PENSTOCK_TILE_STORE(number, to, stride) _tile_stored(number, to, stride)
// sums += the products of signed bytes a, row by row, with unsigned bytes b, quads of rows.
#define PENSTOCK_TILE_MULTIPLY(sums, a, b) _tile_dpbsud(sums, a, b)

#else

struct TilesInUse {
  TilesInUse() {}
  ~TilesInUse() {}
};

struct Tiles {
  uint8_t bytes[8][16][64];

  void zero(int number) { __builtin_memset(bytes[number], 0, sizeof bytes[number]); }

  void load(int number, const void* from, int64_t stride) {
    for (int row = 0; row < 16; ++row) {
      __builtin_memcpy(bytes[number][row], static_cast<const char*>(from) + row * stride, 64);
    }
  }

  void store(int number, void* to, int64_t stride) const {
    for (int row = 0; row < 16; ++row) {
      __builtin_memcpy(static_cast<char*>(to) + row * stride, bytes[number][row], 64);
    }
  }

  void multiply(int sums, int a, int b) {
    for (int row = 0; row < 16; ++row) {
      int32_t row_sums[16];
      __builtin_memcpy(row_sums, bytes[sums][row], 64);
      for (int i = 0; i < 16 * 64; ++i) {
        const int quad = i / 64, column = i % 64 / 4, part = i % 4;
        const int32_t left = static_cast<int8_t>(bytes[a][row][quad * 4 + part]);
        row_sums[column] += left * bytes[b][quad][column * 4 + part];
      }
      __builtin_memcpy(bytes[sums][row], row_sums, 64);
    }
  }
};

static thread_local Tiles tiles;

#define PENSTOCK_TILE_ZERO(number) tiles.zero(number)
#define PENSTOCK_TILE_LOAD(number, from, stride) tiles.load(number, from, stride)
#define PENSTOCK_TILE_STORE(number, to, stride) tiles.store(number, to, stride)
#define PENSTOCK_TILE_MULTIPLY(sums, a, b) tiles.multiply(sums, a, b)

#endif

}  // namespace penstock::PENSTOCK_ISA
