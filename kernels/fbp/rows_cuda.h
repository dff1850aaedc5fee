// FBP's small kernels on a device: pooling of projections in memory, the norm, the gradient at s, the gradients at the
// projections. Sums run in an order that sizes decide.
#pragma once
#include "../common/cuda/reduce.h"
#include "tile_cuda.h"

namespace affuse::cuda {

// Sums over k from activated projections u [.., P] (one row per group) and v [B, P] in memory: a thread for each cell.
AFFUSE_GLOBAL(256, 4) fbp_pool(FbpFinish f, const float* v, Divider outputs) {
  const float scale = float(f.mask.scale);
  for (int64_t i = int64_t(blockIdx.x) * 256 + threadIdx.x; i < f.B * f.o; i += int64_t(gridDim.x) * 256) {
    const int64_t row = outputs.quotient(i), output = i - row * f.o;
    const float *const x = f.given + f.group.quotient(row) * f.P + output * f.k, *const y = v + row * f.P + output * f.k;
    float sum = 0;
    for (int from = 0; from < f.k; from += 32) {
      const int n = f.k - from < 32 ? f.k - from : 32;
      const unsigned bits = f.dropout ? fbp_kept_bits(f.mask, f.element(row, output) + unsigned(from), n) : ~0u;
#pragma unroll 4
      for (int j = 0; j < n; ++j) {
        const float product = x[from + j] * y[from + j];
        sum += f.dropout ? (bits >> j & 1 ? product * scale : 0.0f) : product;
      }
    }
    f.put_sum(row, output, sum);
  }
}

// The sum over a team of TEAM threads (a warp or a block), in all of them.
template <int TEAM>
AFFUSE_DEVICE double team_sum(double x, double* room) {
  if constexpr (TEAM == 32) return warp_sum(x);
  else return block_sum<TEAM>(x, room);
}

// What shares a root: a row's or a group's elements, `size` of them; a team takes one after another.
struct FbpScopes {
  int64_t count, size;
  bool power, l2;
  float eps;
  double eps2;
  AFFUSE_DEVICE float root(float s) const { return power ? s / sqrtf(fabsf(s) + eps) : s; }
};
template <int TEAM>
AFFUSE_DEVICE int64_t fbp_team() { return int64_t(blockIdx.x) * (256 / TEAM) + threadIdx.x / TEAM; }
template <int TEAM>
AFFUSE_DEVICE int64_t fbp_teams() { return int64_t(gridDim.x) * (256 / TEAM); }

// z = r / sqrt(sum r^2 + eps2), in place.
template <int TEAM>
AFFUSE_GLOBAL(256, 4) fbp_norm(FbpScopes a, float* r) {
  Shared shared;
  double* const room = shared.take<double>(8);
  for (int64_t scope = fbp_team<TEAM>(); scope < a.count; scope += fbp_teams<TEAM>()) {
    float* const x = r + scope * a.size;
    double squares = 0;
    for (int64_t i = threadIdx.x % TEAM; i < a.size; i += TEAM) squares += double(x[i]) * x[i];
    const float scale = float(1.0 / sqrt(team_sum<TEAM>(squares, room) + a.eps2));
    for (int64_t i = threadIdx.x % TEAM; i < a.size; i += TEAM) x[i] *= scale;
  }
}

// ds = given + what dz sends back through norm and root; dz or given may be null, s is as the forward left it.
template <int TEAM>
AFFUSE_GLOBAL(256, 4) fbp_gradient_at_s(FbpScopes a, const float* s, const float* dz, const float* given, float* ds) {
  Shared shared;
  double* const room = shared.take<double>(8);
  for (int64_t scope = fbp_team<TEAM>(); scope < a.count; scope += fbp_teams<TEAM>()) {
    const int64_t from = scope * a.size;
    float scale = 1, pull = 0;
    if (dz && a.l2) {
      double squares = 0, dot = 0;
      for (int64_t i = threadIdx.x % TEAM; i < a.size; i += TEAM) {
        const double r = a.root(s[from + i]);
        squares += r * r;
        dot += r * dz[from + i];
      }
      const double length = sqrt(team_sum<TEAM>(squares, room) + a.eps2);
      scale = float(1.0 / length);
      pull = float(team_sum<TEAM>(dot, room) / length / length);  // z sum(z dz) = r * this
    }
    for (int64_t i = threadIdx.x % TEAM; i < a.size; i += TEAM) {
      float d = 0;
      if (dz) {
        const float q = s[from + i];
        d = fmaf(-a.root(q), pull, dz[from + i]) * scale;
        if (a.power) {
          const float m = fabsf(q), t = m + a.eps;
          d *= fmaf(m, 0.5f, a.eps) / t / sqrtf(t);
        }
      }
      ds[from + i] = given ? given[from + i] + d : d;
    }
  }
}

// Gradients at the projections of `A` rows of a and the rows of v that meet them. A group is cut into slices of kFbpSlice
// rows, whose sums lie in `partial` [A, slices, P] if there are several. gu may be hu and gv may be hv; null: not wanted.
constexpr int64_t kFbpSlice = 64;
struct FbpGradients {
  int64_t A, o, P, group, slices, first;
  int k, activation;
  bool dropout;
  DropoutMask mask;
  const float *hu, *hv, *ds;
  float *gu, *gv, *partial;
};
// N neighbouring columns of a row are a thread's; 4 if P is a multiple of it, and then they are one draw of the mask too.
template <int N>
AFFUSE_GLOBAL(256, 4) fbp_gradients(FbpGradients f) {
  const int64_t column = (int64_t(blockIdx.x) * 256 + threadIdx.x) * N;
  if (column >= f.P) return;
  int64_t output[N];
#pragma unroll
  for (int e = 0; e < N; ++e) output[e] = (column + e) / f.k;
  for (int64_t item = blockIdx.y; item < f.A * f.slices; item += gridDim.y) {
    const int64_t a = item / f.slices, from = (item - a * f.slices) * kFbpSlice;
    const int64_t to = f.group - from < kFbpSlice ? f.group : from + kFbpSlice;
    const Pack<N> x = get<N>(f.hu + a * f.P + column);
    Pack<N> sum = fill<N>(0.0f);
    for (int64_t row = a * f.group + from; row < a * f.group + to; ++row) {
      const Pack<N> y = get<N>(f.hv + row * f.P + column);
      Pack<N> dp, to_v;
#pragma unroll
      for (int e = 0; e < N; ++e) dp.v[e] = f.ds[row * f.o + output[e]];
      Pack<4> factors;
      if (f.dropout) {
        const int64_t element = (f.first + row) * f.P + column;
        factors = dropout_factors(f.mask, element >> 2);
        if constexpr (N == 1) {
          const int w = int(element & 3);
          factors.v[0] = w == 0 ? factors.v[0] : w == 1 ? factors.v[1] : w == 2 ? factors.v[2] : factors.v[3];
        }
      }
#pragma unroll
      for (int e = 0; e < N; ++e) {
        const bool dropped = f.dropout && factors.v[e] == 0;
        const float d = f.dropout ? dp.v[e] * factors.v[e] : dp.v[e];
        sum.v[e] += dropped ? 0.0f : d * y.v[e];
        to_v.v[e] = fbp_sloped(f.activation, y.v[e], dropped ? 0.0f : d * x.v[e]);
      }
      if (f.gv) put(f.gv + row * f.P + column, to_v);
    }
    if (!f.gu) continue;
    if (f.slices > 1) {
      put(f.partial + item * f.P + column, sum);
    } else {
#pragma unroll
      for (int e = 0; e < N; ++e) sum.v[e] = fbp_sloped(f.activation, x.v[e], sum.v[e]);
      put(f.gu + a * f.P + column, sum);
    }
  }
}
// The slices' sums, in order.
struct FbpGathered {
  FbpGradients f;
  Divider columns;
  template <int N>
  AFFUSE_DEVICE void operator()(int64_t i) const {
    const int64_t a = columns.quotient(i);
    const float* from = f.partial + a * f.slices * f.P + (i - a * f.P);
    Pack<N> sum = get<N>(from);
    for (int64_t s = 1; s < f.slices; ++s) sum = sum + get<N>(from += f.P);
    const int kind = f.activation;
    put(f.gu + i, map2(get<N>(f.hu + i), sum, [kind](float h, float g) { return fbp_sloped(kind, h, g); }));
  }
};

}  // namespace affuse::cuda
