#include <cfloat>
#include <cmath>

#include "uncertainty_loss.h"

namespace affuse {
namespace {

using In = UncertaintyIn;
using Form = UncertaintyForm;

double saturate(double x) { return x > DBL_MAX ? DBL_MAX : x < -DBL_MAX ? -DBL_MAX : x; }

struct Task {
  int form;
  double factor;  // 1 for kendall's cross-entropy, else 1/2
  double L, s;
  bool there;

  Task(const OpCall& call, bool emotion) {
    form = int(call.attr[0].i);
    factor = form == Form::kendall && emotion ? 1 : 0.5;
    L = call.in[emotion ? In::ce : In::mse].f64()[0];
    s = call.in[emotion ? In::s_e : In::s_v].f64()[0];
    const Tensor& count = call.in[emotion ? In::count_e : In::count_v];
    there = !count.data || count.i32()[0] != 0;
  }
  double weight() const { return saturate(factor * std::exp(-s)); }
  double weighted() const { return L == 0 ? 0 : saturate(weight() * L); }
  double term() const {
    if (!there) return 0;
    if (form == Form::sum) return L;
    return weighted() + (form == Form::log1p ? std::fmax(s, 0) + std::log1p(std::exp(-std::fabs(s))) : s / 2);
  }
  double slope_L() const { return !there ? 0 : form == Form::sum ? 1 : weight(); }
  double slope_s() const {
    if (!there || form == Form::sum) return 0;
    return (form == Form::log1p ? 1 / (1 + std::exp(-s)) : 0.5) - weighted();
  }
};

}  // namespace

void uncertainty_loss_reference(const OpCall& call) {
  call.out[0].f64()[0] = saturate(Task(call, true).term() + Task(call, false).term());
}

void uncertainty_loss_backward_reference(const OpCall& call) {
  const Task e(call, true), v(call, false);
  const double dloss = call.in[In::dloss].f64()[0];
  const double gradients[4] = {e.slope_L(), v.slope_L(), e.slope_s(), v.slope_s()};
  for (int i = 0; i < 4; ++i)
    if (call.out[i].data) call.out[i].f64()[0] = dloss == 0 ? 0 : saturate(dloss * gradients[i]);
}

}  // namespace affuse
