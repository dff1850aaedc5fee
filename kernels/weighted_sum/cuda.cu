// weighted_sum on a device. Forward: a warp takes 32 or 128 neighbouring columns of one sample's y and adds the J vectors
// in their order. Backward: a team of threads for each of the B J vectors (rows.h) writes dx and reduces dw in one walk
// over x and dy.
#include "../common/cuda/divide.h"
#include "../common/cuda/rows.h"
#include "weighted_sum.h"

namespace affuse::cuda {
namespace {

constexpr int kSumWarps = 8;

struct Vectors {
  int64_t J, D, tasks;
  Divider pieces;  // of a sample's columns
  const float *x, *w;
  float* y;
};

template <int N>
AFFUSE_GLOBAL(32 * kSumWarps, 6) add_vectors(Vectors a) {
  for (int64_t task = int64_t(blockIdx.x) * kSumWarps + warp(); task < a.tasks; task += int64_t(gridDim.x) * kSumWarps) {
    const Parts piece = a.pieces.split(task);
    const int64_t b = piece.quotient, d = (piece.rest * 32 + lane()) * N;
    if (d >= a.D) continue;
    const float *x = a.x + b * a.J * a.D + d, *w = a.w + b * a.J;
    Pack<N> total = fill<N>(0.0f);
#pragma unroll 4
    for (int64_t j = 0; j < a.J; ++j, x += a.D) total = fma(get<N>(x), w[j], total);
    put(a.y + b * a.D + d, total);
  }
}

struct Gradients {
  Divider J;
  const float *x, *w, *dy;
  float *dx, *dw;  // either may be null
  template <int LANES, int N, int K>
  AFFUSE_DEVICE void operator()(const Row<LANES, N, K>& row) const {
    const int64_t b = J.quotient(row.index);
    const float weight = row.there ? w[row.index] : 0.0f, *g = dy + b * row.columns;
    float dot = 0;
    row.each([&](int, int64_t c) {
      const Pack<N> d = get<N>(g + c);
      if (dw) dot = dot_of(d, get<N>(x + row.at + c), dot);
      if (dx) put(dx + row.at + c, d * weight);
    });
    if (!dw) return;
    dot = row.sum(dot);
    if (row.first && row.there) dw[row.index] = dot;
  }
};

void forward(const OpCall& call, Queue& queue) {
  const Tensor& x = call.in[kWeightedSumX];
  float* y = call.out[0].f32();
  const int64_t B = x.dim[0], J = x.dim[1], D = x.dim[2];
  const bool wide = D % 4 == 0 && aligned(x.data) && aligned(y);
  const int64_t pieces = (D + (wide ? 127 : 31)) / (wide ? 128 : 32);
  const Vectors vectors{J, D, B * pieces, divider(pieces, B * pieces), x.f32(), call.in[kWeightedSumW].f32(), y};
  const int64_t blocks = (vectors.tasks + kSumWarps - 1) / kSumWarps, most = int64_t(queue.processors) * 24;
  const Grid grid{blocks < most ? blocks : most};
  launch("weighted_sum", wide ? add_vectors<4> : add_vectors<1>, queue, grid, 32 * kSumWarps, 0, vectors);
}

void backward(const OpCall& call, Queue& queue) {
  const Tensor &x = call.in[kWeightedSumX], &dy = call.in[kWeightedSumDy];
  float *dx = call.out[kWeightedSumDx].f32(), *dw = call.out[kWeightedSumDw].f32();
  const int64_t B = x.dim[0], J = x.dim[1], D = x.dim[2];
  if (B * J == 0) return;
  const bool wide = D % 4 == 0 && aligned(x.data) && aligned(dy.data) && aligned(dx);
  rows(queue, "weighted_sum.backward", B * J, D, wide,
       Gradients{divider(J, B * J + 32), x.f32(), call.in[kWeightedSumW].f32(), dy.f32(), dx, dw});
}

}  // namespace

AFFUSE_DEVICE_OP(kWeightedSum, "weighted_sum", &forward)
AFFUSE_DEVICE_OP(kWeightedSumBackward, "weighted_sum.backward", &backward)

}  // namespace affuse::cuda
