// Micro kernels of kernels/gemm/bf16_dot.h with vdpbf16ps replaced by its description, for processors with AVX-512 but
// without AVX-512-BF16. Linked beside replay.cc and the library it takes the place of the native ones, so that layout,
// tiles, edges and the loaders of the native path run. Not part of the product.
//
// Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, VDPBF16PS: per lane, the product of the upper
// elements is added first, then that of the lower ones; round to nearest even whatever MXCSR says, denormal operands count
// as zeros and denormal results become zeros. (Products of two bf16 are exact in float32, so fused or not is the same.)
#include <immintrin.h>

namespace {

inline __m512 flushed(__m512 x) {
  const __mmask16 normal = _mm512_cmp_ps_mask(_mm512_abs_ps(x), _mm512_set1_ps(0x1p-126f), _CMP_NLT_UQ);
  return _mm512_castsi512_ps(_mm512_mask_and_epi32(_mm512_castps_si512(x), __mmask16(~normal), _mm512_castps_si512(x),
                                                   _mm512_set1_epi32(int(0x80000000u))));
}
inline __m512 upper(__m512i pair) {
  return flushed(_mm512_castsi512_ps(_mm512_and_si512(pair, _mm512_set1_epi32(int(0xffff0000u)))));
}
inline __m512 lower(__m512i pair) { return flushed(_mm512_castsi512_ps(_mm512_slli_epi32(pair, 16))); }

inline __m512 dot(__m512 c, __m512i a, __m512i b) {
  c = flushed(_mm512_fmadd_ps(upper(a), upper(b), flushed(c)));
  return flushed(_mm512_fmadd_ps(lower(a), lower(b), c));
}

}  // namespace

#define AFFUSE_BF16_DOT(c, a, b) dot(c, a, b)
#include "kernels/gemm/bf16_dot.h"

namespace {
__attribute__((constructor)) void install() { affuse::gemm::bf16_tiles = &affuse::gemm::kDotTiles; }
}  // namespace
