#include "../common/math.h"
#include "../common/reduce.h"
#include "softmax_cross_entropy.h"

namespace affuse::AFFUSE_ISA {
namespace {

using In = CrossEntropyIn;

struct RowSum {
  float max, log_sum;  // max_c x_c and log sum_c exp(x_c - max)
};

// Posteriors go to p unless it is null. Returns the sum; the maximum to m.
float softmax_row(const float* x, float* p, int64_t C, float& m) {
  m = max_of(x, C);
  const Vec most = set1(m);
  const float total = sum_lanes(C, [&](int64_t i, int n) {
    const Vec e = exp_negative(get(x + i, n) - most);
    if (p) put(p + i, e, n);
    return n == kLanes ? e : select(first_lanes(n), e, zero());
  });
  if (p) {
    const Vec scale = set1(1.0f / total);
    for_lanes(C, [&](int64_t i, int n) { put(p + i, get(p + i, n) * scale, n); });
  }
  return total;
}

constexpr int64_t kFew = 32;   // classes; a row of more fills vectors by itself
constexpr int64_t kRows = 64;  // rows at a time

// The same for n <= kRows rows of at most kFew classes, a row in each lane.
void softmax_few(const float* x, float* p, int64_t n, int64_t C, float* most, float* total) {
  float column[kFew * kRows];  // class after class
  for (int64_t r = 0; r < n; ++r)
    for (int64_t c = 0; c < C; ++c) column[c * kRows + r] = x[r * C + c];
  for_lanes(n, [&](int64_t r, int lanes) {
    Vec m = get(column + r, lanes), sum = zero();
    for (int64_t c = 1; c < C; ++c) m = max(m, get(column + c * kRows + r, lanes));
    for (int64_t c = 0; c < C; ++c) {
      const Vec e = exp_negative(get(column + c * kRows + r, lanes) - m);
      store(column + c * kRows + r, e);
      sum += e;
    }
    store(most + r, m), store(total + r, sum);
    const Vec scale = set1(1.0f) / sum;
    for (int64_t c = 0; p && c < C; ++c) store(column + c * kRows + r, load(column + c * kRows + r) * scale);
  });
  for (int64_t r = 0; p && r < n; ++r)
    for (int64_t c = 0; c < C; ++c) p[r * C + c] = column[c * kRows + r];
}

// Posteriors of n <= kRows rows to p unless it is null, the rest to sums unless that is null.
void softmax_rows(const float* x, float* p, int64_t n, int64_t C, RowSum* sums) {
  float most[kRows], total[kRows];
  if (C <= kFew) softmax_few(x, p, n, C, most, total);
  else
    for (int64_t r = 0; r < n; ++r) total[r] = softmax_row(x + r * C, p ? p + r * C : nullptr, C, most[r]);
  if (!sums) return;
  for_lanes(n, [&](int64_t r, int lanes) { put(total + r, log(get(total + r, lanes)), lanes); });
  for (int64_t r = 0; r < n; ++r) sums[r] = {most[r], total[r]};
}

// -log p_c = log(sum) - (x_c - max), in float64: two float32 roundings fewer, and no overflow.
double surprise(RowSum s, float log_of) { return double(s.log_sum) - (double(log_of) - double(s.max)); }

int64_t rows_per_task(int64_t C) { return C >= 4096 ? 1 : 4096 / C; }

struct Weights {
  double labelled, all;  // sum of w_{y_i} over labelled samples; sum of w_c over the classes
  int32_t count;         // labelled samples of non-zero weight
};

Weights weights_of(const int32_t* labels, const float* w, int64_t B, int64_t C) {
  Weights s = {0, 0, 0};
  for (int64_t i = 0; i < B; ++i) {
    if (labels[i] < 0) continue;
    const float v = w ? w[labels[i]] : 1.0f;
    s.labelled += double(v);
    s.count += v != 0.0f;
  }
  for (int64_t c = 0; c < C; ++c) s.all += w ? double(w[c]) : 1.0;
  return s;
}

// Sample i's share of the numerator of the loss.
double row_loss(const float* x, RowSum s, int32_t y, const float* w, double eps, int64_t C) {
  double sum = (1 - eps) * (w ? double(w[y]) : 1.0) * surprise(s, x[y]);
  if (eps > 0)
    for (int64_t c = 0; c < C; ++c) {
      const double v = w ? double(w[c]) : 1.0;
      if (v != 0) sum += eps / double(C) * v * surprise(s, x[c]);
    }
  return sum;
}

// Rarely wanted, hence plain: one thread, float64. The workspace keeps a RowSum per sample.
void class_weight_gradient(const OpCall& call, const Weights& total, double dloss, float* dweights) {
  const int64_t B = call.in[In::logits].dim[0], C = call.in[In::logits].dim[1];
  const float *logits = call.in[In::logits].f32(), *w = call.in[In::class_weights].f32();
  const int32_t* labels = call.in[In::labels].i32();
  const double eps = call.attr[0].f, g = total.labelled == 0 ? 0 : dloss / total.labelled;
  auto* const rows = static_cast<RowSum*>(call.workspace);
  double loss = 0;
  for (int64_t i = 0; i < B; i += kRows) softmax_rows(logits + i * C, nullptr, B - i < kRows ? B - i : kRows, C, rows + i);
  for (int64_t i = 0; i < B; ++i) {
    if (labels[i] < 0) continue;
    loss += row_loss(logits + i * C, rows[i], labels[i], w, eps, C);
  }
  loss = total.labelled == 0 ? 0 : loss / total.labelled;
  for (int64_t c = 0; c < C; ++c) dweights[c] = 0.0f;
  if (g == 0) return;
  for (int64_t c = 0; c < C; ++c) {
    double sum = 0;
    for (int64_t i = 0; i < B; ++i) {
      if (labels[i] < 0 || (labels[i] != c && eps == 0)) continue;
      const double l = surprise(rows[i], logits[i * C + c]);
      sum += (labels[i] == c ? (1 - eps) * l - loss : 0) + eps / double(C) * l;
    }
    dweights[c] = float(g * sum);
  }
}

}  // namespace

void softmax_cross_entropy_forward(const OpCall& call) {
  const int64_t B = call.in[In::logits].dim[0], C = call.in[In::logits].dim[1], step = rows_per_task(C);
  const float *logits = call.in[In::logits].f32(), *w = call.in[In::class_weights].f32();
  const int32_t* labels = call.in[In::labels].i32();
  const double eps = call.attr[0].f;
  float* posteriors = call.out[1].f32();
  double* share = static_cast<double*>(call.workspace);  // [B]
  parallel(*call.workers, (B + step - 1) / step, [&](int64_t task, int) {
    const int64_t end = (task + 1) * step < B ? (task + 1) * step : B;
    for (int64_t i0 = task * step; i0 < end; i0 += kRows) {
      const int64_t n = end - i0 < kRows ? end - i0 : kRows;
      RowSum sums[kRows];
      softmax_rows(logits + i0 * C, posteriors ? posteriors + i0 * C : nullptr, n, C, sums);
      for (int64_t i = i0; i < i0 + n; ++i)
        share[i] = labels[i] < 0 ? 0 : row_loss(logits + i * C, sums[i - i0], labels[i], w, eps, C);
    }
  });
  const Weights total = weights_of(labels, w, B, C);
  double sum = 0;
  for (int64_t i = 0; i < B; ++i) sum += share[i];
  if (call.out[0].data) call.out[0].f32()[0] = total.labelled == 0 ? 0.0f : float(sum / total.labelled);
  if (call.out[2].data) call.out[2].i32()[0] = total.count;
}

void softmax_cross_entropy_backward(const OpCall& call) {
  const int64_t B = call.in[In::logits].dim[0], C = call.in[In::logits].dim[1], step = rows_per_task(C);
  const float *logits = call.in[In::logits].f32(), *w = call.in[In::class_weights].f32();
  const float *saved = call.in[In::posteriors].f32(), *dposteriors0 = call.in[In::dposteriors].f32();
  const int32_t* labels = call.in[In::labels].i32();
  const double eps = call.attr[0].f, dloss = call.in[In::dloss].data ? double(call.in[In::dloss].f32()[0]) : 0.0;
  const Weights total = weights_of(labels, w, B, C);
  const double g = total.labelled == 0 ? 0 : dloss / total.labelled;
  float* dlogits0 = call.out[0].f32();
  if (call.out[1].data) class_weight_gradient(call, total, dloss, call.out[1].f32());
  if (!dlogits0) return;
  parallel(*call.workers, (B + step - 1) / step, [&](int64_t task, int) {
    const int64_t end = (task + 1) * step < B ? (task + 1) * step : B;
    for (int64_t i = task * step; i < end; ++i) {
      if (!saved && (i - task * step) % kRows == 0)  // posteriors live in dlogits until they are overwritten below
        softmax_rows(logits + i * C, dlogits0 + i * C, end - i < kRows ? end - i : kRows, C, nullptr);
      float* d = dlogits0 + i * C;
      const float *p = saved ? saved + i * C : d, *dp = dposteriors0 ? dposteriors0 + i * C : nullptr;
      const int32_t y = labels[i];
      if (y < 0 && !dp) {
        for (int64_t c = 0; c < C; ++c) d[c] = 0.0f;
        continue;
      }
      // d = p (scale + dp) - smooth w - target [c = y]
      const double target = y < 0 ? 0 : g * (1 - eps) * (w ? double(w[y]) : 1.0), smooth = y < 0 ? 0 : g * eps / double(C);
      const float own = p[y < 0 ? 0 : y], dot = dp ? dot_of(dp, p, C) : 0.0f;
      const Vec scale = set1(float(target + smooth * total.all - double(dot))), flat = set1(float(smooth));
      const float own_dp = y >= 0 && dp ? dp[y] : 0.0f;
      for_lanes(C, [&](int64_t c, int n) {
        const Vec slope = dp ? get(dp + c, n) + scale : scale, even = w ? get(w + c, n) * flat : flat;
        put(d + c, fma(get(p + c, n), slope, -even), n);
      });
      if (y >= 0)
        d[y] = float(target * (double(own) - 1) + smooth * (double(own) * total.all - (w ? double(w[y]) : 1.0)) +
                     double(own) * (double(own_dp) - double(dot)));
    }
  });
}

}  // namespace affuse::AFFUSE_ISA
