#include "../common/reduce.h"
#include "masked_mse.h"

namespace affuse::AFFUSE_ISA {
namespace {

int64_t piece(int64_t N, int64_t task) {
  const int64_t rest = N - task * kMaskedMseChunk;
  return rest < kMaskedMseChunk ? rest : kMaskedMseChunk;
}

// Sum of squares (if wanted) and number of missing targets.
MaskedMsePartial sums(const OpCall& call, bool squares) {
  const int64_t N = call.in[0].count(), tasks = (N + kMaskedMseChunk - 1) / kMaskedMseChunk;
  const float *prediction = call.in[0].f32(), *target = call.in[1].f32();
  auto* partial = static_cast<MaskedMsePartial*>(call.workspace);
  parallel(*call.workers, tasks, [&](int64_t task, int) {
    const float *p = prediction + task * kMaskedMseChunk, *t = target + task * kMaskedMseChunk;
    const int64_t count = piece(N, task);
    partial[task].missing = long_sum(count, [&](int64_t i, int n) { return keep(is_nan(get(t + i, n)), set1(1.0f)); });
    partial[task].sum = !squares ? 0 : long_sum(count, [&](int64_t i, int n) {
      const Vec y = get(t + i, n), d = select(is_nan(y), zero(), get(p + i, n) - y);
      return d * d;
    });
  });
  MaskedMsePartial total = {0, 0};
  for (int64_t i = 0; i < tasks; ++i) total.sum += partial[i].sum, total.missing += partial[i].missing;
  return total;
}

}  // namespace

void masked_mse_forward(const OpCall& call) {
  const MaskedMsePartial s = sums(call, true);
  const double n = double(call.in[0].count()) - s.missing;
  if (call.out[0].data) call.out[0].f32()[0] = n > 0 ? float(s.sum / n) : 0.0f;
  if (call.out[1].data) call.out[1].i32()[0] = int32_t(n);
}

void masked_mse_backward(const OpCall& call) {
  const int64_t N = call.in[0].count();
  const double n = double(N) - sums(call, false).missing;
  const float *prediction = call.in[0].f32(), *target = call.in[1].f32();
  float *dprediction = call.out[0].f32(), *dtarget = call.out[1].f32();
  // Halves, so that a difference of two huge numbers stays finite.
  const Vec half = set1(0.5f), factor = set1(n > 0 ? float(4.0 * double(call.in[2].f32()[0]) / n) : 0.0f);
  parallel(*call.workers, (N + kMaskedMseChunk - 1) / kMaskedMseChunk, [&](int64_t task, int) {
    const int64_t from = task * kMaskedMseChunk;
    for_lanes(piece(N, task), [&](int64_t k, int lanes) {
      const int64_t i = from + k;
      const Vec y = get(target + i, lanes);
      const Vec d = select(is_nan(y), zero(), fnma(half, y, half * get(prediction + i, lanes)) * factor);
      if (dprediction) put(dprediction + i, d, lanes);
      if (dtarget) put(dtarget + i, -d, lanes);
    });
  });
}

}  // namespace affuse::AFFUSE_ISA
