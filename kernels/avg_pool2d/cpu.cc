#include "avg_pool2d.h"
#include "../common/pool.h"

namespace affuse::AFFUSE_ISA {
namespace {

struct Mean {
  float share;
  AFFUSE_INLINE Vec start() const { return zero(); }
  AFFUSE_INLINE Vec meet(Vec s, Vec v) const { return s + v; }
  AFFUSE_INLINE Vec finish(Vec s) const { return s * set1(share); }
};

struct Everywhere {
  static constexpr bool reads_x = false;
  float share;
  AFFUSE_INLINE Vec chosen(const float* const*, const int64_t*, int64_t, int64_t) const { return zero(); }
  AFFUSE_INLINE Vec add(Vec sum, Vec, Vec dy, int) const { return sum + dy * set1(share); }
};

float share_of(const OpCall& call) { return 1.0f / float(call.attr[0].i * call.attr[0].i); }

}  // namespace

void avg_pool2d_forward(const OpCall& call) { pool_forward(call, Mean{share_of(call)}); }

void avg_pool2d_backward(const OpCall& call) {
  const Pool p(call);
  const int64_t size = p.a.size, step = p.x.last ? p.x.C : 1, row = p.x.W * step;
  const float share = share_of(call);
  const auto one = [&](const float*, float* dx, const float* dy, int n) {
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
  };
  pool_backward(call, p, one, Everywhere{share});
}

}  // namespace affuse::AFFUSE_ISA
