// Which instruction sets this build holds, which this processor runs, and which one is in use.
#pragma once

#include <string>
#include <vector>

#include "kernels.h"

namespace penstock {

// Names, slowest first, of the instruction sets that were built and that this processor runs.
std::vector<std::string> usable_isas();

// Use an instruction set from now on. Throws std::invalid_argument if it is not usable.
void use_isa(const std::string& name);

// The kernels in use: the fastest usable ones, unless use_isa said otherwise.
// Throws std::runtime_error on a processor that none was built for.
const Kernels& kernels();

}  // namespace penstock
