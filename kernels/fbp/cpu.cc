// FBP forward: the epilogue of the pass (pass.h), then the norm.
#include "pass.h"

namespace affuse::AFFUSE_ISA {
namespace {

// Brings k <= kMost vectors (factor after factor) into the projections' own order (output after output). Elsewhere than in
// AVX-512 lanes are stored one by one.
struct FbpOrder {
#if defined(AFFUSE_ISA_AVX512)
  static constexpr int64_t kMost = 16;
  Int lane[kMost];
  Mask from[kMost][kMost];  // [vector made][factor]
  explicit FbpOrder(int64_t k) {
    if (k > kMost) return;
    for (int64_t i = 0; i < k; ++i) {
      int32_t lanes[kLanes];
      for (int64_t j = 0; j < k; ++j) from[i][j] = 0;
      for (int64_t t = 0; t < kLanes; ++t) {
        const int64_t e = i * kLanes + t;
        lanes[t] = int32_t(e / k);
        from[i][e % k] = Mask(from[i][e % k] | 1 << t);
      }
      lane[i] = _mm512_loadu_si512(lanes);
    }
  }
  // x [k][lanes], in place.
  AFFUSE_INLINE void apply(float* x, int64_t k, int lanes) const {
    Vec made[kMost];
    for (int64_t i = 0; i < k; ++i) made[i] = zero();
    for (int64_t j = 0; j < k; ++j) {
      const Vec v = get(x + j * lanes, lanes);
      for (int64_t i = 0; i < k; ++i) made[i] = _mm512_mask_permutexvar_ps(made[i], from[i][j], lane[i], v);
    }
    for (int64_t i = 0, left = lanes * k; i < k && left > 0; ++i, left -= kLanes)
      put(x + i * kLanes, made[i], int(gemm::min64(kLanes, left)));
  }
#else
  static constexpr int64_t kMost = 1;
  explicit FbpOrder(int64_t) {}
  AFFUSE_INLINE void apply(float*, int64_t, int) const {}
#endif
};

// Writes the activated projections hu [A,P] and hv [B,P] (null: not wanted) in their own order. Row after row of a group of
// panels, so that a page meets a whole run of stores, and the lines of the fourth row after it are on their way meanwhile.
template <int F>
struct FbpKeep {
  int64_t k, o, group, P;
  float *hu, *hv;
  FbpOrder order;
  AFFUSE_INLINE void operator()(const FbpGroup& g) const {
    // Of strips that share a row of a, the first writes it.
    const bool first = g.strip.row == g.strip.a_row * group;
    if (hu && first) side(g, g.hu, g.bias_u, g.strip.a_rows, hu + g.strip.a_row * P);
    if (hv) side(g, g.hv, g.bias_v, g.strip.rows, hv + g.strip.row * P);
  }
  void side(const FbpGroup& g, const float* h, const float* bias, int64_t rows, float* to) const {
    for (int64_t r = 0; r < rows; ++r, to += P) {
      for (int64_t q = g.q0, block = g.q0 / k, j = g.q0 % k; q < g.q1; ++q) {
        const int64_t panel = (q - g.q0) / gemm::kTileVecs, x = (q - g.q0) % gemm::kTileVecs;
        const int lanes = int(gemm::min64(kLanes, o - block * kLanes));
        Vec v = load(h + (panel * rows + r) * gemm::kTileStride + x * kLanes);
        if (bias) v += load(bias + q * kLanes);
        v = fbp_activate<F>(v);
        float* const at = to + block * kLanes * k;
        prefetch_write(at + j * lanes + 4 * P);
        if (k > FbpOrder::kMost) {
          scatter(at + j, v, k, lanes);
        } else {
          put(at + j * lanes, v, lanes);
          if (k > 1 && j + 1 == k) order.apply(at, k, lanes);
        }
        if (++j == k) j = 0, ++block;
      }
    }
  }
};

// The forward's epilogue: s over the factors of a block; at the last one s and r are stored where wanted.
template <int F>
struct FbpForward {
  int64_t k, group, o;
  bool root;
  Vec eps;
  float *r, *s;
  const FbpKeep<F>* keep;  // null: nobody wants the projections
  AFFUSE_INLINE void before(const FbpGroup& g) const {
    if (keep) (*keep)(g);
  }
  AFFUSE_INLINE void operator()(const FbpPiece& p) const {
    const int64_t per_a = p.strip.a_rows > 1 ? group : p.strip.rows;
    const bool last = p.j + 1 == k;
    int64_t row = 0;
    for (int64_t ar = 0; ar < p.strip.a_rows; ++ar) {
      const Vec hu = fbp_activate<F>(load(p.hu + ar * gemm::kTileStride) + p.bias_u);
      for (const int64_t end = gemm::min64(row + per_a, p.strip.rows); row < end; ++row) {
        Vec q = hu * fbp_activate<F>(load(p.hv + row * gemm::kTileStride) + p.bias_v);
        if (p.mask) {
          const Vec f = load(p.mask + row * k * kLanes);
          q = select(eq(f, zero()), zero(), q * f);
        }
        float* sums = p.s + row * kLanes;
        if (p.j > 0) q = load(sums) + q;
        if (!last) {
          store(sums, q);
          continue;
        }
        const int64_t at = (p.strip.row + row) * o + p.block * kLanes;
        if (s) put(s + at, q, p.lanes);
        if (r) put(r + at, root ? q / sqrt(abs(q) + eps) : q, p.lanes);
      }
    }
  }
};

}  // namespace

void fbp_run_forward(const OpCall& call, float* scratch, bool root, float* r, float* s, float* hu, float* hv) {
  const FbpPass p = fbp_pass_of(call, fbp_sizes(call.in, call.attr), scratch);
  const Vec eps = set1(float(call.attr[FbpAttr::eps].f));
  fbp_with_activation(call.attr[FbpAttr::activation].i, [&](auto tag) {
    constexpr int F = decltype(tag)::value;
    const FbpKeep<F> kept{p.z.k, p.z.o, p.z.group, p.z.P, hu, hv, FbpOrder(p.z.k)};
    fbp_pass(p, 0, p.plan.strips, FbpForward<F>{p.z.k, p.z.group, p.z.o, root, eps, r, s, hu || hv ? &kept : nullptr});
  });
}

void fbp_forward(const OpCall& call) {
  const FbpSizes z = fbp_sizes(call.in, call.attr);
  if (z.B == 0) return;
  const int64_t normalize = call.attr[FbpAttr::normalize].i;
  const bool power = normalize == FbpNormalize::power || normalize == FbpNormalize::power_l2;
  const bool l2 = normalize == FbpNormalize::l2 || normalize == FbpNormalize::power_l2;
  float *out = call.out[FbpOut::z].f32(), *s = call.out[FbpOut::s].f32();
  fbp_run_forward(call, static_cast<float*>(call.workspace), power, out, s, call.out[FbpOut::hu].f32(),
                  call.out[FbpOut::hv].f32());
  if (!out || !l2) return;
  const double eps2 = call.attr[FbpAttr::eps2].f;
  fbp_each_scope(call, z, [&](int64_t from, int64_t count) {
    float* r = out + from;
    double sum = long_sum(count, [&](int64_t i, int n) {
      const Vec x = get(r + i, n);
      return x * x;
    });
    if (sum - sum != 0) {  // squares beyond float32: once more in float64
      sum = 0;
      for (int64_t i = 0; i < count; ++i) sum += double(r[i]) * double(r[i]);
    }
    const Vec scale = set1(float(1.0 / __builtin_sqrt(sum + eps2)));
    for_lanes(count, [&](int64_t i, int n) { put(r + i, get(r + i, n) * scale, n); });
  });
}

void fbp_pack(const OpShape& shape, int input, const void* data, void* packed, const Workers& workers) {
  const FbpSizes z = fbp_sizes(shape.in, shape.attr);
  const int64_t K = input == FbpIn::U ? z.m : z.n, E = input == FbpIn::U ? z.em : z.en;
  const int64_t vectors = gemm::ceil_div(z.o, kLanes) * z.k;
  const auto* const W = static_cast<const float*>(data);
  parallel(workers, gemm::ceil_div(vectors, gemm::kTileVecs), [&](int64_t panel, int) {
    const int64_t first = panel * gemm::kTileVecs;
    const int vecs = int(gemm::min64(gemm::kTileVecs, vectors - first));
    float* const dst = static_cast<float*>(packed) + fbp_at(z, first * kLanes * E);
    if (z.bf16) fbp_pack_bf16(W, z, K, 0, E, first, vecs, dst);
    else fbp_pack_panel(W, z, K, 0, K, first, vecs, dst);
  });
}

}  // namespace affuse::AFFUSE_ISA
