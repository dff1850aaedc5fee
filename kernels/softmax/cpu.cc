#include "../common/math.h"
#include "../common/stream.h"
#include "softmax.h"

namespace affuse::AFFUSE_ISA {
namespace {

void softmax_row(const float* x, float* y, int64_t C) {
  const Vec m = set1(max_of(x, C));
  Many<Vec> sums;  // of whole vectors
  for (Vec& s : sums.part) s = zero();
  float rest = 0;
  for_row(C, x + row_ahead(C), nullptr, y + kRowAhead, [&](int64_t i, auto n) AFFUSE_INLINE_BODY {
    const auto e = exp_negative(get(x + i, n) - m);
    put(y + i, e, n);
    if constexpr (__is_same(decltype(n), WholeMany)) sums = sums + e;
    else if (n == kLanes) sums.part[0] += e;
    else rest = sum(select(first_lanes(n), e, zero()));
  });
  for (int k = 1; k < kMany; ++k) sums.part[0] += sums.part[k];
  const Vec scale = set1(1.0f / (sum(sums.part[0]) + rest));
  for_many(C, [&](int64_t i, auto n) AFFUSE_INLINE_BODY { put(y + i, get(y + i, n) * scale, n); });
}

template <class F>
void each_row(const OpCall& call, F&& body) {
  const Tensor& x = call.in[0];
  const int64_t C = x.dim[x.rank - 1], R = x.count() / C, step = C >= 8192 ? 1 : 8192 / C;
  parallel(*call.workers, (R + step - 1) / step, [&](int64_t task, int) {
    const int64_t end = (task + 1) * step < R ? (task + 1) * step : R;
    for (int64_t r = task * step; r < end; ++r) body(r * C, C);
  });
}

}  // namespace

void softmax_forward(const OpCall& call) {
  const float* x = call.in[0].f32();
  float* y = call.out[0].f32();
  each_row(call, [&](int64_t at, int64_t C) { softmax_row(x + at, y + at, C); });
}

void softmax_backward(const OpCall& call) {
  const float *x = call.in[0].f32(), *saved = call.in[1].f32(), *dy0 = call.in[2].f32();
  float* dx0 = call.out[0].f32();
  each_row(call, [&](int64_t at, int64_t C) {
    const float* dy = dy0 + at;
    float* dx = dx0 + at;
    const float* y = saved ? saved + at : dx;
    if (!saved) softmax_row(x + at, dx, C);  // y lives in dx until it is overwritten below
    const Vec dot = set1(dot_of(dy, y, C));
    for_row(C, saved ? y + C : x + at + C, dy + C, dx + kRowAhead,
            [&](int64_t i, auto n) AFFUSE_INLINE_BODY { put(dx + i, get(y + i, n) * (get(dy + i, n) - dot), n); });
  });
}

}  // namespace affuse::AFFUSE_ISA
