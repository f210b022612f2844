// The table of kernels: one instance per instruction set, filled by table.cpp.
//
// A kernel is a plain function of a struct of addresses and sizes. Its struct and its declaration
// are in the header beside it; whoever adds one adds a line here and a line in table.cpp.
#pragma once

#include "../embedding/kernel.h"
#include "../limits/kernel.h"
#include "../linear/kernel.h"
#include "../norm/kernel.h"
#include "../paged_attention/kernel.h"
#include "../rope_write_kv/kernel.h"
#include "../sampling/kernel.h"
#include "declare.h"

namespace penstock {

struct Kernels {
  const char* isa;
  int lanes;  // floats in a vector
  void (*argmax)(const ArgmaxArgs&);
  void (*draw)(const DrawArgs&);
  void (*embedding)(const EmbeddingArgs&);
  void (*limit)(const LimitArgs&);
  void (*linear)(const LinearArgs&);
  void (*norm)(const NormArgs&);
  void (*pack_linear)(const PackArgs&);
  void (*paged_attention)(const PagedAttentionArgs&);
  void (*rope_write_kv)(const RopeWriteKVArgs&);
  void (*top_logprobs)(const TopLogprobsArgs&);
};

PENSTOCK_FOR_EACH_ISA(extern const Kernels kernels)

}  // namespace penstock
