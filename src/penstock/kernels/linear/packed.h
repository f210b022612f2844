// A packed weight: the columns of the product in panels, each of two vectors of outputs.
//
// A panel holds, for all inputs in order, what its 2 * lanes outputs multiply them with. In a gated
// linear the first vector of a panel are gates and the second the values they gate. Outputs beyond
// the last are zeros, and so are inputs beyond the last. By scheme, one panel is:
//   kFloat32   [in][2 * lanes] float
//   kBfloat16  [in][2 * lanes] bfloat16
//   kInt8      [in / n][2 * lanes][n], n = 4 where VNNI multiplies (as value + 128, unsigned) and
//              n = 2 elsewhere (signed)
//   kInt4      for every group: [group / 4][lanes][4] bytes, whose lower halves belong to the first
//              vector and whose upper halves to the second (as value + 8, unsigned), then
//              [2 * lanes] scales in bfloat16
#pragma once

#include <cstddef>
#include <cstdint>

namespace penstock {

enum class Scheme : int { kFloat32, kBfloat16, kInt8, kInt4 };

struct PackedLinear {
  Scheme scheme;
  bool gated;
  int64_t out, in;  // of the matrix; a gated linear's out counts gates and values
  int64_t group;    // inputs that share a scale in kInt4
  uint8_t* panels;
  float* scales;  // kInt8: [num_panels][2 * lanes], else null
  float* bias;    // [num_panels][2 * lanes], or null

  int64_t num_outputs() const { return gated ? out / 2 : out; }

  int64_t num_panels(int lanes) const {
    const int64_t width = gated ? lanes : 2 * lanes;
    return (num_outputs() + width - 1) / width;
  }

  // Of int8 a whole row of an AMX tile.
  int64_t padded_in() const {
    const int64_t step = scheme == Scheme::kInt4 ? group : scheme == Scheme::kInt8 ? 64 : 1;
    return (in + step - 1) / step * step;
  }

  int64_t num_groups() const { return padded_in() / group; }

  size_t panel_bytes(int lanes) const {
    const size_t width = 2 * lanes, depth = padded_in();
    switch (scheme) {
      case Scheme::kFloat32:
        return depth * width * 4;
      case Scheme::kBfloat16:
        return depth * width * 2;
      case Scheme::kInt8:
        return depth * width;
      case Scheme::kInt4:
        return (depth / 2 + num_groups() * 2) * width;
    }
    return 0;
  }

  // Which row of the matrix is the output `lane` of vector 0 or 1 of a panel; out where there is
  // none.
  int64_t row_of(int64_t panel, int vector, int lane, int lanes) const {
    const int64_t column = gated ? panel * lanes + lane : (panel * 2 + vector) * lanes + lane;
    if (column >= num_outputs()) return out;
    return gated ? vector * num_outputs() + column : column;
  }
};

}  // namespace penstock
