// Compiled once per instruction set: that set's table of kernels.
#include "kernels.h"
#include "simd.h"

#define PENSTOCK_NAME_OF(x) #x
#define PENSTOCK_NAME(x) PENSTOCK_NAME_OF(x)

namespace penstock::PENSTOCK_ISA {

const Kernels kernels = {
    .isa = PENSTOCK_NAME(PENSTOCK_ISA),
    .lanes = kLanes,
    .norm = norm,
    .embedding = embedding,
    .argmax = argmax,
    .draw = draw,
    .top_logprobs = top_logprobs,
};

}  // namespace penstock::PENSTOCK_ISA
