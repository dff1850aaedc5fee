#include <algorithm>
#include <cmath>

#include "softmax_cross_entropy.h"

namespace affuse {
namespace {

using In = CrossEntropyIn;

struct Batch {
  int64_t B, C;
  const double *logits, *weights;
  const int32_t* labels;
  double eps;

  explicit Batch(const OpCall& call)
      : B(call.in[In::logits].dim[0]), C(call.in[In::logits].dim[1]), logits(call.in[In::logits].f64()),
        weights(call.in[In::class_weights].f64()), labels(call.in[In::labels].i32()), eps(call.attr[0].f) {}

  double weight(int64_t c) const { return weights ? weights[c] : 1; }
  double log_sum_exp(int64_t i) const {
    const double *x = logits + i * C, m = *std::max_element(x, x + C);
    double sum = 0;
    for (int64_t c = 0; c < C; ++c) sum += std::exp(x[c] - m);
    return m + std::log(sum);
  }
  double total_weight() const {
    double W = 0;
    for (int64_t i = 0; i < B; ++i)
      if (labels[i] >= 0) W += weight(labels[i]);
    return W;
  }
  double loss() const {
    const double W = total_weight();
    if (W == 0) return 0;
    double sum = 0;
    for (int64_t i = 0; i < B; ++i) {
      if (labels[i] < 0) continue;
      const double lse = log_sum_exp(i);
      sum += (1 - eps) * weight(labels[i]) * (lse - logits[i * C + labels[i]]);
      for (int64_t c = 0; eps > 0 && c < C; ++c) sum += eps / double(C) * weight(c) * (lse - logits[i * C + c]);
    }
    return sum / W;
  }
};

}  // namespace

void softmax_cross_entropy_reference(const OpCall& call) {
  const Batch batch(call);
  int32_t count = 0;
  for (int64_t i = 0; i < batch.B; ++i) {
    const double lse = batch.log_sum_exp(i);
    if (call.out[1].data)
      for (int64_t c = 0; c < batch.C; ++c)
        call.out[1].f64()[i * batch.C + c] = std::exp(batch.logits[i * batch.C + c] - lse);
    count += batch.labels[i] >= 0 && batch.weight(batch.labels[i]) != 0;
  }
  if (call.out[0].data) call.out[0].f64()[0] = batch.loss();
  if (call.out[2].data) call.out[2].i32()[0] = count;
}

void softmax_cross_entropy_backward_reference(const OpCall& call) {
  const Batch batch(call);
  const int64_t B = batch.B, C = batch.C;
  const double W = batch.total_weight(), eps = batch.eps, loss = batch.loss();
  const double dloss = call.in[In::dloss].data ? call.in[In::dloss].f64()[0] : 0, g = W == 0 ? 0 : dloss / W;
  const double *saved = call.in[In::posteriors].f64(), *dposteriors = call.in[In::dposteriors].f64();
  double *dlogits = call.out[0].f64(), *dweights = call.out[1].f64();
  double sum_w = 0;
  for (int64_t c = 0; c < C; ++c) {
    sum_w += batch.weight(c);
    if (dweights) dweights[c] = 0;
  }
  for (int64_t i = 0; i < B; ++i) {
    const double lse = batch.log_sum_exp(i), *x = batch.logits + i * C;
    const int32_t y = batch.labels[i];
    auto p = [&](int64_t c) { return saved ? saved[i * C + c] : std::exp(x[c] - lse); };
    double dot = 0;
    for (int64_t c = 0; dposteriors && c < C; ++c) dot += dposteriors[i * C + c] * p(c);
    for (int64_t c = 0; c < C; ++c) {
      if (dlogits) {
        double d = dposteriors ? p(c) * (dposteriors[i * C + c] - dot) : 0;
        if (y >= 0)
          d += g * ((1 - eps) * batch.weight(y) * (p(c) - (c == y)) + eps / double(C) * (p(c) * sum_w - batch.weight(c)));
        dlogits[i * C + c] = d;
      }
      if (dweights && y >= 0)
        dweights[c] += g * ((c == y ? (1 - eps) * (lse - x[c]) - loss : 0) + eps / double(C) * (lse - x[c]));
    }
  }
}

}  // namespace affuse
