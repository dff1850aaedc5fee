// afg's backward for one ISA level, in up to four steps:
//
//   keys     only if k was not saved: k = tanh(Wx + b) of the valid frames
//   samples  one task each: ᾱ = dα + dc · x, s̄, dq, p̄ and the sample's part of db (and du). x is read once; nothing here costs A·D
//   dW       Σ p̄ xᵀ over the list of valid frames, by the matrix core
//   dx       p̄ W by the matrix core, + Σ_j α_j dc_j where the tile is stored
//
// A step that no wanted gradient needs is left out; with frozen features the last one is. Sums over samples (db, du) are
// added up in the order of the samples.
#include "frames_cpu.h"

namespace affuse::AFFUSE_ISA {
namespace {

struct StoreKeys : gemm::Epilogue {
  const float* bias;
  float* keys;
  int64_t A;
  void tile(const gemm::Tile& t, int) const {
    for (int r = 0; r < t.rows; ++r)
      for_lanes(t.cols, [&](int64_t a, int n) {
        put(keys + (t.row + r) * A + t.col + a,
            tanh(load(t.acc + r * gemm::kTileStride + a) + get(bias + t.col + a, n)), n);
      });
  }
};

struct StoreFeatureGradient : gemm::Epilogue {
  AfgSize n;
  FrameList list;
  const float *share, *dc;  // dc null: not given
  float* dx;
  void tile(const gemm::Tile& t, int) const {
    for (int r = 0; r < t.rows; ++r) {
      const int64_t row = t.row + r, b = list.sample[row];
      float* out = dx + (b * n.T + list.frame[row]) * n.D + t.col;
      for_lanes(t.cols, [&](int64_t d, int lanes) {
        Vec v = load(t.acc + r * gemm::kTileStride + d);
        for (int64_t j = 0; dc && j < n.J; ++j)
          v = fma(set1(share[row * n.J + j]), get(dc + (b * n.J + j) * n.D + t.col + d, lanes), v);
        put(out + d, v, lanes);
      });
    }
  }
};

struct Backward {
  AfgSize n;
  BackwardPlan plan;
  BackwardScratch s;
  const float *query, *alpha, *k, *dc, *dalpha;  // alpha, k, dc, dalpha: null when not given
  int64_t query_stride;
  float scale;
  bool masked;
  float *dq, *du;  // null: not wanted

  const float* key(int64_t entry) const {
    if (!k) return s.keys + entry * n.A;
    return k + (s.list.sample[entry] * n.T + s.list.frame[entry]) * n.A;
  }

  // α_j of the sample's valid frames into weight[0, count), of its padding into *padding.
  void weights(int64_t b, int64_t j, int64_t begin, int64_t count, float* weight, float* padding) const {
    const bool padded = !masked && count < n.T;
    *padding = 0;
    if (alpha) {
      const float* row = alpha + (b * n.J + j) * n.T;
      for (int64_t i = 0; i < count; ++i) weight[i] = row[s.list.frame[begin + i]];
      if (padded) *padding = row[first_padding(begin, count)];
      return;
    }
    const float* q = query + b * query_stride + j * n.A;
    for (int64_t i = 0; i < count; ++i) weight[i] = scale * dot_of(q, key(begin + i), n.A);
    float quiet = 0, peak = largest(weight, count, -__builtin_inff());
    if (padded) peak = largest(&(quiet = scale * dot_of(q, s.silent, n.A)), 1, peak);
    float total = exp_shifted(weight, count, peak);
    if (padded) total += float(n.T - count) * (*padding = exp_of(quiet - peak));
    multiply(weight, count, 1.0f / total);
    *padding /= total;
  }

  int64_t first_padding(int64_t begin, int64_t count) const {
    for (int64_t i = 0; i < count; ++i)
      if (s.list.frame[begin + i] != i) return i;
    return count;
  }

  // ᾱ_j of the valid frames into slope[j*T + 0, count), for all j: each row of x is read once.
  void weight_gradients(int64_t b, int64_t begin, int64_t count, float* slope) const {
    for (int64_t i = 0; i < count; ++i)
      for (int64_t j = 0; j < n.J; ++j) {
        float g = dalpha ? dalpha[(b * n.J + j) * n.T + s.list.frame[begin + i]] : 0.0f;
        if (dc) g += dot_of(dc + (b * n.J + j) * n.D, s.list.row[begin + i], n.D);
        slope[j * n.T + i] = g;
      }
  }

  // slope[0, count): ᾱ_j → s̄_j; returns the sum of the padding frames' s̄_j (their keys are all the same).
  float slopes(int64_t b, int64_t j, int64_t begin, int64_t count, const float* weight, float padding, float* slope) const {
    const float* grad_alpha = dalpha ? dalpha + (b * n.J + j) * n.T : nullptr;
    const bool padded = !masked && count < n.T;
    float mean = 0, padding_grad = 0;  // Σ α ᾱ; Σ of dα over the padding
    for (int64_t i = 0; i < count; ++i) mean += weight[i] * slope[i];
    if (padded && grad_alpha) {
      for (int64_t t = 0, i = 0; t < n.T; ++t) {
        if (i < count && s.list.frame[begin + i] == t) ++i;
        else padding_grad += grad_alpha[t];
      }
      mean += padding * padding_grad;
    }
    for (int64_t i = 0; i < count; ++i) slope[i] = scale * weight[i] * (slope[i] - mean);
    return padded ? scale * padding * (padding_grad - float(n.T - count) * mean) : 0.0f;
  }

  // p ← (Σ_j slope_j q_j) ∘ (1 − key²), and part_db += p; slope_j at slope[j * stride]. p null: only part_db.
  void key_gradient(const float* key, const float* q, const float* slope, int64_t stride, float* p, float* part_db) const {
    for_lanes(n.A, [&](int64_t a, int lanes) {
      const Vec value = get(key + a, lanes);
      Vec g = zero();
      for (int64_t j = 0; j < n.J; ++j) g = fma(set1(slope[j * stride]), get(q + j * n.A + a, lanes), g);
      g = g * fnma(value, value, set1(1.0f));
      if (p) put(p + a, g, lanes);
      put(part_db + a, get(part_db + a, lanes) + g, lanes);
    });
  }

  void sample(int64_t b, int worker) const {
    const int64_t begin = s.list.first[b], count = s.list.first[b + 1] - begin;
    float *weight = s.weight + worker * n.J * n.T, *slope = s.slope + worker * n.J * n.T;
    float* part_db = s.part_db + b * n.A;
    float* query_grad = dq ? dq + b * n.J * n.A : du ? s.part_du + b * n.A : nullptr;
    fill(part_db, n.A, 0.0f);
    if (query_grad) fill(query_grad, n.J * n.A, 0.0f);
    if (count == 0) return;
    const float* q = query + b * query_stride;
    weight_gradients(b, begin, count, slope);
    for (int64_t j = 0; j < n.J; ++j) {
      float padding;
      weights(b, j, begin, count, weight + j * n.T, &padding);
      const float silent_slope = slopes(b, j, begin, count, weight + j * n.T, padding, slope + j * n.T);
      if (plan.features)
        for (int64_t i = 0; i < count; ++i) s.share[(begin + i) * n.J + j] = weight[j * n.T + i];
      weight[j * n.T] = silent_slope;  // the weights are used up: kept for the padding's key below
      if (!query_grad) continue;
      for (int64_t i = 0; i < count; ++i) add_scaled(query_grad + j * n.A, key(begin + i), slope[j * n.T + i], n.A);
      if (!masked && count < n.T) add_scaled(query_grad + j * n.A, s.silent, silent_slope, n.A);
    }
    if (!plan.pre) return;
    for (int64_t i = 0; i < count; ++i)
      key_gradient(key(begin + i), q, slope + i, n.T, s.pre + (begin + i) * n.A, part_db);
    if (!masked && count < n.T) key_gradient(s.silent, q, weight, n.T, nullptr, part_db);
  }
};

// out[0, A) = Σ_b part[b], samples in order.
void add_samples(const float* part, int64_t B, int64_t A, float* out) {
  for_lanes(A, [&](int64_t a, int n) {
    Vec total = zero();
    for (int64_t b = 0; b < B; ++b) total = total + get(part + b * A + a, n);
    put(out + a, total, n);
  });
}

}  // namespace

void afg_backward_pack(const OpShape& shape, int, const void* W, void* packed, const Workers& workers) {
  const AfgSize n = afg_size(shape.in);
  gemm::pack_columns(static_cast<const float*>(W), n.D, n.D, n.A, gemm::Layout::kn, static_cast<float*>(packed), workers);
}

void afg_backward(const OpCall& call) {
  const Workers& workers = *call.workers;
  const Tensor *in = call.in, *out = call.out;
  Backward g;
  g.n = afg_size(in);
  const auto [B, T, D, A, J] = g.n;
  g.plan = backward_plan(in, out);
  Carver carver{static_cast<char*>(call.workspace)};
  g.s = carve_backward(carver, g.n, workers.count, g.plan);
  g.query = in[kAfgQ].given() ? in[kAfgQ].f32() : in[kAfgU].f32();
  g.query_stride = in[kAfgQ].given() ? J * A : 0;
  g.alpha = in[kAfgAlpha].f32();
  g.k = in[kAfgK].f32();
  g.dc = in[kAfgDc].f32();
  g.dalpha = in[kAfgDalpha].f32();
  g.scale = float(call.attr[kAfgScale].f);
  g.masked = call.attr[kAfgMasked].i != 0;
  g.dq = out[kAfgDq].f32();
  g.du = out[kAfgDu].f32();
  float *dx = out[kAfgDx].f32(), *dW = out[kAfgDW].f32();
  const float *W = in[kAfgW].f32(), *bias = in[kAfgB].f32();

  const FrameList& list = g.s.list;
  const int64_t count = list_frames(frames_of(in[kAfgX], in[kAfgLengths], in[kAfgMask]), in[kAfgX].f32(), D, list);
  if (!g.masked) silent_key(bias, A, g.s.silent);
  if (g.plan.keys && count > 0) {
    StoreKeys keys;
    keys.bias = bias;
    keys.keys = g.s.keys;
    keys.A = A;
    gemm::pack_columns(W, D, A, D, gemm::Layout::nk, g.s.packed_keys, workers);
    gemm::run(workers, count, A, D, gemm::IndirectRows{list.row}, g.s.packed_keys, keys, g.s.gemm);
  }
  parallel(workers, B, [&](int64_t b, int worker) { g.sample(b, worker); });
  if (out[kAfgDb].given()) add_samples(g.s.part_db, B, A, out[kAfgDb].f32());
  if (g.du) add_samples(g.s.part_du, B, A, g.du);
  if (dW)
    gemm::stream(workers, A, D, count, gemm::TransposedRows{g.s.pre, A}, gemm::IndirectColumns{list.row}, gemm::Store(dW, D),
                 g.s.gemm);
  if (!dx) return;
  if (count > 0) {
    StoreFeatureGradient features;
    features.n = g.n;
    features.list = list;
    features.share = g.s.share;
    features.dc = g.dc;
    features.dx = dx;
    const void* packed = call.packed ? call.packed[kAfgW] : nullptr;
    if (!packed) gemm::pack_columns(W, D, D, A, gemm::Layout::kn, g.s.packed_features, workers);
    gemm::run(workers, count, D, A, gemm::PlainRows{g.s.pre, A},
              packed ? static_cast<const float*>(packed) : g.s.packed_features, features, g.s.gemm);
  }
  parallel(workers, B, [&](int64_t b, int) {
    for (int64_t t = 0, i = list.first[b]; t < T; ++t) {
      if (i < list.first[b + 1] && list.frame[i] == t) ++i;
      else fill(dx + (b * T + t) * D, D, 0.0f);
    }
  });
}

}  // namespace affuse::AFFUSE_ISA
