#include "avg_pool2d.h"
#include "../common/pool.h"

namespace affuse::AFFUSE_ISA {
namespace {

struct Mean {
  float share;
  AFFUSE_INLINE float first() const { return 0.0f; }
  AFFUSE_INLINE Vec start() const { return zero(); }
  AFFUSE_INLINE Vec meet(Vec s, Vec v) const { return s + v; }
  AFFUSE_INLINE float meet(float s, float v) const { return s + v; }
  AFFUSE_INLINE Vec finish(Vec s) const { return s * set1(share); }
  AFFUSE_INLINE float finish(float s) const { return s * share; }
};

float share_of(const OpCall& call) { return 1.0f / float(call.attr[0].i * call.attr[0].i); }

}  // namespace

void avg_pool2d_forward(const OpCall& call) { pool_forward(call, Mean{share_of(call)}); }

void avg_pool2d_backward(const OpCall& call) {
  const Pool p(call);
  const int64_t size = p.a.size, step = p.x.last ? p.x.C : 1, row = p.x.W * step;
  const float share = share_of(call);
  pool_backward(call, p, [&](const float*, float* dx, const float* dy, int n) {
    if (n == 0) {
      for (int64_t i = 0; i < size; ++i)
        for (int64_t j = 0; j < size; ++j) dx[i * row + j] += *dy * share;
      return;
    }
    const Vec g = get(dy, n) * set1(share);
    for (int64_t i = 0; i < size; ++i)
      for (int64_t j = 0; j < size; ++j) {
        float* d = dx + i * row + j * step;
        put(d, get(d, n) + g, n);
      }
  });
}

}  // namespace affuse::AFFUSE_ISA
