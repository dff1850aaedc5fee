// vdpbf16ps micro kernels; cmake/kernels.cmake gives this one file -mavx512bf16. Nothing here runs before the runtime has
// seen the instruction in CPUID.
#if defined(__AVX512BF16__)
#include <immintrin.h>
#define AFFUSE_BF16_DOT(c, a, b) _mm512_dpbf16_ps(c, (__m512bh)(a), (__m512bh)(b))
#include "bf16_dot.h"

namespace affuse::gemm {
extern const Bf16Tiles* const kNativeBf16Tiles;
const Bf16Tiles* const kNativeBf16Tiles = &kDotTiles;
}  // namespace affuse::gemm
#else
#include "bf16_tiles.h"
namespace affuse::gemm {
const Bf16Tiles* const kNativeBf16Tiles = nullptr;
}  // namespace affuse::gemm
#endif
