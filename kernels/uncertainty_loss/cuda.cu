// uncertainty_loss on a device: one thread, float64, no host between the losses and their gradients. Adds up a few numbers;
// what it costs is a launch.
#include <cfloat>

#include "../common/cuda/launch.h"
#include "uncertainty_loss.h"

namespace affuse::cuda {
namespace {

using In = UncertaintyIn;
using Form = UncertaintyForm;

struct Given {
  int form;
  const float *loss_e, *loss_v, *s_e, *s_v;
  const int32_t *count_e, *count_v;  // may be null
  const float* dloss;                // backward
};
struct Wanted {
  float *a, *b, *c, *d;
};

AFFUSE_DEVICE double limit(double x, double most) { return x > most ? most : x < -most ? -most : x; }

struct Task {
  double term, dL, ds;
};

AFFUSE_DEVICE Task task_of(int form, double factor, const float* loss, const float* log_variance, const int32_t* count) {
  if (count && *count == 0) return {0, 0, 0};
  const double L = double(*loss);
  if (form == Form::sum) return {L, 1, 0};
  const double s = double(*log_variance), w = limit(factor * exp(-s), DBL_MAX);
  const double weighted = L == 0 ? 0 : limit(w * L, DBL_MAX);
  if (form == Form::log1p) {
    const double softplus = (s > 0 ? s : 0) + log1p(exp(-fabs(s)));
    return {weighted + softplus, w, 1 / (1 + exp(-s)) - weighted};
  }
  return {weighted + s / 2, w, 0.5 - weighted};
}
AFFUSE_DEVICE Task emotion_of(const Given& g) {
  return task_of(g.form, g.form == Form::kendall ? 1.0 : 0.5, g.loss_e, g.s_e, g.count_e);
}
AFFUSE_DEVICE Task valence_of(const Given& g) { return task_of(g.form, 0.5, g.loss_v, g.s_v, g.count_v); }

AFFUSE_GLOBAL(32, 1) add_tasks(Given g, float* loss) {
  if (threadIdx.x == 0) *loss = float(limit(emotion_of(g).term + valence_of(g).term, double(FLT_MAX)));
}
AFFUSE_GLOBAL(32, 1) task_gradients(Given g, Wanted out) {
  if (threadIdx.x != 0) return;
  const Task e = emotion_of(g), v = valence_of(g);
  const double dloss = double(*g.dloss);
  const auto write = [dloss](float* to, double slope) {
    if (to) *to = dloss == 0 ? 0.0f : float(limit(dloss * slope, double(FLT_MAX)));
  };
  write(out.a, e.dL), write(out.b, v.dL), write(out.c, e.ds), write(out.d, v.ds);
}

Given given(const OpCall& call, const float* dloss) {
  const Tensor* in = call.in;
  return {int(call.attr[0].i), in[In::ce].f32(), in[In::mse].f32(), in[In::s_e].f32(), in[In::s_v].f32(),
          in[In::count_e].i32(), in[In::count_v].i32(), dloss};
}
void forward(const OpCall& call, Queue& queue) {
  AFFUSE_LAUNCH(add_tasks, queue, Grid{}, 32, 0, given(call, nullptr), call.out[0].f32());
}
void backward(const OpCall& call, Queue& queue) {
  const Tensor* out = call.out;
  AFFUSE_LAUNCH(task_gradients, queue, Grid{}, 32, 0, given(call, call.in[In::dloss].f32()),
                Wanted{out[0].f32(), out[1].f32(), out[2].f32(), out[3].f32()});
}

}  // namespace

AFFUSE_DEVICE_OP(kUncertaintyLoss, "uncertainty_loss", &forward)
AFFUSE_DEVICE_OP(kUncertaintyLossBackward, "uncertainty_loss.backward", &backward)

}  // namespace affuse::cuda
