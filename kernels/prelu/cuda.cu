// prelu on a device. Forward: element-wise. Backward: the walk that adds up the slope's gradient chunk by chunk (sums.h)
// writes dx on its way.
#include "../common/cuda/sums.h"
#include "prelu.h"

namespace affuse::cuda {
namespace {

struct Value {
  const float *x, *slope;
  float* y;
  template <int N>
  AFFUSE_DEVICE void operator()(int64_t i) const {
    const float a = *slope;
    put(y + i, get<N>(x + i).map([a](float v) { return v > 0.0f ? v : a * v; }));
  }
};

struct Slopes {
  using Sum = float;
  static constexpr int kSums = 1;
  const float *x, *slope, *dy;
  float *dx, *dslope;  // either may be null
  template <int N>
  AFFUSE_DEVICE void add(int64_t i, float (&s)[1]) const {
    const float a = *slope;
    const Pack<N> v = get<N>(x + i), g = get<N>(dy + i);
    if (dx) put(dx + i, map2(v, g, [a](float p, float d) { return p > 0.0f ? d : a * d; }));
    s[0] += sum_of(map2(v, g, [](float p, float d) { return p > 0.0f ? 0.0f : p * d; }));
  }
  AFFUSE_DEVICE void finish(const double (&total)[1]) const {
    if (dslope) *dslope = float(total[0]);
  }
};

void forward(const OpCall& call, Queue& queue) {
  const float* x = call.in[0].f32();
  float* y = call.out[0].f32();
  each(queue, "prelu", call.in[0].count(), aligned(x) && aligned(y), Value{x, call.in[1].f32(), y});
}

void backward(const OpCall& call, Queue& queue) {
  const float *x = call.in[0].f32(), *dy = call.in[2].f32();
  float *dx = call.out[0].f32(), *dslope = call.out[1].f32();
  const bool wide = aligned(x) && aligned(dy) && aligned(dx);
  long_sums(queue, "prelu.backward", call.in[0].count(), wide, Slopes{x, call.in[1].f32(), dy, dx, dslope}, call.workspace);
}
size_t workspace(const OpShape& s, int) { return long_sums_workspace<Slopes>(s.in[0].count()); }

}  // namespace

AFFUSE_DEVICE_OP(kPrelu, "prelu", &forward)
AFFUSE_DEVICE_OP(kPreluBackward, "prelu.backward", &backward, &workspace)

}  // namespace affuse::cuda
