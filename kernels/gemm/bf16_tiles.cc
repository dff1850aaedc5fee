#include "bf16_tiles.h"

namespace affuse::gemm {
const Bf16Tiles* bf16_tiles = nullptr;
}  // namespace affuse::gemm
