#include <cmath>

#include "grad_norm.h"

namespace affuse {

void grad_norm_reference(const OpCall& call) {
  double sum = 0;
  for (int64_t i = 0; i < call.in[0].count(); ++i) sum += call.in[0].f64()[i] * call.in[0].f64()[i];
  call.out[0].f64()[0] = std::sqrt(sum);
}

void clip_by_norm_reference(const OpCall& call) {
  const double norm = call.in[1].f64()[0], most = call.attr[0].f;
  const double factor = norm <= most ? 1 : most / norm;  // NaN stays NaN
  for (int64_t i = 0; i < call.in[0].count(); ++i) call.out[0].f64()[i] = call.in[0].f64()[i] * factor;
}

}  // namespace affuse
