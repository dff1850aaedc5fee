#include "../common/pool.h"
#include "max_pool2d.h"

namespace affuse::AFFUSE_ISA {
namespace {

// max() gives its second operand where either is NaN: a NaN so far stays, a NaN that comes has to be let in.
struct Largest {
  AFFUSE_INLINE float first() const { return -__builtin_inff(); }
  AFFUSE_INLINE Vec start() const { return set1(first()); }
  AFFUSE_INLINE Vec meet(Vec m, Vec v) const { return select(is_nan(v), v, max(v, m)); }
  AFFUSE_INLINE float meet(float m, float v) const { return v > m || v != v ? v : m; }
  AFFUSE_INLINE Vec finish(Vec m) const { return m; }
  AFFUSE_INLINE float finish(float m) const { return m; }
};

}  // namespace

void max_pool2d_forward(const OpCall& call) { pool_forward(call, Largest{}); }

void max_pool2d_backward(const OpCall& call) {
  const Pool p(call);
  const int64_t size = p.a.size, step = p.x.last ? p.x.C : 1, row = p.x.W * step;
  // Rows and columns that a window does not share with the one before.
  const int64_t fresh = p.a.stride < size ? p.a.stride : size;
  pool_backward(call, p, [&](const float* x, float* dx, const float* dy, int n) {
    if (n == 0) {
      float m = -__builtin_inff();
      int64_t best = 0;
      for (int64_t i = 0; i < size; ++i)
        for (int64_t j = 0; j < size; ++j)
          if (const float v = x[i * row + j]; v > m || v != v) m = v, best = i * row + j;
      dx[best] += *dy;
      return;
    }
    Vec m = set1(-__builtin_inff()), best = zero();
    for (int64_t i = 0; i < size; ++i)
      for (int64_t j = 0; j < size; ++j) {  // size <= 1024: the number of an element is exact as a float
        const Vec v = get(x + i * row + j * step, n), number = set1(float(i * size + j));
        const Mask nan = is_nan(v);
        best = select(nan, number, select(lt(m, v), number, best));
        m = select(nan, v, max(v, m));
      }
    for (int64_t i = 0; i < fresh; ++i)
      for (int64_t j = 0; j < fresh; ++j) {
        const int64_t ahead = (size + i) * row + j * step;
        prefetch_l2(x + ahead);
        __builtin_prefetch(dx + ahead, 1, 2);
      }
    const Vec g = get(dy, n);
    for (int64_t i = 0; i < size; ++i)
      for (int64_t j = 0; j < size; ++j) {
        float* d = dx + i * row + j * step;
        put(d, get(d, n) + keep(eq(best, set1(float(i * size + j))), g), n);
      }
  });
}

}  // namespace affuse::AFFUSE_ISA
