// The operators of this build.
#pragma once
#include <span>
#include <string_view>

#include "kernels/common/op.h"

namespace affuse {

std::span<const OpDef* const> operators();
// Null when there is none of that name.
const OpDef* find_operator(std::string_view name);

}  // namespace affuse
