// afg in plain float64, as the formulas of afg.h read. Saved outputs are not used: everything is computed again.
#include <cmath>
#include <vector>

#include "afg.h"

namespace affuse {
namespace {

// One sample's frames in the softmax: the valid ones and, unmasked, the others with x = 0 (row null).
struct Sample {
  std::vector<int64_t> t;
  std::vector<const double*> row;
  std::vector<double> k;      // [n, A]
  std::vector<double> alpha;  // [J, n]
  int64_t count() const { return int64_t(t.size()); }
};

const double* query(const OpCall& call, const AfgSize& n, int64_t b, int64_t j) {
  const Tensor& q = call.in[kAfgQ];
  return q.given() ? q.f64() + (b * n.J + j) * n.A : call.in[kAfgU].f64();
}

Sample sample_of(const OpCall& call, const AfgSize& n, int64_t b) {
  const Tensor& x = call.in[kAfgX];
  const double *W = call.in[kAfgW].f64(), *bias = call.in[kAfgB].f64(), scale = call.attr[kAfgScale].f;
  const bool masked = call.attr[kAfgMasked].i != 0;
  std::vector<int32_t> valid(size_t(n.T) + 1);
  const int64_t count = valid_frames(frames_of(x, call.in[kAfgLengths], call.in[kAfgMask]), b, valid.data());
  Sample s;
  for (int64_t t = 0, i = 0; t < n.T && count > 0; ++t) {
    const bool is_valid = i < count && valid[size_t(i)] == t;
    if (is_valid) ++i;
    if (!is_valid && masked) continue;
    s.t.push_back(t);
    s.row.push_back(is_valid ? x.f64() + (b * n.T + t) * n.D : nullptr);
  }
  s.k.resize(size_t(s.count() * n.A));
  s.alpha.resize(size_t(s.count() * n.J));
  for (int64_t i = 0; i < s.count(); ++i)
    for (int64_t a = 0; a < n.A; ++a) {
      double p = bias[a];
      if (const double* row = s.row[size_t(i)])
        for (int64_t d = 0; d < n.D; ++d) p += W[a * n.D + d] * row[d];
      s.k[size_t(i * n.A + a)] = std::tanh(p);
    }
  for (int64_t j = 0; j < n.J; ++j) {
    double* alpha = s.alpha.data() + j * s.count();
    double largest = -INFINITY, total = 0;
    for (int64_t i = 0; i < s.count(); ++i) {
      double score = 0;
      for (int64_t a = 0; a < n.A; ++a) score += query(call, n, b, j)[a] * s.k[size_t(i * n.A + a)];
      alpha[i] = scale * score;
      largest = std::fmax(largest, alpha[i]);
    }
    for (int64_t i = 0; i < s.count(); ++i) total += alpha[i] = std::exp(alpha[i] - largest);
    for (int64_t i = 0; i < s.count(); ++i) alpha[i] /= total;
  }
  return s;
}

void zero(const Tensor& t) {
  if (t.given())
    for (int64_t i = 0; i < t.count(); ++i) t.f64()[i] = 0;
}

}  // namespace

void afg_reference(const OpCall& call) {
  const AfgSize n = afg_size(call.in);
  const Tensor &c = call.out[kAfgOutC], &alpha = call.out[kAfgOutAlpha], &k = call.out[kAfgOutK];
  zero(c);
  zero(alpha);
  zero(k);
  for (int64_t b = 0; b < n.B; ++b) {
    const Sample s = sample_of(call, n, b);
    for (int64_t i = 0; i < s.count(); ++i) {
      const int64_t t = s.t[size_t(i)];
      const double* row = s.row[size_t(i)];
      for (int64_t j = 0; j < n.J; ++j) {
        const double weight = s.alpha[size_t(j * s.count() + i)];
        if (alpha.given()) alpha.f64()[(b * n.J + j) * n.T + t] = weight;
        if (c.given() && row)
          for (int64_t d = 0; d < n.D; ++d) c.f64()[(b * n.J + j) * n.D + d] += weight * row[d];
      }
      if (k.given() && row)
        for (int64_t a = 0; a < n.A; ++a) k.f64()[(b * n.T + t) * n.A + a] = s.k[size_t(i * n.A + a)];
    }
  }
}

void afg_backward_reference(const OpCall& call) {
  const AfgSize n = afg_size(call.in);
  const Tensor &dc = call.in[kAfgDc], &dalpha = call.in[kAfgDalpha];
  const Tensor &dx = call.out[kAfgDx], &dW = call.out[kAfgDW], &db = call.out[kAfgDb], &du = call.out[kAfgDu],
               &dq = call.out[kAfgDq];
  const double *W = call.in[kAfgW].f64(), scale = call.attr[kAfgScale].f;
  for (const Tensor* t : {&dx, &dW, &db, &du, &dq}) zero(*t);
  std::vector<double> pre(size_t(n.A), 0.0);  // p̄_t
  for (int64_t b = 0; b < n.B; ++b) {
    const Sample s = sample_of(call, n, b);
    std::vector<double> score(size_t(s.count() * n.J), 0.0);  // ᾱ, then s̄ [J, n]
    for (int64_t j = 0; j < n.J; ++j) {
      double* g = score.data() + j * s.count();
      const double* alpha = s.alpha.data() + j * s.count();
      double mean = 0;
      for (int64_t i = 0; i < s.count(); ++i) {
        if (dalpha.given()) g[i] += dalpha.f64()[(b * n.J + j) * n.T + s.t[size_t(i)]];
        if (const double* row = s.row[size_t(i)]; row && dc.given())
          for (int64_t d = 0; d < n.D; ++d) g[i] += dc.f64()[(b * n.J + j) * n.D + d] * row[d];
        mean += alpha[i] * g[i];
      }
      for (int64_t i = 0; i < s.count(); ++i) g[i] = scale * alpha[i] * (g[i] - mean);
    }
    for (int64_t i = 0; i < s.count(); ++i) {
      const double *row = s.row[size_t(i)], *k = s.k.data() + i * n.A;
      for (int64_t a = 0; a < n.A; ++a) {
        double dk = 0;
        for (int64_t j = 0; j < n.J; ++j) {
          const double g = score[size_t(j * s.count() + i)];
          dk += g * query(call, n, b, j)[a];
          if (dq.given()) dq.f64()[(b * n.J + j) * n.A + a] += g * k[a];
          if (du.given()) du.f64()[a] += g * k[a];
        }
        pre[size_t(a)] = dk * (1 - k[a] * k[a]);
        if (db.given()) db.f64()[a] += pre[size_t(a)];
        if (dW.given() && row)
          for (int64_t d = 0; d < n.D; ++d) dW.f64()[a * n.D + d] += pre[size_t(a)] * row[d];
      }
      if (!dx.given() || !row) continue;
      double* out = dx.f64() + (b * n.T + s.t[size_t(i)]) * n.D;
      for (int64_t d = 0; d < n.D; ++d) {
        for (int64_t a = 0; a < n.A; ++a) out[d] += pre[size_t(a)] * W[a * n.D + d];
        for (int64_t j = 0; j < n.J && dc.given(); ++j)
          out[d] += s.alpha[size_t(j * s.count() + i)] * dc.f64()[(b * n.J + j) * n.D + d];
      }
    }
  }
}

}  // namespace affuse
