// grad_norm and clip_by_norm on a device. The squares are added in float64 (sums.h): no float32 overflows, and the chips
// that this is written for do it at the speed of their memory. clip_by_norm takes the norm where grad_norm left it; one
// thread of a block divides.
#include "../common/cuda/sums.h"
#include "grad_norm.h"

namespace affuse::cuda {
namespace {

struct Squares {
  using Sum = double;
  static constexpr int kSums = 1;
  const float* g;
  float* norm;
  template <int N>
  AFFUSE_DEVICE void add(int64_t i, double (&s)[1]) const {
    const Pack<N> x = get<N>(g + i);
#pragma unroll
    for (int j = 0; j < N; ++j) s[0] += double(x.v[j]) * double(x.v[j]);
  }
  AFFUSE_DEVICE void finish(const double (&total)[1]) const { *norm = float(sqrt(total[0])); }
};

template <int N>
AFFUSE_GLOBAL(kStreamThreads, kStreamBlocks) clip(const float* g, const float* norm, double most, float* y, int64_t n) {
  Shared shared;
  float* const room = shared.take<float>(1);
  if (threadIdx.x == 0) {
    const double size = double(*norm);
    *room = size <= most ? 1.0f : float(most / size);
  }
  barrier();
  const float factor = *room;
  const int64_t step = int64_t(gridDim.x) * kStreamThreads * N;
  for (int64_t i = (int64_t(blockIdx.x) * kStreamThreads + threadIdx.x) * N; i < n; i += step) {
    if (N == 1 || i + N <= n) {
      put(y + i, get<N>(g + i) * factor);
    } else {
      for (; i < n; ++i) y[i] = g[i] * factor;
    }
  }
}

void grad_norm(const OpCall& call, Queue& queue) {
  const float* g = call.in[0].f32();
  long_sums(queue, "grad_norm", call.in[0].count(), aligned(g), Squares{g, call.out[0].f32()}, call.workspace);
}
size_t workspace(const OpShape& s, int) { return long_sums_workspace<Squares>(s.in[0].count()); }

void clip_by_norm(const OpCall& call, Queue& queue) {
  const float *g = call.in[0].f32(), *norm = call.in[1].f32();
  float* y = call.out[0].f32();
  const int64_t n = call.in[0].count();
  const bool wide = aligned(g) && aligned(y);
  const size_t shared = SharedBytes().take<float>(1).bytes;
  const double most = call.attr[0].f;
  if (wide) launch("clip_by_norm", clip<4>, queue, stream_grid<4>(queue, n), kStreamThreads, shared, g, norm, most, y, n);
  else launch("clip_by_norm", clip<1>, queue, stream_grid<1>(queue, n), kStreamThreads, shared, g, norm, most, y, n);
}

}  // namespace

AFFUSE_DEVICE_OP(kGradNorm, "grad_norm", &grad_norm, &workspace)
AFFUSE_DEVICE_OP(kClipByNorm, "clip_by_norm", &clip_by_norm)

}  // namespace affuse::cuda
