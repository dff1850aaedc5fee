// The fused pass over both projections, shared by forward and backward: per strip of rows and pair of vectors of outputs, both
// accumulations end in L1, then an epilogue meets them. Included by the two cpu.cc files only.
#pragma once
#include "../common/math.h"
#include "../common/philox.h"
#include "../common/reduce.h"
#include "plan.h"

namespace affuse::AFFUSE_ISA {
namespace {

template <int F>
AFFUSE_INLINE Vec fbp_activate(Vec x) {
  if constexpr (F == FbpActivation::relu) return max(zero(), x);
  else if constexpr (F == FbpActivation::tanh) return tanh(x);
  else return x;
}

// What an epilogue gets: vector `block`, factor j of a strip. hu and hv have row stride gemm::kTileStride; bias and activation
// are already in hu, not yet in hv.
struct FbpPiece {
  FbpStrip strip;
  int64_t strip_index, block;  // outputs [block*kLanes, block*kLanes + lanes)
  int64_t j;
  int lanes;
  const float *hu, *hv;
  Vec bias_v;
  float* s;           // [strip rows][kLanes]: the worker's own, kept from j to j+1 of a block
  const float* mask;  // null, or dropout factors of factor j: row r at mask + r*k*kLanes
};

struct FbpPass {
  const Workers* workers;
  FbpSizes z;
  FbpPlan plan;
  FbpScratch at;
  const float *a, *v, *bu, *bv;  // bu and bv may be null
  const float *U, *V;            // packed; null: packed on the way from the weights below
  const float *raw_U, *raw_V;
  float* scratch;
  DropoutMask mask;
};

// Vectors [first, first + vecs) of W in the layout of fbp_packed_floats: one panel.
AFFUSE_INLINE void fbp_pack_panel(const float* W, const FbpSizes& z, int64_t K, int64_t first, int vecs, float* dst) {
  const float* rows[gemm::kTileStride];
  for (int c = 0; c < vecs * kLanes; ++c) {
    const int64_t q = first + c / kLanes, output = q / z.k * kLanes + c % kLanes;
    rows[c] = output < z.o ? W + (output * z.k + q % z.k) * K : nullptr;
  }
  gemm::pack_panel_indirect(rows, vecs * kLanes, K, dst);
}

void fbp_pack_factors(const float* W, const FbpSizes& z, int64_t K, float* dst, const Workers& workers) {
  const int64_t vectors = gemm::ceil_div(z.o, kLanes) * z.k;
  parallel(workers, gemm::ceil_div(vectors, gemm::kTileVecs), [&](int64_t panel, int) {
    const int64_t first = panel * gemm::kTileVecs;
    fbp_pack_panel(W, z, K, first, int(gemm::min64(gemm::kTileVecs, vectors - first)), dst + first * kLanes * K);
  });
}

void fbp_pack_bias(const float* b, const FbpSizes& z, float* dst) {
  const int64_t vectors = gemm::ceil_div(z.o, kLanes) * z.k;
  for (int64_t c = 0; c < vectors * kLanes; ++c) {
    const int64_t q = c / kLanes, output = q / z.k * kLanes + c % kLanes;
    dst[c] = b && output < z.o ? b[output * z.k + q % z.k] : 0.0f;
  }
}

// A strip's rows in the order of the register tiles, piece of K after piece.
AFFUSE_INLINE void fbp_pack_rows(const float* x, int64_t rows, int64_t K, int64_t piece, float* dst) {
  for (int64_t k = 0; k < K; k += piece)
    gemm::pack_rows(x + k, K, int(rows), gemm::min64(piece, K - k), dst + rows * k);
}

// h = rows times one panel; meanwhile the next one (null: none) comes into L2.
AFFUSE_INLINE void fbp_project(const float* packed_rows, int64_t rows, int64_t K, int64_t piece, const float* panel, int vecs,
                               const float* next_panel, float* h) {
  const gemm::RowTiles tiles{int(rows)};
  for (int64_t k = 0; k < K; k += piece) {
    const int64_t kc = gemm::min64(piece, K - k);
    const gemm::Upcoming next(next_panel ? next_panel + k * gemm::kTileStride : nullptr, kc, tiles.count);
    for (int t = 0; t < tiles.count; ++t)
      gemm::tile_multiply(tiles.height(t), vecs, kc, packed_rows + rows * k + tiles.start(t) * kc, panel + k * vecs * kLanes,
                          h + tiles.start(t) * gemm::kTileStride, k > 0, next.of(t), next.step);
  }
}

// Dropout factors of one block for all rows of a strip: out[(r*k + j)*kLanes + lane]; row is scratch of kLanes*k floats.
void fbp_mask(const DropoutMask& mask, const FbpSizes& z, const FbpStrip& strip, int64_t block, int lanes, float* out,
              float* row) {
  for (int64_t r = 0; r < strip.rows; ++r) {
    dropout_factors(mask, uint64_t((strip.row + r) * z.P + block * kLanes * z.k), lanes * z.k, row);
    for (int64_t j = 0; j < z.k; ++j) {
      float* d = out + (r * z.k + j) * kLanes;
      for (int l = 0; l < kLanes; ++l) d[l] = l < lanes ? row[l * z.k + j] : 0.0f;
    }
  }
}

// Strips [first, first + count). F: activation. E: struct with void operator()(const FbpPiece&) const.
template <int F, class E>
void fbp_pass(const FbpPass& p, int64_t first, int64_t count, const E& epilogue) {
  const FbpSizes& z = p.z;
  const FbpPlan& plan = p.plan;
  const FbpScratch& at = p.at;
  float* const bias_u = p.scratch;
  float* const bias_v = bias_u + gemm::round_up(z.o, 16) * z.k;
  fbp_pack_bias(p.bu, z, bias_u);
  fbp_pack_bias(p.bv, z, bias_v);
  const int64_t a_size = gemm::round_up(plan.a_rows * z.m, 16), v_size = gemm::round_up(plan.strip_rows * z.n, 16);
  auto pack = [&](const FbpStrip& s, float* a, float* v) {
    fbp_pack_rows(p.a + s.a_row * z.m, s.a_rows, z.m, plan.piece_m, a);
    fbp_pack_rows(p.v + s.row * z.n, s.rows, z.n, plan.piece_n, v);
  };
  if (plan.by_panel)
    parallel(*p.workers, count, [&](int64_t i, int) {
      pack(fbp_strip(z, plan, first + i), p.scratch + at.a + i * a_size, p.scratch + at.v + i * v_size);
    });
  parallel(*p.workers, plan.by_panel ? plan.col_blocks : count, [&](int64_t task, int worker) {
    const int64_t i0 = plan.by_panel ? 0 : task, i1 = plan.by_panel ? count : task + 1;
    const int64_t o0 = plan.by_panel ? task * plan.block_outputs : 0, o1 = gemm::min64(z.o, o0 + plan.block_outputs);
    const int64_t q1 = gemm::ceil_div(o1, kLanes) * z.k;
    float* const own = p.scratch + at.worker + worker * at.own;
    float *const hu = own + at.own_hu, *const hv = own + at.own_hv;
    float *const room_u = own + at.own_panel, *const room_v = room_u + gemm::kColumnUnit * gemm::round_up(z.m, 16);
    auto panel = [&](const float* packed, const float* W, int64_t K, int64_t q, int vecs, float* room) -> const float* {
      if (packed) return packed + q * kLanes * K;
      fbp_pack_panel(W, z, K, q, vecs, room);
      return room;
    };
    // Fetched while the first strip meets this panel. What is not packed is fetched as it lies, k vectors further on.
    auto upcoming = [&](const float* packed, const float* W, int64_t K, int64_t i, int64_t q) -> const float* {
      if (i != i0) return nullptr;
      if (packed) return q + gemm::kTileVecs < q1 ? packed + (q + gemm::kTileVecs) * kLanes * K : nullptr;
      const int64_t row = (q + gemm::max64(z.k, gemm::kTileVecs)) * kLanes;
      return z.k <= 8 && row + gemm::kTileStride <= z.P ? W + row * K : nullptr;
    };
    if (!plan.by_panel) pack(fbp_strip(z, plan, first + i0), own + at.own_a, own + at.own_v);
    for (int64_t q = o0 / kLanes * z.k; q < q1; q += gemm::kTileVecs) {
      const int vecs = int(gemm::min64(gemm::kTileVecs, q1 - q));
      const float *U = panel(p.U, p.raw_U, z.m, q, vecs, room_u), *V = panel(p.V, p.raw_V, z.n, q, vecs, room_v);
      for (int64_t i = i0; i < i1; ++i) {
        FbpPiece piece;
        piece.strip_index = first + i;
        const FbpStrip& strip = piece.strip = fbp_strip(z, plan, first + i);
        piece.s = own + at.own_s + (i - i0) * plan.strip_rows * 16;
        float* const mask = own + at.own_mask + (i - i0) * plan.strip_rows * 16 * z.k;
        float* const mask_row = own + at.own_mask + (i1 - i0) * plan.strip_rows * 16 * z.k;
        fbp_project(plan.by_panel ? p.scratch + at.a + i * a_size : own + at.own_a, strip.a_rows, z.m, plan.piece_m, U, vecs,
                    upcoming(p.U, p.raw_U, z.m, i, q), hu);
        for (int x = 0; x < vecs; ++x) {
          const Vec b = load(bias_u + (q + x) * kLanes);
          for (int64_t r = 0; r < strip.a_rows; ++r) {
            float* h = hu + r * gemm::kTileStride + x * kLanes;
            store(h, fbp_activate<F>(load(h) + b));
          }
        }
        fbp_project(plan.by_panel ? p.scratch + at.v + i * v_size : own + at.own_v, strip.rows, z.n, plan.piece_n, V, vecs,
                    upcoming(p.V, p.raw_V, z.n, i, q), hv);
        for (int x = 0; x < vecs; ++x) {
          piece.block = (q + x) / z.k;
          piece.j = (q + x) % z.k;
          piece.lanes = int(gemm::min64(kLanes, z.o - piece.block * kLanes));
          piece.hu = hu + x * kLanes;
          piece.hv = hv + x * kLanes;
          piece.bias_v = load(bias_v + (q + x) * kLanes);
          if (z.dropout && piece.j == 0) fbp_mask(p.mask, z, strip, piece.block, piece.lanes, mask, mask_row);
          piece.mask = z.dropout ? mask + piece.j * kLanes : nullptr;
          epilogue(piece);
        }
      }
    }
  });
}

// The pass of a call whose workspace starts with the weights (fbp_weights): packed by the caller, packed here, or not (by_panel). The
// rest of its scratch lies at `scratch`, or right behind the weights.
FbpPass fbp_pass_of(const OpCall& call, const FbpSizes& z, float* workspace, float* scratch = nullptr) {
  FbpPass p;
  p.workers = call.workers;
  p.z = z;
  p.plan = fbp_plan(z);
  p.at = fbp_scratch(z, p.plan, call.workers->count);
  p.a = call.in[FbpIn::a].f32();
  p.v = call.in[FbpIn::v].f32();
  p.bu = call.in[FbpIn::bu].f32();
  p.bv = call.in[FbpIn::bv].f32();
  p.raw_U = call.in[FbpIn::U].f32();
  p.raw_V = call.in[FbpIn::V].f32();
  const FbpWeights at = fbp_weights(z, p.plan);
  auto weight = [&](int input, const float* raw, int64_t K, float* place) -> const float* {
    if (call.packed && call.packed[input]) return static_cast<const float*>(call.packed[input]);
    if (p.plan.by_panel) return nullptr;
    fbp_pack_factors(raw, z, K, place, *call.workers);
    return place;
  };
  p.U = weight(FbpIn::U, p.raw_U, z.m, workspace + at.U);
  p.V = weight(FbpIn::V, p.raw_V, z.n, workspace + at.V);
  p.scratch = scratch ? scratch : workspace + at.end;
  p.mask = dropout_mask(call.attr[FbpAttr::dropout].f, call.attr[FbpAttr::seed].u, call.attr[FbpAttr::step].i,
                        call.attr[FbpAttr::instance].i);
  return p;
}

// The forward's epilogue: s over the factors of a block; at the last one s and r are stored where wanted.
template <int F, bool power>
struct FbpForward {
  int64_t k, group, o;
  Vec eps;
  float *r, *s;
  AFFUSE_INLINE void operator()(const FbpPiece& p) const {
    const int64_t per_a = p.strip.a_rows > 1 ? group : p.strip.rows;
    const bool last = p.j + 1 == k;
    int64_t row = 0;
    for (int64_t ar = 0; ar < p.strip.a_rows; ++ar) {
      const Vec hu = load(p.hu + ar * gemm::kTileStride);
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
        if (r) put(r + at, power ? q / sqrt(abs(q) + eps) : q, p.lanes);
      }
    }
  }
};

template <int F>
struct FbpTag {
  static constexpr int value = F;
};
template <class Body>
AFFUSE_INLINE void fbp_with_activation(int64_t kind, Body&& body) {
  if (kind == FbpActivation::relu) body(FbpTag<FbpActivation::relu>{});
  else if (kind == FbpActivation::tanh) body(FbpTag<FbpActivation::tanh>{});
  else body(FbpTag<FbpActivation::none>{});
}

// s and r (each may be null) of the whole call.
AFFUSE_INLINE void fbp_run_forward(const OpCall& call, const FbpPass& p, bool power, float* r, float* s) {
  const Vec eps = set1(float(call.attr[FbpAttr::eps].f));
  fbp_with_activation(call.attr[FbpAttr::activation].i, [&](auto tag) {
    constexpr int F = decltype(tag)::value;
    if (power) fbp_pass<F>(p, 0, p.plan.strips, FbpForward<F, true>{p.z.k, p.z.group, p.z.o, eps, r, s});
    else fbp_pass<F>(p, 0, p.plan.strips, FbpForward<F, false>{p.z.k, p.z.group, p.z.o, eps, r, s});
  });
}

// Rows (or groups of rows) that share one root, spread over tasks: body(first element, elements).
template <class Body>
AFFUSE_INLINE void fbp_each_scope(const OpCall& call, const FbpSizes& z, Body&& body) {
  const int64_t rows = call.attr[FbpAttr::l2_scope].i == FbpScope::group ? z.group : 1;
  const int64_t size = rows * z.o, scopes = z.B / rows, step = gemm::max64(1, 8192 / size);
  parallel(*call.workers, gemm::ceil_div(scopes, step), [&](int64_t task, int) {
    for (int64_t i = task * step; i < gemm::min64(scopes, (task + 1) * step); ++i) body(i * size, size);
  });
}

}  // namespace
}  // namespace affuse::AFFUSE_ISA
