#include "../common/stream.h"
#include "layer_norm.h"

namespace affuse::AFFUSE_ISA {
namespace {

// Below this, the row's variance is near or beyond float32's range: the row is done in float64.
constexpr float kTinyRstd = 1e-18f;
// Beyond this mean / deviation, what float32 loses of the mean would show in every element: likewise.
constexpr float kFarMean = 256;

struct Row {
  float mean, rstd;
};
struct WideRow {
  double mean, rstd;
};

Row statistics(const float* x, int64_t C, float eps) {
  const float mean = sum_of(x, C) / float(C);
  const Vec m = set1(mean);
  const float squares = sum_lanes(C, [&](int64_t i, int n) {
    const Vec d = n == kLanes ? load(x + i) - m : select(first_lanes(n), load(x + i, n) - m, zero());
    return d * d;
  });
  return {mean, 1.0f / __builtin_sqrtf(squares / float(C) + eps)};
}

WideRow wide_statistics(const float* x, int64_t C, double eps) {
  double mean = 0, squares = 0;
  for (int64_t c = 0; c < C; ++c) mean += double(x[c]);
  mean /= double(C);
  for (int64_t c = 0; c < C; ++c) squares += (double(x[c]) - mean) * (double(x[c]) - mean);
  return {mean, 1.0 / __builtin_sqrt(squares / double(C) + eps)};
}

bool ordinary(Row r) { return r.rstd >= kTinyRstd && __builtin_fabsf(r.mean) * r.rstd <= kFarMean; }

int64_t rows_per_task(int64_t C) { return C >= 8192 ? 1 : 8192 / C; }

}  // namespace

void layer_norm_forward(const OpCall& call) {
  const int64_t C = call.in[1].dim[0], R = call.in[0].count() / C, step = rows_per_task(C);
  const float *x0 = call.in[0].f32(), *gamma = call.in[1].f32(), *beta = call.in[2].f32();
  float *y0 = call.out[0].f32(), *means = call.out[1].f32(), *rstds = call.out[2].f32();
  const double eps = call.attr[0].f;
  parallel(*call.workers, (R + step - 1) / step, [&](int64_t task, int) {
    const int64_t end = (task + 1) * step < R ? (task + 1) * step : R;
    for (int64_t r = task * step; r < end; ++r) {
      const float* x = x0 + r * C;
      float* y = y0 + r * C;
      Row s = statistics(x, C, float(eps));
      if (ordinary(s)) {
        const Vec mean = set1(s.mean), rstd = set1(s.rstd);
        if (y0)
          for_row(C, x + row_ahead(C), nullptr, y + kRowAhead, [&](int64_t i, auto n) AFFUSE_INLINE_BODY {
            put(y + i, fma((get(x + i, n) - mean) * rstd, get(gamma + i, n), get(beta + i, n)), n);
          });
      } else {
        const WideRow w = wide_statistics(x, C, eps);
        if (y0)
          for (int64_t c = 0; c < C; ++c)
            y[c] = float((double(x[c]) - w.mean) * w.rstd * double(gamma[c]) + double(beta[c]));
        s = {float(w.mean), float(w.rstd)};
      }
      if (means) means[r] = s.mean;
      if (rstds) rstds[r] = s.rstd;
    }
  });
}

void layer_norm_backward(const OpCall& call) {
  const int64_t C = call.in[1].dim[0], R = call.in[0].count() / C, rows = layer_norm_chunk(R);
  const int64_t chunks = (R + rows - 1) / rows;
  const float *x0 = call.in[0].f32(), *gamma = call.in[1].f32(), *dy0 = call.in[5].f32();
  const float *means = call.in[3].f32(), *rstds = call.in[4].f32();
  float *dx0 = call.out[0].f32(), *dgamma = call.out[1].f32(), *dbeta = call.out[2].f32();
  float* partial = static_cast<float*>(call.workspace);  // [chunks][2][C]
  const double eps = call.attr[0].f;
  const bool weights = dgamma || dbeta;
  parallel(*call.workers, chunks, [&](int64_t chunk, int) {
    float *pg = partial + chunk * 2 * C, *pb = pg + C;
    if (weights)
      for (int64_t c = 0; c < 2 * C; ++c) pg[c] = 0.0f;
    const int64_t end = (chunk + 1) * rows < R ? (chunk + 1) * rows : R;
    for (int64_t r = chunk * rows; r < end; ++r) {
      const float *x = x0 + r * C, *dy = dy0 + r * C;
      float* dx = dx0 + r * C;
      const Row s = means && rstds ? Row{means[r], rstds[r]} : statistics(x, C, float(eps));
      if (!ordinary(s)) {
        const WideRow w = wide_statistics(x, C, eps);
        double d1 = 0, d2 = 0;
        for (int64_t c = 0; c < C; ++c) {
          const double xhat = (double(x[c]) - w.mean) * w.rstd, d = double(dy[c]) * double(gamma[c]);
          d1 += d, d2 += d * xhat;
          if (weights) pg[c] += float(double(dy[c]) * xhat), pb[c] += dy[c];
        }
        if (dx0)
          for (int64_t c = 0; c < C; ++c) {
            const double xhat = (double(x[c]) - w.mean) * w.rstd, d = double(dy[c]) * double(gamma[c]);
            dx[c] = float(w.rstd * (d - d1 / double(C) - xhat * d2 / double(C)));
          }
        continue;
      }
      const Vec mean = set1(s.mean), rstd = set1(s.rstd);
      // Both sums and both weight gradients in one pass, with every other vector in a sum of its own: one alone would wait
      // for its addition. Lanes beyond C have dy = 0 and add nothing.
      Vec sum1[2] = {zero(), zero()}, sum2[2] = {zero(), zero()};
      const auto step = [&](int64_t i, int n, int which) AFFUSE_INLINE_BODY {
        const Vec g = get(dy + i, n), xhat = (get(x + i, n) - mean) * rstd, d = g * get(gamma + i, n);
        if (weights) {
          put(pg + i, fma(g, xhat, get(pg + i, n)), n);
          put(pb + i, get(pb + i, n) + g, n);
        }
        sum1[which] += d;
        sum2[which] = fma(d, xhat, sum2[which]);
      };
      int64_t at = 0;
      for (; at + 2 * kLanes <= C; at += 2 * kLanes) step(at, kLanes, 0), step(at + kLanes, kLanes, 1);
      for_lanes(C - at, [&](int64_t i, int n) AFFUSE_INLINE_BODY { step(at + i, n, 0); });
      if (!dx0) continue;
      const Vec mean_d = set1(sum(sum1[0] + sum1[1]) / float(C)), mean_dx = set1(sum(sum2[0] + sum2[1]) / float(C));
      // This row's x and dy are in cache: the next row's are asked for.
      for_row(C, x + C, dy + C, dx + kRowAhead, [&](int64_t i, auto n) AFFUSE_INLINE_BODY {
        const auto d = get(dy + i, n) * get(gamma + i, n), xhat = (get(x + i, n) - mean) * rstd;
        put(dx + i, rstd * (d - mean_d - xhat * mean_dx), n);
      });
    }
  });
  if (!weights) return;
  constexpr int64_t kColumns = 256;
  parallel(*call.workers, (C + kColumns - 1) / kColumns, [&](int64_t task, int) {
    const int64_t end = (task + 1) * kColumns < C ? (task + 1) * kColumns : C;
    for (int64_t c = task * kColumns; c < end; ++c) {
      float g = 0, b = 0;
      for (int64_t chunk = 0; chunk < chunks; ++chunk) {
        g += partial[chunk * 2 * C + c];
        b += partial[(chunk * 2 + 1) * C + c];
      }
      if (dgamma) dgamma[c] = g;
      if (dbeta) dbeta[c] = b;
    }
  });
}

}  // namespace affuse::AFFUSE_ISA
