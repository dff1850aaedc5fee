#include <float.h>
#include <math.h>

#include "uncertainty_loss.h"

namespace affuse::AFFUSE_ISA {
namespace {

using In = UncertaintyIn;
using Form = UncertaintyForm;

// Four numbers: no vectors here. float64 throughout, because exp(-s) leaves float32's range first.
double limit(double x, double most) { return x > most ? most : x < -most ? -most : x; }

struct Task {
  double term, dL, ds;
};

Task task_of(const OpCall& call, bool emotion) {
  const int form = int(call.attr[0].i);
  const Tensor& count = call.in[emotion ? In::count_e : In::count_v];
  if (count.data && count.i32()[0] == 0) return {0, 0, 0};
  const double L = double(call.in[emotion ? In::ce : In::mse].f32()[0]);
  if (form == Form::sum) return {L, 1, 0};
  const double s = double(call.in[emotion ? In::s_e : In::s_v].f32()[0]);
  const double w = limit((form == Form::kendall && emotion ? 1.0 : 0.5) * ::exp(-s), DBL_MAX);
  const double weighted = L == 0 ? 0 : limit(w * L, DBL_MAX);
  if (form == Form::log1p) {
    const double softplus = (s > 0 ? s : 0) + ::log1p(::exp(-::fabs(s)));
    return {weighted + softplus, w, 1 / (1 + ::exp(-s)) - weighted};
  }
  return {weighted + s / 2, w, 0.5 - weighted};
}

}  // namespace

void uncertainty_loss_forward(const OpCall& call) {
  call.out[0].f32()[0] = float(limit(task_of(call, true).term + task_of(call, false).term, double(FLT_MAX)));
}

void uncertainty_loss_backward(const OpCall& call) {
  const Task e = task_of(call, true), v = task_of(call, false);
  const double dloss = double(call.in[In::dloss].f32()[0]), gradients[4] = {e.dL, v.dL, e.ds, v.ds};
  for (int i = 0; i < 4; ++i)
    if (call.out[i].data) call.out[i].f32()[0] = dloss == 0 ? 0.0f : float(limit(dloss * gradients[i], double(FLT_MAX)));
}

}  // namespace affuse::AFFUSE_ISA
