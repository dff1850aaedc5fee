// masked_mse on a device: sums over chunks (sums.h). Backward: the targets that are there are counted first, which reads the
// targets twice; the factor of all differences stays in device memory.
#include "../common/cuda/sums.h"
#include "masked_mse.h"

namespace affuse::cuda {
namespace {

AFFUSE_DEVICE bool there(float target) { return target == target; }

struct Errors {
  using Sum = float;
  static constexpr int kSums = 2;  // squares, targets that are there
  const float *prediction, *target;
  float* loss;
  int32_t* count;
  template <int N>
  AFFUSE_DEVICE void add(int64_t i, float (&s)[2]) const {
    const Pack<N> y = get<N>(target + i);
    const Pack<N> d = map2(get<N>(prediction + i), y, [](float p, float t) { return there(t) ? p - t : 0.0f; });
    s[0] = dot_of(d, d, s[0]);
    s[1] += sum_of(y.map([](float t) { return there(t) ? 1.0f : 0.0f; }));
  }
  AFFUSE_DEVICE void finish(const double (&total)[2]) const {
    if (loss) *loss = total[1] > 0 ? float(total[0] / total[1]) : 0.0f;
    if (count) *count = int32_t(total[1]);
  }
};

struct Present {
  using Sum = float;
  static constexpr int kSums = 1;
  const float *target, *dloss;
  float* factor;  // 4 dloss / n, of half the differences, so that a difference of two huge numbers stays finite
  template <int N>
  AFFUSE_DEVICE void add(int64_t i, float (&s)[1]) const {
    s[0] += sum_of(get<N>(target + i).map([](float t) { return there(t) ? 1.0f : 0.0f; }));
  }
  AFFUSE_DEVICE void finish(const double (&total)[1]) const {
    *factor = total[0] > 0 ? float(4.0 * double(*dloss) / total[0]) : 0.0f;
  }
};

struct Gradients {
  const float *prediction, *target, *factor;
  float *dprediction, *dtarget;
  template <int N>
  AFFUSE_DEVICE void operator()(int64_t i) const {
    const float f = *factor;
    const Pack<N> d = map2(get<N>(prediction + i), get<N>(target + i), [f](float p, float t) {
      return there(t) ? fmaf(-0.5f, t, 0.5f * p) * f : 0.0f;
    });
    if (dprediction) put(dprediction + i, d);
    if (dtarget) put(dtarget + i, d.map([](float v) { return -v; }));
  }
};

void forward(const OpCall& call, Queue& queue) {
  const float *prediction = call.in[0].f32(), *target = call.in[1].f32();
  long_sums(queue, "masked_mse", call.in[0].count(), aligned(prediction) && aligned(target),
            Errors{prediction, target, call.out[0].f32(), call.out[1].i32()}, call.workspace);
}
size_t workspace(const OpShape& s, int) { return long_sums_workspace<Errors>(s.in[0].count()); }

void backward(const OpCall& call, Queue& queue) {
  const float *prediction = call.in[0].f32(), *target = call.in[1].f32();
  float *dprediction = call.out[0].f32(), *dtarget = call.out[1].f32();
  float* const factor = static_cast<float*>(call.workspace);
  const int64_t n = call.in[0].count();
  if (n == 0) return;
  long_sums(queue, "masked_mse.backward count", n, aligned(target), Present{target, call.in[2].f32(), factor}, factor + 4);
  const bool wide = aligned(prediction) && aligned(target) && aligned(dprediction) && aligned(dtarget);
  each(queue, "masked_mse.backward", n, wide, Gradients{prediction, target, factor, dprediction, dtarget});
}
size_t backward_workspace(const OpShape& s, int) {
  return 4 * sizeof(float) + long_sums_workspace<Present>(s.in[0].count());
}

}  // namespace

AFFUSE_DEVICE_OP(kMaskedMse, "masked_mse", &forward, &workspace)
AFFUSE_DEVICE_OP(kMaskedMseBackward, "masked_mse.backward", &backward, &backward_workspace)

}  // namespace affuse::cuda
