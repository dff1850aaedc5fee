// transpose on a device, x seen as [outer, P, middle, Q, inner].
//
//   inner = 1   a block takes a tile of 64 x 64 of one P x Q plane through shared memory, a warp 32 neighbours at a time on
//               both sides; a row of the tile is one word longer, so that neither side meets a bank twice
//   inner > 1   rows of `inner` elements move: a thread takes one or four neighbours of y
#include "../common/cuda/divide.h"
#include "../common/cuda/stream.h"
#include "transpose.h"

namespace affuse::cuda {
namespace {

constexpr int kTile = 64, kTileThreads = 256, kTileRow = kTile + 1;

struct Planes {
  Swap s;
  int64_t tiles_p, tiles_q, tasks;
  const float* x;
  float* y;
};

AFFUSE_GLOBAL(kTileThreads, 4) transpose_planes(Planes a) {
  Shared shared;
  float* const tile = shared.take<float>(kTile * kTileRow);  // [p][q]
  const int along = int(threadIdx.x) % kTile, across = int(threadIdx.x) / kTile;
  for (int64_t task = blockIdx.x; task < a.tasks; task += gridDim.x) {
    const int64_t tq = task % a.tiles_q, rest = task / a.tiles_q, tp = rest % a.tiles_p, plane = rest / a.tiles_p;
    const int64_t o = plane / a.s.middle, m = plane % a.s.middle;
    const int64_t row_x = a.s.middle * a.s.Q, row_y = a.s.middle * a.s.P;
    const int64_t p0 = tp * kTile, q0 = tq * kTile;
    const int ps = a.s.P - p0 < kTile ? int(a.s.P - p0) : kTile, qs = a.s.Q - q0 < kTile ? int(a.s.Q - q0) : kTile;
    const float* const x = a.x + (o * a.s.P + p0) * row_x + m * a.s.Q + q0;
    float* const y = a.y + (o * a.s.Q + q0) * row_y + m * a.s.P + p0;
#pragma unroll 8
    for (int p = across; p < kTile; p += kTileThreads / kTile)
      if (p < ps && along < qs) tile[p * kTileRow + along] = x[p * row_x + along];
    barrier();
#pragma unroll 8
    for (int q = across; q < kTile; q += kTileThreads / kTile)
      if (q < qs && along < ps) y[q * row_y + along] = tile[along * kTileRow + q];
    barrier();
  }
}

struct Rows {  // element i of y [outer, Q, middle, P, inner]
  Swap s;
  Divider inner, P, middle, Q;
  const float* x;
  float* y;
  template <int N>
  AFFUSE_DEVICE void operator()(int64_t i) const {
    const Parts in = inner.split(i), p = P.split(in.quotient), m = middle.split(p.quotient), q = Q.split(m.quotient);
    const int64_t o = q.quotient;
    put(y + i, get<N>(x + (((o * s.P + p.rest) * s.middle + m.rest) * s.Q + q.rest) * s.inner + in.rest));
  }
};

void swapped(Queue& queue, const char* name, Swap s, const float* x, float* y) {
  const int64_t n = s.outer * s.P * s.middle * s.Q * s.inner;
  if (n == 0) return;
  // An axis of one element: the other one changes places with what is between them.
  if (s.P == 1) s.P = s.middle, s.middle = 1;
  else if (s.Q == 1) s.Q = s.middle, s.middle = 1;
  if (s.P == 1 || s.Q == 1) return copy(queue, name, n, x, y);
  if (s.inner > 1) {
    const bool wide = s.inner % 4 == 0 && aligned(x) && aligned(y);
    const Rows rows{s, divider(s.inner, n), divider(s.P, n), divider(s.middle, n), divider(s.Q, n), x, y};
    return each<5>(queue, name, n, wide, rows);
  }
  const int64_t tiles_p = (s.P + kTile - 1) / kTile, tiles_q = (s.Q + kTile - 1) / kTile;
  const Planes planes{s, tiles_p, tiles_q, s.outer * s.middle * tiles_p * tiles_q, x, y};
  const int64_t most = int64_t(queue.processors) * 32;
  launch(name, transpose_planes, queue, Grid{planes.tasks < most ? planes.tasks : most}, kTileThreads,
         SharedBytes().take<float>(kTile * kTileRow).bytes, planes);
}

void forward(const OpCall& call, Queue& queue) {
  swapped(queue, "transpose", swap_of(call.in[0], call.attr), call.in[0].f32(), call.out[0].f32());
}
void backward(const OpCall& call, Queue& queue) {
  swapped(queue, "transpose.backward", swap_of(call.in[1], call.attr), call.in[1].f32(), call.out[0].f32());
}

}  // namespace

AFFUSE_DEVICE_OP(kTranspose, "transpose", &forward)
AFFUSE_DEVICE_OP(kTransposeBackward, "transpose.backward", &backward)

}  // namespace affuse::cuda
