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
  fbp_pack_factors(static_cast<const float*>(data), z, input == FbpIn::U ? z.m : z.n, static_cast<float*>(packed), workers);
}

}  // namespace affuse::AFFUSE_ISA
