#pragma once

#include <cstdint>

#include "../cpu/declare.h"

namespace penstock {

// Rows of a table, widened to float32.
struct EmbeddingArgs {
  const int64_t* row_ids;  // [tokens], each below the table's number of rows
  const void* table;       // [rows, width]
  float* out;              // [tokens, width]
  int64_t tokens, width;
  int kind;  // of the table's elements: 0 float32, 1 bfloat16, 2 float16
};

PENSTOCK_FOR_EACH_ISA(void embedding(const EmbeddingArgs& args))

}  // namespace penstock
