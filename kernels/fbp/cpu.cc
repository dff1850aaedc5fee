// FBP forward; the work is in pass.h.
#include "pass.h"

namespace affuse::AFFUSE_ISA {
void fbp_forward(const OpCall& call) {
  const FbpSizes z = fbp_sizes(call.in, call.attr);
  if (z.B == 0) return;
  const int64_t normalize = call.attr[FbpAttr::normalize].i;
  const bool power = normalize == FbpNormalize::power || normalize == FbpNormalize::power_l2;
  const bool l2 = normalize == FbpNormalize::l2 || normalize == FbpNormalize::power_l2;
  float *out = call.out[FbpOut::z].f32(), *s = call.out[FbpOut::s].f32();
  fbp_run_forward(call, fbp_pass_of(call, z, static_cast<float*>(call.workspace)), power, out, s, call.out[FbpOut::hu].f32(),
                  call.out[FbpOut::hv].f32());
  if (!out || !l2) return;
  const double eps2 = call.attr[FbpAttr::eps2].f;
  fbp_each_scope(call, z, [&](int64_t from, int64_t count) {
    float* r = out + from;
    const double sum = long_sum(count, [&](int64_t i, int n) {
      const Vec x = get(r + i, n);
      return x * x;
    });
    const Vec scale = set1(float(1.0 / __builtin_sqrt(sum + eps2)));
    for_lanes(count, [&](int64_t i, int n) { put(r + i, get(r + i, n) * scale, n); });
  });
}

void fbp_pack(const OpShape& shape, int input, const void* data, void* packed, const Workers& workers) {
  const FbpSizes z = fbp_sizes(shape.in, shape.attr);
  const int64_t K = input == FbpIn::U ? z.m : z.n, E = input == FbpIn::U ? z.em : z.en;
  const int64_t vectors = gemm::ceil_div(z.o, kLanes) * z.k;
  const auto* const W = static_cast<const float*>(data);
  parallel(workers, gemm::ceil_div(vectors, gemm::kTileVecs), [&](int64_t panel, int) {
    const int64_t first = panel * gemm::kTileVecs;
    const int vecs = int(gemm::min64(gemm::kTileVecs, vectors - first));
    float* const dst = static_cast<float*>(packed) + fbp_at(z, first * kLanes * E);
    if (z.bf16) fbp_pack_bf16(W, z, K, 0, E, first, vecs, dst);
    else fbp_pack_panel(W, z, K, 0, K, first, vecs, dst);
  });
}

}  // namespace affuse::AFFUSE_ISA
