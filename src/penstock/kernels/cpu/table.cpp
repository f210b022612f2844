// Compiled once per instruction set: that set's table of kernels.
#include "kernels.h"
#include "simd.h"

#define PENSTOCK_NAME_OF(x) #x
#define PENSTOCK_NAME(x) PENSTOCK_NAME_OF(x)

namespace penstock::PENSTOCK_ISA {

const Kernels kernels = {
    .isa = PENSTOCK_NAME(PENSTOCK_ISA),
    .lanes = kLanes,
    .argmax = argmax,
    .draw = draw,
    .embedding = embedding,
    .limit = limit,
    .linear = linear,
    .norm = norm,
    .pack_linear = pack_linear,
    .paged_attention = paged_attention,
    .rope_write_kv = rope_write_kv,
    .top_logprobs = top_logprobs,
};

}  // namespace penstock::PENSTOCK_ISA
