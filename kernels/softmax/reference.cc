#include <algorithm>
#include <cmath>

#include "softmax.h"

namespace affuse {
namespace {

void softmax_row(const double* x, double* y, int64_t C) {
  const double m = *std::max_element(x, x + C);
  double sum = 0;
  for (int64_t c = 0; c < C; ++c) sum += std::exp(x[c] - m);
  for (int64_t c = 0; c < C; ++c) y[c] = std::exp(x[c] - m) / sum;
}

}  // namespace

void softmax_reference(const OpCall& call) {
  const Tensor& x = call.in[0];
  const int64_t C = x.dim[x.rank - 1];
  for (int64_t i = 0; i < x.count(); i += C) softmax_row(x.f64() + i, call.out[0].f64() + i, C);
}

void softmax_backward_reference(const OpCall& call) {
  const Tensor& x = call.in[0];
  const int64_t C = x.dim[x.rank - 1];
  const double* saved = call.in[1].f64();
  for (int64_t i = 0; i < x.count(); i += C) {
    const double* dy = call.in[2].f64() + i;
    double* dx = call.out[0].f64() + i;  // holds y first
    if (saved) std::copy(saved + i, saved + i + C, dx);
    else softmax_row(x.f64() + i, dx, C);
    double dot = 0;
    for (int64_t c = 0; c < C; ++c) dot += dy[c] * dx[c];
    for (int64_t c = 0; c < C; ++c) dx[c] *= dy[c] - dot;
  }
}

}  // namespace affuse
