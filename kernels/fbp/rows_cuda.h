// FBP's small kernels on a device: pooling of projections in memory, the norm, the gradient at s, the gradients at the
// projections. Sums run in an order that sizes decide.
#pragma once
#include "../common/cuda/rows.h"
#include "tile_cuda.h"

namespace affuse::cuda {

// Sums over k from activated projections u [.., P] (one row per group) and v [B, P] in memory: a thread for each cell. N of
// its factors are read at once: 4 if k is a multiple of it.
template <int N>
AFFUSE_GLOBAL(256, 4) fbp_pool(FbpFinish f, const float* v, Divider outputs) {
  const float scale = float(f.mask.scale);
  for (int64_t i = int64_t(blockIdx.x) * 256 + threadIdx.x; i < f.B * f.o; i += int64_t(gridDim.x) * 256) {
    const int64_t row = outputs.quotient(i), output = i - row * f.o;
    const float *const x = f.given + f.group.quotient(row) * f.P + output * f.k, *const y = v + row * f.P + output * f.k;
    float sum = 0;
    for (int from = 0; from < f.k; from += 32) {
      const int n = f.k - from < 32 ? f.k - from : 32;
      const unsigned bits = f.dropout ? fbp_kept_bits(f.mask, f.element(row, output) + unsigned(from), n) : ~0u;
#pragma unroll(4 / N)
      for (int j = 0; j < n; j += N) {
        const Pack<N> products = get<N>(x + from + j) * get<N>(y + from + j);
#pragma unroll
        for (int e = 0; e < N; ++e)
          sum += f.dropout ? (bits >> (j + e) & 1 ? products.v[e] * scale : 0.0f) : products.v[e];
      }
    }
    f.put_sum(row, output, sum);
  }
}

// The signed root, if there is one.
struct FbpRoot {
  bool power;
  float eps;
  AFFUSE_DEVICE float operator()(float s) const { return power ? s / sqrtf(fabsf(s) + eps) : s; }
  AFFUSE_DEVICE float sloped(float s, float d) const {  // d root'(s)
    if (!power) return d;
    const float m = fabsf(s), t = m + eps;
    return d * (fmaf(m, 0.5f, eps) / t / sqrtf(t));
  }
};

// What shares a norm, a row's or a group's elements, is a row to rows.h. A thread has four neighbours at a time whether
// memory allows 16-byte accesses (`wide`) or not, so that sums have the same order; beyond the row's end are zeros.
template <int K>
struct FbpKept {
  const float* from;
  int64_t columns;
  bool wide;
  Pack<4> v[K ? K : 1];
  AFFUSE_DEVICE FbpKept(const float* row, int64_t columns, bool wide) : from(row), columns(columns), wide(wide) {}
  AFFUSE_DEVICE Pack<4> read(int64_t c) const {
    if (wide) return get<4>(from + c);
    Pack<4> x;
#pragma unroll
    for (int e = 0; e < 4; ++e) x.v[e] = c + e < columns ? from[c + e] : 0.0f;
    return x;
  }
  AFFUSE_DEVICE Pack<4> first(int k, int64_t c) {
    v[K ? k : 0] = read(c);
    return v[K ? k : 0];
  }
  AFFUSE_DEVICE Pack<4> again(int k, int64_t c) const {
    if constexpr (K > 0) return v[k];
    else return read(c);
  }
};
AFFUSE_DEVICE void fbp_put(float* row, int64_t columns, bool wide, int64_t c, const Pack<4>& x) {
  if (wide) return put(row + c, x);
#pragma unroll
  for (int e = 0; e < 4; ++e)
    if (c + e < columns) row[c + e] = x.v[e];
}

// z = r / sqrt(sum r^2 + eps2), in place.
struct FbpNorm {
  float* r;
  double eps2;
  bool wide;
  template <int LANES, int N, int K>
  AFFUSE_DEVICE void operator()(const Row<LANES, N, K>& row) const {
    FbpKept<K> x(r + row.at, row.columns, wide);
    double squares = 0;
    row.each([&](int k, int64_t c) {
      const Pack<4> v = x.first(k, c);
#pragma unroll
      for (int e = 0; e < 4; ++e) squares += double(v.v[e]) * v.v[e];
    });
    const float scale = float(1.0 / sqrt(row.sum(squares) + eps2));
    row.each([&](int k, int64_t c) { fbp_put(r + row.at, row.columns, wide, c, x.again(k, c) * scale); });
  }
};

// ds = given + what dz sends back through norm and root; given may be null, s is as the forward left it.
struct FbpNormGradient {
  const float *s, *dz, *given;
  float* ds;
  FbpRoot root;
  double eps2;
  bool wide;
  template <int LANES, int N, int K>
  AFFUSE_DEVICE void operator()(const Row<LANES, N, K>& row) const {
    FbpKept<K> sums(s + row.at, row.columns, wide), g(dz + row.at, row.columns, wide);
    double squares = 0, dot = 0;
    row.each([&](int k, int64_t c) {
      const Pack<4> q = sums.first(k, c), d = g.first(k, c);
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const double r = root(q.v[e]);
        squares += r * r;
        dot += r * d.v[e];
      }
    });
    const double length = sqrt(row.sum(squares) + eps2);
    const float scale = float(1.0 / length), pull = float(row.sum(dot) / length / length);  // z sum(z dz) = r * this
    row.each([&](int k, int64_t c) {
      const Pack<4> q = sums.again(k, c);
      Pack<4> d = map2(q, g.again(k, c), [&](float x, float y) { return root.sloped(x, fmaf(-root(x), pull, y) * scale); });
      if (given) d = FbpKept<0>(given + row.at, row.columns, wide).read(c) + d;
      fbp_put(ds + row.at, row.columns, wide, c, d);
    });
  }
};
// The same without a norm; dz may be null too.
struct FbpRootGradient {
  const float *s, *dz, *given;
  float* ds;
  FbpRoot root;
  template <int N>
  AFFUSE_DEVICE void operator()(int64_t i) const {
    Pack<N> d = fill<N>(0.0f);
    if (dz) d = map2(get<N>(s + i), get<N>(dz + i), [&](float x, float y) { return root.sloped(x, y); });
    put(ds + i, given ? get<N>(given + i) + d : d);
  }
};

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
