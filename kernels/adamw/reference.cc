#include <cmath>

#include "adamw.h"

namespace affuse {
namespace {

void update(const OpCall& call, bool decoupled) {
  const double lr = call.attr[AdamAttr::lr].f, beta1 = call.attr[AdamAttr::beta1].f, beta2 = call.attr[AdamAttr::beta2].f;
  const double eps = call.attr[AdamAttr::eps].f, decay = call.attr[AdamAttr::weight_decay].f;
  const double step = double(call.attr[AdamAttr::step].i);
  const double correction1 = 1 - std::pow(beta1, step), correction2 = 1 - std::pow(beta2, step);
  for (int64_t i = 0; i < call.in[0].count(); ++i) {
    double p = call.in[0].f64()[i], g = call.in[1].f64()[i];
    if (decoupled) p -= lr * decay * p;
    else g += decay * p;
    const double m = beta1 * call.in[2].f64()[i] + (1 - beta1) * g;
    const double v = beta2 * call.in[3].f64()[i] + (1 - beta2) * g * g;
    p -= lr / correction1 * m / (std::sqrt(v) / std::sqrt(correction2) + eps);
    if (call.out[0].data) call.out[0].f64()[i] = p;
    if (call.out[1].data) call.out[1].f64()[i] = m;
    if (call.out[2].data) call.out[2].f64()[i] = v;
  }
}

}  // namespace

void adam_reference(const OpCall& call) { update(call, false); }
void adamw_reference(const OpCall& call) { update(call, true); }

}  // namespace affuse
