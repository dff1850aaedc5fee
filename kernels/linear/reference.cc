#include <cmath>

#include "linear.h"

namespace affuse {
namespace {

double cdf(double z) { return 0.5 * std::erfc(-z / std::sqrt(2.0)); }
double pdf(double z) { return std::exp(-z * z / 2) / std::sqrt(2 * M_PI); }

double f(int kind, double z) {
  switch (kind) {
    case ActivationKind::relu: return z < 0 ? 0 : z;
    case ActivationKind::gelu: return z * cdf(z);
    case ActivationKind::tanh: return std::tanh(z);
    case ActivationKind::sigmoid: return 1 / (1 + std::exp(-z));
    default: return z;
  }
}

double slope(int kind, double z) {
  switch (kind) {
    case ActivationKind::relu: return z > 0 ? 1 : 0;
    case ActivationKind::gelu: return cdf(z) + z * pdf(z);
    case ActivationKind::tanh: return 1 - std::tanh(z) * std::tanh(z);
    case ActivationKind::sigmoid: return f(kind, z) * (1 - f(kind, z));
    default: return 1;
  }
}

double z_at(const OpCall& call, int64_t r, int64_t o) {
  const int64_t D = call.in[1].dim[1];
  const double *x = call.in[0].f64(), *W = call.in[1].f64(), *b = call.in[2].f64();
  double z = b ? b[o] : 0;
  for (int64_t d = 0; d < D; ++d) z += x[r * D + d] * W[o * D + d];
  return z;
}

}  // namespace

void linear_reference(const OpCall& call) {
  const int64_t O = call.in[1].dim[0], R = call.in[0].count() / call.in[1].dim[1];
  for (int64_t r = 0; r < R; ++r)
    for (int64_t o = 0; o < O; ++o) {
      const double z = z_at(call, r, o);
      if (call.out[0].given()) call.out[0].f64()[r * O + o] = f(int(call.attr[0].i), z);
      if (call.out[1].given()) call.out[1].f64()[r * O + o] = z;
    }
}

// Always from x, W and b: the saved tensors are for the fast version.
void linear_backward_reference(const OpCall& call) {
  const int64_t D = call.in[1].dim[1], O = call.in[1].dim[0], R = call.in[0].count() / D;
  const double *x = call.in[0].f64(), *W = call.in[1].f64(), *dy = call.in[5].f64();
  double *dx = call.out[0].f64(), *dW = call.out[1].f64(), *db = call.out[2].f64();
  for (int64_t i = 0; dx && i < R * D; ++i) dx[i] = 0;
  for (int64_t i = 0; dW && i < O * D; ++i) dW[i] = 0;
  for (int64_t i = 0; db && i < O; ++i) db[i] = 0;
  for (int64_t r = 0; r < R; ++r)
    for (int64_t o = 0; o < O; ++o) {
      const double g = dy[r * O + o] * slope(int(call.attr[0].i), z_at(call, r, o));
      if (db) db[o] += g;
      for (int64_t d = 0; dx && d < D; ++d) dx[r * D + d] += g * W[o * D + d];
      for (int64_t d = 0; dW && d < D; ++d) dW[o * D + d] += g * x[r * D + d];
    }
}

}  // namespace affuse
