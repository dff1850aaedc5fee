#include <cmath>

#include "layer_norm.h"

namespace affuse {
namespace {

struct Row {
  double mean, rstd;
};

Row statistics(const double* x, int64_t C, double eps) {
  double mean = 0, var = 0;
  for (int64_t c = 0; c < C; ++c) mean += x[c] / double(C);
  for (int64_t c = 0; c < C; ++c) var += (x[c] - mean) * (x[c] - mean) / double(C);
  return {mean, 1 / std::sqrt(var + eps)};
}

}  // namespace

void layer_norm_reference(const OpCall& call) {
  const Tensor &x = call.in[0], &y = call.out[0];
  const double *gamma = call.in[1].f64(), *beta = call.in[2].f64(), eps = call.attr[0].f;
  const int64_t C = call.in[1].dim[0], R = x.count() / C;
  for (int64_t r = 0; r < R; ++r) {
    const double* row = x.f64() + r * C;
    const Row s = statistics(row, C, eps);
    if (y.data)
      for (int64_t c = 0; c < C; ++c) y.f64()[r * C + c] = gamma[c] * (row[c] - s.mean) * s.rstd + beta[c];
    if (call.out[1].data) call.out[1].f64()[r] = s.mean;
    if (call.out[2].data) call.out[2].f64()[r] = s.rstd;
  }
}

void layer_norm_backward_reference(const OpCall& call) {
  const Tensor &x = call.in[0], &dx = call.out[0], &dgamma = call.out[1], &dbeta = call.out[2];
  const double *gamma = call.in[1].f64(), *dy = call.in[5].f64(), eps = call.attr[0].f;
  const int64_t C = call.in[1].dim[0], R = x.count() / C;
  for (int64_t c = 0; c < C; ++c) {
    if (dgamma.data) dgamma.f64()[c] = 0;
    if (dbeta.data) dbeta.f64()[c] = 0;
  }
  for (int64_t r = 0; r < R; ++r) {
    const double *row = x.f64() + r * C, *g = dy + r * C;
    Row s = statistics(row, C, eps);
    if (call.in[3].data) s.mean = call.in[3].f64()[r];
    if (call.in[4].data) s.rstd = call.in[4].f64()[r];
    double mean_d = 0, mean_dx = 0;
    for (int64_t c = 0; c < C; ++c) {
      const double xhat = (row[c] - s.mean) * s.rstd;
      mean_d += g[c] * gamma[c] / double(C);
      mean_dx += g[c] * gamma[c] * xhat / double(C);
      if (dgamma.data) dgamma.f64()[c] += g[c] * xhat;
      if (dbeta.data) dbeta.f64()[c] += g[c];
    }
    if (dx.data)
      for (int64_t c = 0; c < C; ++c) {
        const double xhat = (row[c] - s.mean) * s.rstd;
        dx.f64()[r * C + c] = s.rstd * (g[c] * gamma[c] - mean_d - xhat * mean_dx);
      }
  }
}

}  // namespace affuse
