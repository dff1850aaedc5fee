// layer_norm on a device.
//
// Forward: a team of threads for a row (rows.h): mean, then variance of what is in its registers, then y.
// Backward: a block takes a chunk of rows (their number decides, not the grid), a warp or the whole block one row at a
// time; a thread has the same columns in every row, so dgamma and dbeta add up in its registers. The warps' sums meet in
// shared memory, the chunks' in a second launch, both in order. x and dy are read once, dx is written once.
//
// Rows whose variance leaves float32's range, or whose mean is far from 0 beside it, are done in float64, off the common way.
#include "../common/cuda/columns.h"
#include "../common/cuda/rows.h"
#include "layer_norm.h"

namespace affuse::cuda {
namespace {

constexpr float kTinyRstd = 1e-18f, kFarMean = 256;  // as on the CPU: beyond these the row is not ordinary

struct Stats {
  float mean, rstd;
  AFFUSE_DEVICE bool ordinary() const { return rstd >= kTinyRstd && fabsf(mean) * rstd <= kFarMean; }
};
struct WideStats {
  double mean, rstd;
};

// Reads the row into x.
template <int LANES, int N, int K>
AFFUSE_DEVICE Stats stats_of(const Row<LANES, N, K>& row, Kept<N, K>& x, float eps) {
  float sum = 0;
  row.each([&](int k, int64_t c) { sum += sum_of(x.first(k, c)); });
  const float mean = row.sum(sum) / float(row.columns);
  float squares = 0;
  row.each([&](int k, int64_t c) {
    const Pack<N> d = x.again(k, c).map([mean](float v) { return v - mean; });
    squares = dot_of(d, d, squares);
  });
  return {mean, 1.0f / sqrtf(row.sum(squares) / float(row.columns) + eps)};
}
template <int LANES, int N, int K>
AFFUSE_DEVICE WideStats wide_stats_of(const Row<LANES, N, K>& row, const Kept<N, K>& x, double eps) {
  double sum = 0, squares = 0;
  row.each([&](int k, int64_t c) {
    const Pack<N> v = x.again(k, c);
#pragma unroll
    for (int i = 0; i < N; ++i) sum += double(v.v[i]);
  });
  const double mean = row.sum(sum) / double(row.columns);
  row.each([&](int k, int64_t c) {
    const Pack<N> v = x.again(k, c);
#pragma unroll
    for (int i = 0; i < N; ++i) squares += (double(v.v[i]) - mean) * (double(v.v[i]) - mean);
  });
  return {mean, 1.0 / sqrt(row.sum(squares) / double(row.columns) + eps)};
}

struct Normalised {
  const float *x, *gamma, *beta;
  float *y, *mean, *rstd;  // each may be null
  double eps;
  template <int LANES, int N, int K>
  AFFUSE_DEVICE void operator()(const Row<LANES, N, K>& row) const {
    Kept<N, K> v(x + row.at);
    Stats s = stats_of(row, v, float(eps));
    const bool odd = row.there && !s.ordinary();
    if (row.any(odd)) {
      const WideStats w = wide_stats_of(row, v, eps);
      if (odd) {
        s = {float(w.mean), float(w.rstd)};
        row.each([&](int k, int64_t c) {
          const Pack<N> xs = v.again(k, c);
#pragma unroll
          for (int i = 0; i < N; ++i)
            if (y)
              y[row.at + c + i] = float((double(xs.v[i]) - w.mean) * w.rstd * double(gamma[c + i]) + double(beta[c + i]));
        });
      }
    }
    if (y && !odd)
      row.each([&](int k, int64_t c) {
        const Pack<N> xs = v.again(k, c), g = get<N>(gamma + c), b = get<N>(beta + c);
        Pack<N> out;
#pragma unroll
        for (int i = 0; i < N; ++i) out.v[i] = fmaf((xs.v[i] - s.mean) * s.rstd, g.v[i], b.v[i]);
        put(y + row.at + c, out);
      });
    if (!row.first || !row.there) return;
    if (mean) mean[row.index] = s.mean;
    if (rstd) rstd[row.index] = s.rstd;
  }
};

void forward(const OpCall& call, Queue& queue) {
  const int64_t C = call.in[1].dim[0], R = call.in[0].count() / C;
  const float *x = call.in[0].f32(), *gamma = call.in[1].f32(), *beta = call.in[2].f32();
  float* y = call.out[0].f32();
  const bool wide = C % 4 == 0 && aligned(x) && aligned(gamma) && aligned(beta) && aligned(y);
  rows(queue, "layer_norm", R, C, wide,
       Normalised{x, gamma, beta, y, call.out[1].f32(), call.out[2].f32(), call.attr[0].f});
}

// ---- backward ----

// Rows of a chunk: enough chunks to fill a device, few enough that adding them up costs little.
int64_t chunk_rows(int64_t R) { return R <= 4096 ? 8 : (R + 511) / 512; }
int64_t chunks_of(int64_t R) { return (R + chunk_rows(R) - 1) / chunk_rows(R); }

// A running sum for every column that a thread has: in registers, or for K = 0 in memory that is its alone.
template <int N, int K>
struct Running {
  float* memory;
  Pack<N> v[K ? K : 1];
  AFFUSE_DEVICE explicit Running(float* sums) : memory(sums) {}
  AFFUSE_DEVICE void set(int k, int64_t c, const Pack<N>& x) {
    if constexpr (K > 0) v[k] = x;
    else put(memory + c, x);
  }
  AFFUSE_DEVICE Pack<N> at(int k, int64_t c) const {
    if constexpr (K > 0) return v[k];
    else return get<N>(memory + c);
  }
};

struct Backward {
  const float *x, *gamma, *mean, *rstd, *dy;  // mean, rstd: both or null
  float *dx, *partial;                        // partial [chunks][2][C]: dgamma, dbeta; each may be null
  int64_t R, C, chunk, chunks;
  double eps;
};

template <int LANES, int N, int K>
AFFUSE_GLOBAL(kRowThreads, 2) gradients(Backward a) {
  constexpr int teams = kRowThreads / LANES;
  Shared shared;
  double* const room = shared.take<double>(kRowThreads / 32);
  float* const sums = teams > 1 ? shared.take<float>(unsigned(teams * 2 * a.C)) : nullptr;  // [teams][2][C]
  const int team = int(threadIdx.x) / LANES;
  for (int64_t chunk = blockIdx.x; chunk < a.chunks; chunk += gridDim.x) {
    const int64_t from = chunk * a.chunk, end = from + a.chunk < a.R ? from + a.chunk : a.R;
    float* const total = a.partial ? a.partial + chunk * 2 * a.C : nullptr;
    const Row<LANES, N, K> whole{room, 0, 0, a.C, true, false};
    Running<N, K> pg(total), pb(total ? total + a.C : nullptr);
    if (total)
      whole.each([&](int k, int64_t c) { pg.set(k, c, fill<N>(0.0f)), pb.set(k, c, fill<N>(0.0f)); });
    for (int64_t first = from; first < end; first += teams) {
      const int64_t r = first + team;
      const Row<LANES, N, K> row{room, r, r * a.C, a.C, r < end, threadIdx.x % LANES == 0};
      Kept<N, K> x(a.x + row.at), dy(a.dy + row.at);
      Stats s{0, 1};
      if (!a.mean) {
        s = stats_of(row, x, float(a.eps));
      } else if (row.there) {
        s = {a.mean[r], a.rstd[r]};
        row.each([&](int k, int64_t c) { x.first(k, c); });
      }
      row.each([&](int k, int64_t c) { dy.first(k, c); });
      const bool odd = row.there && !s.ordinary();
      if (row.any(odd)) {
        const WideStats w = wide_stats_of(row, x, a.eps);
        double d1 = 0, d2 = 0;
        if (odd)
          row.each([&](int k, int64_t c) {
            const Pack<N> xs = x.again(k, c), g = dy.again(k, c), ga = get<N>(a.gamma + c);
            Pack<N> sum_g = fill<N>(0.0f);
#pragma unroll
            for (int i = 0; i < N; ++i) {
              const double xhat = (double(xs.v[i]) - w.mean) * w.rstd, d = double(g.v[i]) * double(ga.v[i]);
              d1 += d, d2 += d * xhat;
              sum_g.v[i] = float(double(g.v[i]) * xhat);
            }
            if (total) pg.set(k, c, pg.at(k, c) + sum_g), pb.set(k, c, pb.at(k, c) + g);
          });
        d1 = row.sum(d1) / double(a.C), d2 = row.sum(d2) / double(a.C);
        if (odd && a.dx)
          row.each([&](int k, int64_t c) {
            const Pack<N> xs = x.again(k, c), g = dy.again(k, c), ga = get<N>(a.gamma + c);
#pragma unroll
            for (int i = 0; i < N; ++i) {
              const double xhat = (double(xs.v[i]) - w.mean) * w.rstd;
              a.dx[row.at + c + i] = float(w.rstd * (double(g.v[i]) * double(ga.v[i]) - d1 - xhat * d2));
            }
          });
      }
      float sum1 = 0, sum2 = 0;
      if (!odd)
        row.each([&](int k, int64_t c) {
          const Pack<N> g = dy.again(k, c), d = g * get<N>(a.gamma + c);
          const Pack<N> xhat = x.again(k, c).map([s](float v) { return (v - s.mean) * s.rstd; });
          sum1 += sum_of(d);
          sum2 = dot_of(d, xhat, sum2);
          if (total) pg.set(k, c, pg.at(k, c) + g * xhat), pb.set(k, c, pb.at(k, c) + g);
        });
      if (!a.dx) continue;
      const float mean_d = row.sum(sum1) / float(a.C), mean_dx = row.sum(sum2) / float(a.C);
      if (odd) continue;
      row.each([&](int k, int64_t c) {
        const Pack<N> d = dy.again(k, c) * get<N>(a.gamma + c), xs = x.again(k, c);
        put(a.dx + row.at + c, map2(d, xs, [&](float v, float e) {
              return s.rstd * (v - mean_d - (e - s.mean) * s.rstd * mean_dx);
            }));
      });
    }
    if (!total || K == 0) continue;
    if constexpr (teams == 1) {
      whole.each([&](int k, int64_t c) { put(total + c, pg.at(k, c)), put(total + a.C + c, pb.at(k, c)); });
    } else {
      float* const own = sums + team * 2 * a.C;
      whole.each([&](int k, int64_t c) { put(own + c, pg.at(k, c)), put(own + a.C + c, pb.at(k, c)); });
      barrier();
      for (int i = int(threadIdx.x); i < 2 * int(a.C); i += kRowThreads) {
        float v = sums[i];
#pragma unroll
        for (int t = 1; t < teams; ++t) v += sums[t * 2 * int(a.C) + i];
        total[i] = v;
      }
      barrier();
    }
  }
}

template <int LANES, int N, int K>
void gradients_as(Queue& queue, const Backward& a) {
  constexpr int teams = kRowThreads / LANES;
  SharedBytes shared;
  shared.take<double>(kRowThreads / 32);
  if (teams > 1) shared.take<float>(size_t(teams * 2 * a.C));
  const int64_t most = int64_t(queue.processors) * 8;
  const Grid grid{a.chunks < most ? a.chunks : most};
  launch("layer_norm.backward", gradients<LANES, N, K>, queue, grid, kRowThreads, shared.bytes, a);
}
template <int N>
void gradients_of(Queue& queue, const Backward& a) {
  const int64_t packs = (a.C + N - 1) / N;
  if (packs <= 32) gradients_as<32, N, 1>(queue, a);
  else if (packs <= 128) gradients_as<32, N, 4>(queue, a);
  else if (packs <= 256) gradients_as<256, N, 1>(queue, a);
  else if (packs <= 1024) gradients_as<256, N, 4>(queue, a);
  else gradients_as<256, N, 0>(queue, a);
}

void backward(const OpCall& call, Queue& queue) {
  const int64_t C = call.in[1].dim[0], R = call.in[0].count() / C;
  const float *means = call.in[3].f32(), *rstds = call.in[4].f32();
  float *dgamma = call.out[1].f32(), *dbeta = call.out[2].f32();
  const bool weights = dgamma || dbeta, stats = means && rstds;
  const Backward a{call.in[0].f32(), call.in[1].f32(), stats ? means : nullptr, stats ? rstds : nullptr, call.in[5].f32(),
                   call.out[0].f32(), weights ? static_cast<float*>(call.workspace) : nullptr,
                   R, C, chunk_rows(R), chunks_of(R), call.attr[0].f};
  // The workspace's rows are as aligned as x's.
  if (C % 4 == 0 && aligned(a.x) && aligned(a.gamma) && aligned(a.dy) && aligned(a.dx)) gradients_of<4>(queue, a);
  else gradients_of<1>(queue, a);
  if (weights) column_sums(queue, "layer_norm.backward weights", {a.partial, a.chunks, 2 * C, {dgamma, dbeta}, C});
}
size_t workspace(const OpShape& s, int) {
  int64_t R = 1;
  for (int i = 0; i + 1 < s.in[0].rank; ++i) R *= s.in[0].dim[i];
  return size_t(chunks_of(R) * 2 * s.in[1].dim[0]) * sizeof(float);
}

}  // namespace

AFFUSE_DEVICE_OP(kLayerNorm, "layer_norm", &forward)
AFFUSE_DEVICE_OP(kLayerNormBackward, "layer_norm.backward", &backward, &workspace)

}  // namespace affuse::cuda
