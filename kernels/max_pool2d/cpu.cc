#include "../common/pool.h"
#include "max_pool2d.h"

namespace affuse::AFFUSE_ISA {
namespace {

// max() gives its second operand where either is NaN: a NaN so far stays, a NaN that comes has to be let in.
struct Largest {
  AFFUSE_INLINE Vec start() const { return set1(-__builtin_inff()); }
  AFFUSE_INLINE Vec meet(Vec m, Vec v) const { return select(is_nan(v), v, max(v, m)); }
  AFFUSE_INLINE Vec finish(Vec m) const { return m; }
};

// A window's next element v: the largest so far and its number. The first of equal ones stays, a NaN takes the place.
AFFUSE_INLINE void larger(Vec& m, Vec& best, Vec v, Vec number) {
  const Mask nan = is_nan(v);
  best = select(nan, number, select(lt(m, v), number, best));
  m = select(nan, v, max(v, m));
}

struct PlaceOfLargest {
  static constexpr bool reads_x = true;
  AFFUSE_INLINE Vec chosen(const float* const* x, const int64_t* at, int64_t w, int64_t size) const {
    Vec m = set1(-__builtin_inff()), best = zero(), number = zero();
    for (int64_t i = 0; i < size; ++i)
      for (int64_t j = 0; j < size; ++j, number += set1(1.0f)) larger(m, best, load(x[i] + at[j] + w), number);
    return best;
  }
  AFFUSE_INLINE Vec add(Vec sum, Vec chosen, Vec dy, int number) const {
    return sum + keep(eq(chosen, set1(float(number))), dy);
  }
};

}  // namespace

void max_pool2d_forward(const OpCall& call) { pool_forward(call, Largest{}); }

void max_pool2d_backward(const OpCall& call) {
  const Pool p(call);
  const int64_t size = p.a.size, step = p.x.last ? p.x.C : 1, row = p.x.W * step;
  // Rows and columns that a window does not share with the one before.
  const int64_t fresh = p.a.stride < size ? p.a.stride : size;
  const auto one = [&](const float* x, float* dx, const float* dy, int n) {
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
      for (int64_t j = 0; j < size; ++j)  // size <= 1024: the number of an element is exact as a float
        larger(m, best, get(x + i * row + j * step, n), set1(float(i * size + j)));
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
  };
  pool_backward(call, p, one, PlaceOfLargest{});
}

}  // namespace affuse::AFFUSE_ISA
