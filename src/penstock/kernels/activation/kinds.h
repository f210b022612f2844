#pragma once

namespace penstock {

enum class Activation : int { kNone, kSilu, kGelu, kGeluTanh, kQuickGelu, kRelu };

}  // namespace penstock
