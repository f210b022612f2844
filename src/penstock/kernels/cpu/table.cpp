// Compiled once per instruction set: that set's table of kernels.
#include "kernels.h"
#include "simd.h"

#define PENSTOCK_NAME_OF(x) #x
#define PENSTOCK_NAME(x) PENSTOCK_NAME_OF(x)

namespace penstock::PENSTOCK_ISA {

const Kernels kernels = {
    .isa = PENSTOCK_NAME(PENSTOCK_ISA),
    .lanes = kLanes,
    .linear = linear,
    .norm = norm,
    .pack_linear = pack_linear,
};

}  // namespace penstock::PENSTOCK_ISA
