#include "prelu.h"

namespace affuse {

void prelu_reference(const OpCall& call) {
  const double *x = call.in[0].f64(), slope = call.in[1].f64()[0];
  for (int64_t i = 0; i < call.in[0].count(); ++i) call.out[0].f64()[i] = x[i] > 0 ? x[i] : slope * x[i];
}

void prelu_backward_reference(const OpCall& call) {
  const double *x = call.in[0].f64(), slope = call.in[1].f64()[0], *dy = call.in[2].f64();
  double* dx = call.out[0].f64();
  double sum = 0;
  for (int64_t i = 0; i < call.in[0].count(); ++i) {
    if (dx) dx[i] = x[i] > 0 ? dy[i] : slope * dy[i];
    if (!(x[i] > 0)) sum += dy[i] * x[i];
  }
  if (call.out[1].data) call.out[1].f64()[0] = sum;
}

}  // namespace affuse
