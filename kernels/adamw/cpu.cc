#include <math.h>

#include "../common/reduce.h"
#include "adamw.h"

namespace affuse::AFFUSE_ISA {
namespace {

constexpr int64_t kChunk = 8192;  // elements per task

template <bool decoupled>
void update(const OpCall& call) {
  const int64_t N = call.in[0].count();
  const float *p0 = call.in[0].f32(), *g0 = call.in[1].f32(), *m0 = call.in[2].f32(), *v0 = call.in[3].f32();
  float *p1 = call.out[0].f32(), *m1 = call.out[1].f32(), *v1 = call.out[2].f32();
  const double lr = call.attr[AdamAttr::lr].f, b1 = call.attr[AdamAttr::beta1].f, b2 = call.attr[AdamAttr::beta2].f;
  const double decay = call.attr[AdamAttr::weight_decay].f, step = double(call.attr[AdamAttr::step].i);
  const Vec beta1 = set1(float(b1)), beta2 = set1(float(b2)), rest1 = set1(float(1 - b1)), rest2 = set1(float(1 - b2));
  const Vec eps = set1(float(call.attr[AdamAttr::eps].f)), rate = set1(float(lr / (1 - ::pow(b1, step))));
  const Vec root = set1(float(1 / ::sqrt(1 - ::pow(b2, step))));
  const Vec weight_decay = set1(float(decay)), keep_p = set1(float(1 - lr * decay));
  parallel(*call.workers, (N + kChunk - 1) / kChunk, [&](int64_t task, int) {
    const int64_t from = task * kChunk, count = N - from < kChunk ? N - from : kChunk;
    for_lanes(count, [&](int64_t k, int n) {
      const int64_t i = from + k;
      Vec p = get(p0 + i, n), g = get(g0 + i, n);
      if (decoupled) p *= keep_p;
      else g = fma(weight_decay, p, g);
      const Vec m = fma(beta1, get(m0 + i, n), rest1 * g), v = fma(beta2, get(v0 + i, n), rest2 * g * g);
      p = fnma(rate, m / fma(sqrt(v), root, eps), p);
      if (p1) put(p1 + i, p, n);
      if (m1) put(m1 + i, m, n);
      if (v1) put(v1 + i, v, n);
    });
  });
}

}  // namespace

void adam_update(const OpCall& call) { update<false>(call); }
void adamw_update(const OpCall& call) { update<true>(call); }

}  // namespace affuse::AFFUSE_ISA
