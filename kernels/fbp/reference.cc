// Naive loops, as fbp.h's formulas read.
#include <cmath>
#include <vector>

#include "../common/philox.h"
#include "fbp.h"

namespace affuse {
namespace {

using Matrix = std::vector<double>;

double f(int kind, double x) {
  return kind == FbpActivation::relu ? (x < 0 ? 0 : x) : kind == FbpActivation::tanh ? std::tanh(x) : x;
}
double slope(int kind, double h) {  // f' from h = f(x)
  return kind == FbpActivation::relu ? (h > 0 ? 1 : 0) : kind == FbpActivation::tanh ? 1 - h * h : 1;
}

Matrix project(const Tensor& x, const Tensor& W, const Tensor& b, int kind) {
  const int64_t R = x.dim[0], D = x.dim[1], P = W.dim[0];
  Matrix h(size_t(R * P));
  for (int64_t i = 0; i < R; ++i)
    for (int64_t j = 0; j < P; ++j) {
      double sum = b.given() ? b.f64()[j] : 0;
      for (int64_t d = 0; d < D; ++d) sum += x.f64()[i * D + d] * W.f64()[j * D + d];
      h[size_t(i * P + j)] = f(kind, sum);
    }
  return h;
}

struct State {
  FbpSizes z;
  int normalize, activation, scope;
  double eps, eps2;
  Matrix hu, hv, mask, s, r, root;  // mask: 0 or 1/(1-p); root: of the l2 sum, per row
};

State run(const OpCall& c) {
  State t;
  const FbpSizes& z = t.z = fbp_sizes(c.in, c.attr);
  t.normalize = int(c.attr[FbpAttr::normalize].i);
  t.activation = int(c.attr[FbpAttr::activation].i);
  t.scope = int(c.attr[FbpAttr::l2_scope].i);
  t.eps = c.attr[FbpAttr::eps].f;
  t.eps2 = c.attr[FbpAttr::eps2].f;
  t.hu = project(c.in[FbpIn::a], c.in[FbpIn::U], c.in[FbpIn::bu], t.activation);
  t.hv = project(c.in[FbpIn::v], c.in[FbpIn::V], c.in[FbpIn::bv], t.activation);
  const DropoutMask mask = dropout_mask(c.attr[FbpAttr::dropout].f, c.attr[FbpAttr::seed].u, c.attr[FbpAttr::step].i,
                                        c.attr[FbpAttr::instance].i);
  t.mask.assign(size_t(z.B * z.P), 1.0);
  if (z.dropout)
    for (int64_t e = 0; e < z.B * z.P; ++e) t.mask[size_t(e)] = dropout_keeps(mask, uint64_t(e)) ? mask.scale : 0;
  t.s.assign(size_t(z.B * z.o), 0);
  t.r = t.s;
  for (int64_t i = 0; i < z.B; ++i)
    for (int64_t q = 0; q < z.o; ++q) {
      double sum = 0;
      for (int64_t j = q * z.k; j < (q + 1) * z.k; ++j)
        if (t.mask[size_t(i * z.P + j)] != 0)
          sum += t.mask[size_t(i * z.P + j)] * t.hu[size_t(i / z.group * z.P + j)] * t.hv[size_t(i * z.P + j)];
      const bool power = t.normalize == FbpNormalize::power || t.normalize == FbpNormalize::power_l2;
      t.s[size_t(i * z.o + q)] = sum;
      t.r[size_t(i * z.o + q)] = power ? sum / std::sqrt(std::fabs(sum) + t.eps) : sum;
    }
  const int64_t rows = t.scope == FbpScope::group ? z.group : 1;
  t.root.assign(size_t(z.B), 1.0);
  if (t.normalize == FbpNormalize::l2 || t.normalize == FbpNormalize::power_l2)
    for (int64_t i = 0; i < z.B; i += rows) {
      double sum = t.eps2;
      for (int64_t e = i * z.o; e < (i + rows) * z.o; ++e) sum += t.r[size_t(e)] * t.r[size_t(e)];
      for (int64_t j = i; j < i + rows; ++j) t.root[size_t(j)] = std::sqrt(sum);
    }
  return t;
}

// From the gradient g at x W^T + b.
void spread(const Matrix& g, const Tensor& x, const Tensor& W, const Tensor& dx, const Tensor& dW, const Tensor& db) {
  const int64_t R = x.dim[0], D = x.dim[1], P = W.dim[0];
  for (int64_t i = 0; dx.given() && i < R * D; ++i) dx.f64()[i] = 0;
  for (int64_t i = 0; dW.given() && i < P * D; ++i) dW.f64()[i] = 0;
  for (int64_t i = 0; db.given() && i < P; ++i) db.f64()[i] = 0;
  for (int64_t i = 0; i < R; ++i)
    for (int64_t j = 0; j < P; ++j) {
      const double e = g[size_t(i * P + j)];
      if (db.given()) db.f64()[j] += e;
      for (int64_t d = 0; dx.given() && d < D; ++d) dx.f64()[i * D + d] += e * W.f64()[j * D + d];
      for (int64_t d = 0; dW.given() && d < D; ++d) dW.f64()[j * D + d] += e * x.f64()[i * D + d];
    }
}

}  // namespace

void fbp_reference(const OpCall& c) {
  const State t = run(c);
  for (int64_t i = 0; i < t.z.B; ++i)
    for (int64_t q = 0; q < t.z.o; ++q) {
      const size_t e = size_t(i * t.z.o + q);
      if (c.out[FbpOut::z].given()) c.out[FbpOut::z].f64()[e] = t.r[e] / t.root[size_t(i)];
      if (c.out[FbpOut::s].given()) c.out[FbpOut::s].f64()[e] = t.s[e];
    }
  for (size_t e = 0; c.out[FbpOut::hu].given() && e < t.hu.size(); ++e) c.out[FbpOut::hu].f64()[e] = t.hu[e];
  for (size_t e = 0; c.out[FbpOut::hv].given() && e < t.hv.size(); ++e) c.out[FbpOut::hv].f64()[e] = t.hv[e];
}

void fbp_backward_reference(const OpCall& c) {
  const State t = run(c);
  const FbpSizes& z = t.z;
  const double *dz = c.in[FbpIn::dz].f64(), *ds_given = c.in[FbpIn::ds].f64();
  const bool l2 = t.normalize == FbpNormalize::l2 || t.normalize == FbpNormalize::power_l2;
  const bool power = t.normalize == FbpNormalize::power || t.normalize == FbpNormalize::power_l2;
  Matrix ds(size_t(z.B * z.o), 0.0);
  const int64_t rows = l2 && t.scope == FbpScope::group ? z.group : 1;
  for (int64_t i = 0; i < z.B; i += rows) {
    const double root = t.root[size_t(i)];
    double dot = 0;
    for (int64_t e = i * z.o; dz && l2 && e < (i + rows) * z.o; ++e) dot += dz[e] * t.r[size_t(e)] / root;
    for (int64_t e = i * z.o; e < (i + rows) * z.o; ++e) {
      double dr = dz ? dz[e] : 0;
      if (l2) dr = (dr - t.r[size_t(e)] / root * dot) / root;
      const double m = std::fabs(t.s[size_t(e)]);
      if (power) dr *= (m / 2 + t.eps) / std::pow(m + t.eps, 1.5);
      ds[size_t(e)] = dr + (ds_given ? ds_given[e] : 0);
    }
  }
  Matrix gu(size_t(z.A * z.P), 0.0), gv(size_t(z.B * z.P), 0.0);
  for (int64_t i = 0; i < z.B; ++i)
    for (int64_t j = 0; j < z.P; ++j) {
      const size_t eu = size_t(i / z.group * z.P + j), ev = size_t(i * z.P + j);
      if (t.mask[ev] == 0) continue;
      const double dp = ds[size_t(i * z.o + j / z.k)] * t.mask[ev];
      gu[eu] += dp * t.hv[ev] * slope(t.activation, t.hu[eu]);
      gv[ev] = dp * t.hu[eu] * slope(t.activation, t.hv[ev]);
    }
  spread(gu, c.in[FbpIn::a], c.in[FbpIn::U], c.out[0], c.out[2], c.out[4]);
  spread(gv, c.in[FbpIn::v], c.in[FbpIn::V], c.out[1], c.out[3], c.out[5]);
}

}  // namespace affuse
