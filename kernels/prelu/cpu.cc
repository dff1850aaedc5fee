#include "../common/stream.h"
#include "prelu.h"

namespace affuse::AFFUSE_ISA {

void prelu_forward(const OpCall& call) {
  const int64_t N = call.in[0].count();
  const float* x = call.in[0].f32();
  float* y = call.out[0].f32();
  const Vec slope = set1(call.in[1].f32()[0]);
  parallel(*call.workers, (N + kPreluChunk - 1) / kPreluChunk, [&](int64_t task, int) {
    const int64_t from = task * kPreluChunk, count = N - from < kPreluChunk ? N - from : kPreluChunk;
    for_stream(count, x + from, nullptr, y + from, [&](int64_t i, auto n) AFFUSE_INLINE_BODY {
      const auto v = get(x + from + i, n);
      put(y + from + i, select(lt(zero(), v), v, slope * v), n);
    });
  });
}

void prelu_backward(const OpCall& call) {
  const int64_t N = call.in[0].count(), tasks = (N + kPreluChunk - 1) / kPreluChunk;
  const float *x = call.in[0].f32(), *dy = call.in[2].f32();
  float *dx = call.out[0].f32(), *dslope = call.out[1].f32();
  double* partial = static_cast<double*>(call.workspace);
  const Vec slope = set1(call.in[1].f32()[0]);
  parallel(*call.workers, tasks, [&](int64_t task, int) {
    const int64_t from = task * kPreluChunk, count = N - from < kPreluChunk ? N - from : kPreluChunk;
    if (dslope)
      partial[task] = long_sum(count, [&](int64_t i, int n) {
        const Vec v = get(x + from + i, n);
        return select(lt(zero(), v), zero(), v * get(dy + from + i, n));
      });
    if (dx)
      for_stream(count, x + from, dy + from, dx + from, [&](int64_t i, auto n) AFFUSE_INLINE_BODY {
        const auto g = get(dy + from + i, n);
        put(dx + from + i, select(lt(zero(), get(x + from + i, n)), g, slope * g), n);
      });
  });
  if (!dslope) return;
  double sum = 0;
  for (int64_t t = 0; t < tasks; ++t) sum += partial[t];
  dslope[0] = float(sum);
}

}  // namespace affuse::AFFUSE_ISA
