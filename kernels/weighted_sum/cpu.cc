// weighted_sum for one ISA level: one task per sample, every value of x read once.
#include "../common/simd.h"
#include "weighted_sum.h"

namespace affuse::AFFUSE_ISA {
namespace {

constexpr int kUnroll = 4;  // vectors of y kept in registers while j runs

// y[0, n) = Σ_j w[j] x[j * stride + 0 … n), n <= kUnroll * kLanes; full: n is exactly that.
template <bool full>
AFFUSE_INLINE void sum_columns(const float* x, int64_t stride, const float* w, int64_t J, float* y, int64_t n) {
  Vec acc[kUnroll];
  for (int i = 0; i < kUnroll; ++i) acc[i] = zero();
  for (int64_t j = 0; j < J; ++j, x += stride) {
    const Vec weight = set1(w[j]);
    for (int i = 0; i < kUnroll; ++i) {
      const int64_t left = n - int64_t(i) * kLanes;
      if (full || left >= kLanes)
        acc[i] = fma(weight, load(x + i * kLanes), acc[i]);
      else if (left > 0)
        acc[i] = fma(weight, load(x + i * kLanes, int(left)), acc[i]);
    }
  }
  for (int i = 0; i < kUnroll; ++i) {
    const int64_t left = n - int64_t(i) * kLanes;
    if (full || left >= kLanes)
      store(y + i * kLanes, acc[i]);
    else if (left > 0)
      store(y + i * kLanes, acc[i], int(left));
  }
}

// dx = w dy and the return value dy · x over D elements; either may be skipped.
float scale_and_dot(const float* x, const float* dy, float w, float* dx, bool want_dot, int64_t D) {
  Vec dot[2] = {zero(), zero()};
  const Vec weight = set1(w);
  int64_t d = 0;
  for (; d + 2 * kLanes <= D; d += 2 * kLanes)
    for (int i = 0; i < 2; ++i) {
      const Vec g = load(dy + d + i * kLanes);
      if (dx) store(dx + d + i * kLanes, weight * g);
      if (want_dot) dot[i] = fma(g, load(x + d + i * kLanes), dot[i]);
    }
  for (; d < D; d += kLanes) {
    const int n = D - d < kLanes ? int(D - d) : kLanes;
    const Vec g = load(dy + d, n);
    if (dx) store(dx + d, weight * g, n);
    if (want_dot) dot[0] = fma(g, load(x + d, n), dot[0]);
  }
  return sum(dot[0] + dot[1]);
}

}  // namespace

void weighted_sum_forward(const OpCall& call) {
  const Tensor &x = call.in[kWeightedSumX], &w = call.in[kWeightedSumW], &y = call.out[0];
  if (!y.given()) return;
  const int64_t B = x.dim[0], J = x.dim[1], D = x.dim[2];
  parallel(*call.workers, B, [&](int64_t b, int) {
    constexpr int64_t block = kUnroll * kLanes;
    const float *row = x.f32() + b * J * D, *weight = w.f32() + b * J;
    float* out = y.f32() + b * D;
    int64_t d = 0;
    for (; d + block <= D; d += block) sum_columns<true>(row + d, D, weight, J, out + d, block);
    if (d < D) sum_columns<false>(row + d, D, weight, J, out + d, D - d);
  });
}

void weighted_sum_backward(const OpCall& call) {
  const Tensor &x = call.in[kWeightedSumX], &w = call.in[kWeightedSumW], &dy = call.in[kWeightedSumDy];
  const Tensor &dx = call.out[kWeightedSumDx], &dw = call.out[kWeightedSumDw];
  const int64_t B = x.dim[0], J = x.dim[1], D = x.dim[2];
  if (!dx.given() && !dw.given()) return;
  parallel(*call.workers, B, [&](int64_t b, int) {
    for (int64_t i = b * J; i < (b + 1) * J; ++i) {
      const float dot = scale_and_dot(x.f32() + i * D, dy.f32() + b * D, w.f32()[i],
                                      dx.given() ? dx.f32() + i * D : nullptr, dw.given(), D);
      if (dw.given()) dw.f32()[i] = dot;
    }
  });
}

}  // namespace affuse::AFFUSE_ISA
