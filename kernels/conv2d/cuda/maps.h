// Maps and weights of a convolution laid out for its products: channel-last with an edge of zeros, and back; W as rows of K.
#pragma once
#include "../../common/cuda/widths.h"
#include "patches.h"

namespace affuse::cuda::conv {

// x or g (gated by y > 0 where the activation is relu) as the products read it; zero where a column is nobody's own.
struct Staging {
  Maps m;
  Stage s;
  const float *from, *gate;  // gate null: everything passes
  float* to;
  const int32_t* widths;
  int64_t step, reach;  // column w is own if w step + reach <= widths[b] > 0
  Divider channels, width, height;

  AFFUSE_DEVICE bool own(int64_t b, int64_t h, int64_t w) const {
    if (h < 0 || h >= m.H || w < 0 || w >= m.W) return false;
    return !widths || (widths[b] > 0 && w * step + reach <= widths[b]);
  }
  AFFUSE_DEVICE float value(int64_t at) const { return gate && !(gate[at] > 0.0f) ? 0.0f : from[at]; }

  template <int N>  // of a channel-last map
  AFFUSE_DEVICE void operator()(int64_t i) const {
    const Parts pixel = channels.split(i), column = width.split(pixel.quotient), row = height.split(column.quotient);
    const int64_t b = row.quotient, h = row.rest - s.top, w = column.rest - s.left;
    Pack<N> v = fill<N>(0.0f);
    if (own(b, h, w)) {
      const int64_t at = ((b * m.H + h) * m.W + w) * m.C + pixel.rest;
      v = get<N>(from + at);
      if (gate) v = map2(v, get<N>(gate + at), [](float x, float y) { return y > 0.0f ? x : 0.0f; });
    }
    put(to + i, v);
  }
};

// Planes: 32 columns by 32 channels of a staged row pass through shared memory.
AFFUSE_GLOBAL(256, 4) stage_planes(Staging g, Divider channel_tiles, Divider column_tiles, int64_t tiles) {
  Shared shared;
  float* const tile = shared.take<float>(32 * 33);
  for (int64_t t = blockIdx.x; t < tiles; t += gridDim.x) {
    const Parts channel = channel_tiles.split(t), column = column_tiles.split(channel.quotient),
                row = g.height.split(column.quotient);
    const int64_t b = row.quotient, h = row.rest - g.s.top, c0 = channel.rest * 32, w0 = column.rest * 32;
    const int64_t w = w0 + lane() - g.s.left;
    const bool own = g.own(b, h, w);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int64_t c = c0 + warp() + 8 * i;
      tile[(warp() + 8 * i) * 33 + lane()] = own && c < g.m.C ? g.value(((b * g.m.C + c) * g.m.H + h) * g.m.W + w) : 0.0f;
    }
    barrier();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int64_t at = w0 + warp() + 8 * i, c = c0 + lane();
      if (at < g.s.W && c < g.m.C) g.to[(column.quotient * g.s.W + at) * g.m.C + c] = tile[lane() * 33 + warp() + 8 * i];
    }
    barrier();
  }
}

inline void stage(Queue& queue, const Maps& m, const Stage& s, const float* from, const float* gate, float* to,
                  const int32_t* widths, int64_t step, int64_t reach) {
  const int64_t n = m.B * s.image();
  const Staging g{m, s, from, gate, to, widths, step, reach, divider(m.C, n), divider(s.W, n), divider(s.H, n)};
  if (m.last)
    return each<4>(queue, "stage", n, m.C % 4 == 0 && aligned(from) && aligned(gate) && aligned(to), g);
  const int64_t channels = gemm::ceil_div(m.C, 32), columns = gemm::ceil_div(s.W, 32),
                tiles = m.B * s.H * channels * columns;
  const int64_t most = int64_t(queue.processors) * 32;
  AFFUSE_LAUNCH(stage_planes, queue, affuse::cuda::Grid{tiles < most ? tiles : most}, 256,
                SharedBytes().take<float>(32 * 33).bytes, g, divider(channels, tiles), divider(columns, tiles), tiles);
}

// Rows [B][area][C] as planes [B][C][area].
AFFUSE_GLOBAL(256, 4) to_planes(const float* rows, float* out, int64_t C, int64_t area, Divider channel_tiles,
                                Divider area_tiles, int64_t tiles) {
  Shared shared;
  float* const tile = shared.take<float>(32 * 33);
  for (int64_t t = blockIdx.x; t < tiles; t += gridDim.x) {
    const Parts channel = channel_tiles.split(t), place = area_tiles.split(channel.quotient);
    const int64_t b = place.quotient, c0 = channel.rest * 32, p0 = place.rest * 32;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int64_t p = p0 + warp() + 8 * i, c = c0 + lane();
      if (p < area && c < C) tile[(warp() + 8 * i) * 33 + lane()] = rows[(b * area + p) * C + c];
    }
    barrier();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int64_t c = c0 + warp() + 8 * i, p = p0 + lane();
      if (p < area && c < C) out[(b * C + c) * area + p] = tile[lane() * 33 + warp() + 8 * i];
    }
    barrier();
  }
}
inline void unstage(Queue& queue, const Maps& m, const float* rows, float* out) {
  const int64_t area = m.H * m.W, channels = gemm::ceil_div(m.C, 32), places = gemm::ceil_div(area, 32),
                tiles = m.B * channels * places;
  const int64_t most = int64_t(queue.processors) * 32;
  AFFUSE_LAUNCH(to_planes, queue, affuse::cuda::Grid{tiles < most ? tiles : most}, 256,
                SharedBytes().take<float>(32 * 33).bytes, rows, out, m.C, area, divider(channels, tiles),
                divider(places, tiles), tiles);
}

// W for the forward: row (i kw + j) C + c, column o.
struct ForwardWeights {
  const float* W;
  float* to;
  int64_t C, taps;
  Divider outputs, inputs;
  template <int N>
  AFFUSE_DEVICE void operator()(int64_t at) const {
    const Parts row = outputs.split(at), tap = inputs.split(row.quotient);
    to[at] = W[(row.rest * C + tap.rest) * taps + tap.quotient];
  }
};
// W for a phase of dx: row (t Tw + u) O + o, column c; the phase's taps in descending order.
struct PhaseWeights {
  const float* W;
  float* to;
  int64_t C, kw, taps, stride, last_h, last_w;  // the phase's last taps
  Divider inputs, outputs, across;
  template <int N>
  AFFUSE_DEVICE void operator()(int64_t at) const {
    const Parts row = inputs.split(at), tap = outputs.split(row.quotient), place = across.split(tap.quotient);
    const int64_t i = last_h - stride * place.quotient, j = last_w - stride * place.rest;
    to[at] = W[(tap.rest * C + row.rest) * taps + i * kw + j];
  }
};

// dW out of the pieces' sums [O][taps C], added up in order.
struct WeightsAdded {
  const float* from;
  float* to;
  int64_t C, taps, n;
  int pieces;
  Divider tap, inputs;
  template <int N>
  AFFUSE_DEVICE void operator()(int64_t at) const {
    const Parts column = tap.split(at), row = inputs.split(column.quotient);
    const float* const first = from + row.quotient * (C * taps) + column.rest * C + row.rest;
    float sum = *first;
    for (int p = 1; p < pieces; ++p) sum += first[p * n];
    to[at] = sum;
  }
};

}  // namespace affuse::cuda::conv
