// ratio_attention in plain float64, as the formulas of ratio_attention.h read.
#include <cmath>
#include <vector>

#include "ratio_attention.h"

namespace affuse {
namespace {

double sigmoid(double z) { return z >= 0 ? 1 / (1 + std::exp(-z)) : std::exp(z) / (1 + std::exp(z)); }
double log_sigmoid(double z) { return z >= 0 ? -std::log1p(std::exp(-z)) : z - std::log1p(std::exp(z)); }

// One sample's valid frames with their scores z and their normalised weights w.
struct Gates {
  std::vector<int32_t> frames;
  std::vector<double> z, w;
};

Gates gates_of(const OpCall& call, int64_t b) {
  const Tensor& x = call.in[kRatioX];
  const double *q = call.in[kRatioQ].f64(), beta = call.in[kRatioBeta].f64()[0];
  const int64_t T = x.dim[1], D = x.dim[2];
  Gates g;
  g.frames.resize(size_t(T));
  g.frames.resize(size_t(valid_frames(frames_of(x, call.in[kRatioLengths], call.in[kRatioMask]), b, g.frames.data())));
  double largest = -INFINITY, total = 0;
  for (int32_t t : g.frames) {
    double z = beta;
    for (int64_t d = 0; d < D; ++d) z += q[d] * x.f64()[(b * T + t) * D + d];
    g.z.push_back(z);
    largest = std::fmax(largest, log_sigmoid(z));
  }
  for (double z : g.z) g.w.push_back(std::exp(log_sigmoid(z) - largest));
  for (double w : g.w) total += w;
  for (double& w : g.w) w /= total;
  return g;
}

void zero(const Tensor& t) {
  if (t.given())
    for (int64_t i = 0; i < t.count(); ++i) t.f64()[i] = 0;
}

}  // namespace

void ratio_attention_reference(const OpCall& call) {
  const Tensor &x = call.in[kRatioX], &c = call.out[kRatioOutC], &alpha = call.out[kRatioOutAlpha];
  const int64_t B = x.dim[0], T = x.dim[1], D = x.dim[2];
  zero(c);
  zero(alpha);
  for (int64_t b = 0; b < B; ++b) {
    const Gates g = gates_of(call, b);
    for (size_t i = 0; i < g.frames.size(); ++i) {
      const int64_t t = g.frames[i];
      if (alpha.given()) alpha.f64()[b * T + t] = sigmoid(g.z[i]);
      if (c.given())
        for (int64_t d = 0; d < D; ++d) c.f64()[b * D + d] += g.w[i] * x.f64()[(b * T + t) * D + d];
    }
  }
}

void ratio_attention_backward_reference(const OpCall& call) {
  const Tensor &x = call.in[kRatioX], &q = call.in[kRatioQ], &dc = call.in[kRatioDc], &dalpha = call.in[kRatioDalpha];
  const Tensor &dx = call.out[kRatioDx], &dq = call.out[kRatioDq], &dbeta = call.out[kRatioDbeta];
  const int64_t B = x.dim[0], T = x.dim[1], D = x.dim[2];
  zero(dx);
  zero(dq);
  zero(dbeta);
  for (int64_t b = 0; b < B; ++b) {
    const Gates g = gates_of(call, b);
    std::vector<double> dw(g.frames.size(), 0.0);  // dc · x_t
    double mean = 0;                               // Σ_t w_t dw_t
    for (size_t i = 0; i < g.frames.size(); ++i) {
      if (dc.given())
        for (int64_t d = 0; d < D; ++d) dw[i] += dc.f64()[b * D + d] * x.f64()[(b * T + g.frames[i]) * D + d];
      mean += g.w[i] * dw[i];
    }
    for (size_t i = 0; i < g.frames.size(); ++i) {
      const int64_t t = g.frames[i];
      const double rest = sigmoid(-g.z[i]);  // 1 − α
      double dz = g.w[i] * (dw[i] - mean) * rest;
      if (dalpha.given()) dz += dalpha.f64()[b * T + t] * sigmoid(g.z[i]) * rest;
      for (int64_t d = 0; d < D; ++d) {
        if (dx.given())
          dx.f64()[(b * T + t) * D + d] = (dc.given() ? g.w[i] * dc.f64()[b * D + d] : 0) + dz * q.f64()[d];
        if (dq.given()) dq.f64()[d] += dz * x.f64()[(b * T + t) * D + d];
      }
      if (dbeta.given()) dbeta.f64()[0] += dz;
    }
  }
}

}  // namespace affuse
