// The fused pass over both projections, shared by forward and backward: per strip of rows and group of panels, both
// accumulations end in L2, then an epilogue meets them. Included by the two cpu.cc files only.
#pragma once
#include "../common/math.h"
#include "../common/philox.h"
#include "../common/reduce.h"
#include "plan.h"

namespace affuse::AFFUSE_ISA {
// s, r (the signed root of s where `root`), hu and hv, each null where it is not wanted, of the whole call: cpu.cc, for the
// backward too. `scratch`: what fbp_pass_of() wants.
void fbp_run_forward(const OpCall& call, float* scratch, bool root, float* r, float* s, float* hu, float* hv);

namespace {

template <int F>
AFFUSE_INLINE Vec fbp_activate(Vec x) {
  if constexpr (F == FbpActivation::relu) return max(zero(), x);
  else if constexpr (F == FbpActivation::tanh) return tanh(x);
  else return x;
}

// What an epilogue gets: vector `block`, factor j of a strip. hu and hv have row stride gemm::kTileStride; biases and
// activation are still to come.
struct FbpPiece {
  FbpStrip strip;
  int64_t strip_index, block;  // outputs [block*kLanes, block*kLanes + lanes)
  int64_t j;
  int lanes;
  const float *hu, *hv;
  Vec bias_u, bias_v;
  float* s;           // [strip rows][kLanes]: the worker's own, kept from j to j+1 of a block
  const float* mask;  // null, or dropout factors of factor j: row r at mask + r*k*kLanes
};

// And ahead of them, all vectors [q0, q1) of a strip: panel after panel of sums. bias_u, bias_v in packed order, or null: 0.
struct FbpGroup {
  FbpStrip strip;
  int64_t q0, q1;
  const float *hu, *hv, *bias_u, *bias_v;
};

// One projection: rows times packed (or raw) weights.
struct FbpSide {
  const float *x, *packed, *raw, *bias;  // packed null: packed on the way from raw; bias null: 0
  int64_t K, E, piece;  // columns; as packed (FbpSizes::em, en); of a pass
};

struct FbpPass {
  const Workers* workers;
  FbpSizes z;
  FbpPlan plan;
  FbpScratch at;
  FbpSide u, v;
  float* scratch;
  DropoutMask mask;
};

// Columns [k0, k0 + K) of vectors [first, first + vecs) of W [P,ld] in the layout of fbp_packed_floats: one panel.
AFFUSE_INLINE void fbp_pack_panel(const float* W, const FbpSizes& z, int64_t ld, int64_t k0, int64_t K, int64_t first,
                                  int vecs, float* dst) {
  const float* rows[gemm::kTileStride];
  for (int x = 0; x < vecs; ++x) {
    const int64_t block = (first + x) / z.k, j = (first + x) % z.k;
    for (int lane = 0; lane < kLanes; ++lane) {
      const int64_t output = block * kLanes + lane;
      rows[x * kLanes + lane] = output < z.o ? W + (output * z.k + j) * ld + k0 : nullptr;
    }
  }
  gemm::pack_panel_indirect(rows, vecs * kLanes, K, dst);
}

// The same with bf16 operands, K even; columns beyond ld are 0.
AFFUSE_INLINE void fbp_pack_bf16(const float* W, const FbpSizes& z, int64_t ld, int64_t k0, int64_t K, int64_t first,
                                  int vecs, float* dst) {
  alignas(64) float chunk[gemm::kBf16Chunk * gemm::kTileStride];
  for (int64_t k = 0; k < K; k += gemm::kBf16Chunk) {
    const int64_t steps = gemm::min64(gemm::kBf16Chunk, K - k), there = gemm::min64(steps, ld - k0 - k);
    const int64_t width = vecs * kLanes;
    float* const to = z.pairs ? chunk : dst + k * width;
    fbp_pack_panel(W, z, ld, k0 + k, there, first, vecs, to);
    if (z.pairs) {
      gemm::store_pairs(chunk, there, steps / 2, width, dst + k / 2 * width);
    } else {
      gemm::round_in_place(to, there * width);
      for (int64_t i = there * width; i < steps * width; ++i) to[i] = 0.0f;
    }
  }
}

// Where element n of packed weights lies.
AFFUSE_INLINE int64_t fbp_at(const FbpSizes& z, int64_t n) { return z.pairs ? n / 2 : n; }

// A strip's rows in the order of the register tiles, piece of K after piece.
AFFUSE_INLINE void fbp_pack_rows(const FbpSide& side, const FbpSizes& z, int64_t row, int64_t rows, float* dst) {
  const gemm::PlainRows x{side.x + row * side.K, side.K};
  for (int64_t k = 0; k < side.E; k += side.piece) {
    const int64_t kc = gemm::min64(side.piece, side.E - k);
    if (z.bf16) gemm::Bf16Rows{x, side.K}.pack(0, int(rows), k, kc, dst + gemm::Bf16{z.pairs}.rows(rows * k));
    else x.pack(0, int(rows), k, kc, dst + rows * k);
  }
}

void fbp_pack_bias(const float* b, const FbpSizes& z, float* dst) {
  for (int64_t first = 0; first < z.o; first += kLanes)
    for (int64_t j = 0; j < z.k; ++j, dst += kLanes)
      for (int64_t lane = 0; lane < kLanes; ++lane) dst[lane] = first + lane < z.o ? b[(first + lane) * z.k + j] : 0.0f;
}

// Panels that nobody packed, on their way through a task: group after group the pieces of U's, then of V's. A piece (unit)
// is brought into the order of the tiles while the one before it is multiplied, some columns of all its rows between two
// multiplications; its rows come out of memory meanwhile, one after another, while the unit before that one is multiplied.
// Rows meet every panel at once, or (`whole`) strip after strip: then a group's panels are kept, else two units.
struct FbpFresh {
  const FbpPass& p;
  int64_t q_begin, q_end, units;
  float *room_u, *room_v;
  bool whole;
  int64_t packed = 0;  // units that are ready

  struct Unit {
    const FbpSide* side;
    int64_t group, q, k, kc;
    int vecs;
    float* place;
  };
  FbpFresh(const FbpPass& p, int64_t q_begin, int64_t q_end, float* room_u, float* room_v, bool whole)
      : p(p), q_begin(q_begin), q_end(q_end), room_u(room_u), room_v(room_v), whole(whole) {
    units = gemm::ceil_div(q_end - q_begin, gemm::kTileVecs) * pieces();
  }
  int64_t pieces() const { return gemm::ceil_div(p.u.K, p.u.piece) + gemm::ceil_div(p.v.K, p.v.piece); }
  Unit unit(int64_t index) const {
    Unit x;
    const int64_t size = p.plan.panels * pieces();
    x.group = index / size;
    const int64_t q0 = q_begin + x.group * p.plan.panels * gemm::kTileVecs;
    const int64_t panels = gemm::min64(p.plan.panels, gemm::ceil_div(q_end - q0, gemm::kTileVecs));
    const int64_t of_u = panels * gemm::ceil_div(p.u.K, p.u.piece), at = index % size;
    const bool u = at < of_u;
    x.side = u ? &p.u : &p.v;
    const int64_t i = u ? at : at - of_u, panel = i % panels;
    x.k = i / panels * x.side->piece;
    x.kc = gemm::min64(x.side->piece, x.side->K - x.k);
    x.q = q0 + panel * gemm::kTileVecs;
    x.vecs = int(gemm::min64(gemm::kTileVecs, q_end - x.q));
    if (whole) x.place = (u ? room_u : room_v) + panel * gemm::kTileStride * x.side->K + x.k * x.vecs * kLanes;
    else x.place = room_u + (index & 1) * gemm::kTileStride * gemm::max64(p.u.piece, p.v.piece);
    return x;
  }
  void pack(const Unit& x, int64_t from, int64_t to) const {
    to = gemm::min64(to, x.kc);
    if (from < to)
      fbp_pack_panel(x.side->raw, p.z, x.side->K, x.k + from, to - from, x.q, x.vecs, x.place + from * x.vecs * kLanes);
  }
  const float* row(const Unit& x, int64_t q) const {
    return x.side->raw + (q / p.z.k * kLanes * p.z.k + q % p.z.k) * x.side->K + x.k;
  }
  // The share of tile t of `tiles` in fetching a unit's rows.
  gemm::Aside fetch(const Unit& x, int t, int tiles) const {
    gemm::Aside aside;
    aside.ld = 16;
    const int64_t lines = gemm::ceil_div(x.kc, aside.ld), all = lines * kLanes, share = gemm::ceil_div(all, tiles);
    const int64_t first = gemm::min64(all, t * share), lane = first / lines, next_row = p.z.k * x.side->K;
    const float* const at = row(x, x.q);
    aside.rows = gemm::min64(share, all - first);
    aside.fetch = at + lane * next_row + first % lines * aside.ld;
    aside.second = x.vecs > 1 ? row(x, x.q + 1) - at : 0;
    aside.before = lines - first % lines;
    aside.again = lines;
    aside.then = at + (lane + 1) * next_row;
    aside.then_step = next_row;
    return aside;
  }
  // Units [from, to), which are all pieces of one side of a group, times a strip's rows: h + panel*rows*kTileStride = ….
  void project(const float* packed_rows, int64_t rows, int64_t from, int64_t to, float* h) {
    const gemm::RowTiles tiles{int(rows)};
    if (packed <= from) {
      const Unit x = unit(from);
      pack(x, 0, x.kc);
    }
    const int64_t first_q = unit(from).q;
    for (int64_t u = from; u < to; ++u) {
      const Unit x = unit(u), next = unit(gemm::min64(u + 1, units - 1)), after = unit(gemm::min64(u + 2, units - 1));
      const bool packs = u + 1 < units && (!whole || next.group == x.group);
      const int64_t share = gemm::round_up(gemm::ceil_div(next.kc, tiles.count), 16);
      for (int t = 0; t < tiles.count; ++t) {
        if (packs) pack(next, t * share, (t + 1) * share);
        const gemm::Aside aside = u + 2 < units ? fetch(after, t, tiles.count) : gemm::Aside{};
        float* const sums = h + ((x.q - first_q) * kLanes * rows + tiles.start(t) * gemm::kTileStride);
        gemm::tile_multiply_aside(tiles.height(t), x.vecs, x.kc, packed_rows + rows * x.k + tiles.start(t) * x.kc, x.place,
                                  sums, x.k > 0, aside);
      }
      packed = packs ? u + 2 : u + 1;
    }
  }
};

// One strip times a group of panels: h + p*rows*kTileStride (+)= …; q0: the group's first vector, q1: its end. With `fresh`
// the panels are packed first: into `room`, panel after panel if `whole`, else one piece of one panel after another. While a
// packed panel is multiplied the next one comes into L2; `after` follows the group's last (null: nothing).
AFFUSE_INLINE void fbp_project(const FbpSide& side, const FbpSizes& z, const float* packed_rows, int64_t rows, int64_t q0,
                               int64_t q1, float* room, bool whole, bool fresh, const float* after, float* h) {
  const gemm::RowTiles tiles{int(rows)};
  const gemm::Bf16 bf16{z.pairs};
  for (int64_t k = 0; k < side.E; k += side.piece) {
    const int64_t kc = gemm::min64(side.piece, side.E - k);
    for (int64_t q = q0; q < q1; q += gemm::kTileVecs) {
      if (gemm::kRowPanels > 1 && rows == 1 && side.packed && !z.bf16 && q + gemm::kRowPanels * gemm::kTileVecs <= q1) {
        const float* const panels = side.packed + q * kLanes * side.E + k * gemm::kTileStride;
        gemm::multiply_row(kc, packed_rows + k, panels, side.E * gemm::kTileStride, h + (q - q0) * kLanes, k > 0);
        q += (gemm::kRowPanels - 1) * gemm::kTileVecs;
        continue;
      }
      const int vecs = int(gemm::min64(gemm::kTileVecs, q1 - q));
      const int64_t width = vecs * kLanes;
      const float* next = after;
      const float* panel;
      if (side.packed) {
        panel = side.packed + fbp_at(z, q * kLanes * side.E + k * width);
        if (q + 2 * gemm::kTileVecs <= q1) next = panel + fbp_at(z, side.E * gemm::kTileStride);
        else if (k + kc < side.E)
          next = side.packed + fbp_at(z, q0 * kLanes * side.E + (k + kc) * gemm::kTileStride);
      } else {
        float* place = room + (whole ? fbp_at(z, (q - q0) * kLanes * side.E + k * width) : 0);
        if (fresh && z.bf16) fbp_pack_bf16(side.raw, z, side.K, k, kc, q, vecs, place);
        else if (fresh) fbp_pack_panel(side.raw, z, side.K, k, kc, q, vecs, place);
        panel = place;
        if (fresh) next = nullptr;
        else if (q + 2 * gemm::kTileVecs <= q1) next = place + fbp_at(z, side.E * gemm::kTileStride);
        else if (k + kc < side.E) next = room + fbp_at(z, (k + kc) * gemm::kTileStride);
      }
      float* const sums = h + (q - q0) * kLanes * rows;
      const int64_t turn = gemm::turn_of(tiles, kc);
      for (int64_t c = 0; c < kc; c += turn) {
        const int64_t depth = gemm::min64(turn, kc - c);
        const float* const b = panel + fbp_at(z, c) * width;
        const gemm::Upcoming upcoming(c + turn < kc ? b + fbp_at(z, turn) * width : next, fbp_at(z, turn), tiles.count);
        for (int t = 0; t < tiles.count; ++t) {
          const int64_t at = rows * k + tiles.start(t) * kc + c * tiles.height(t);
          const float* const a = packed_rows + (z.bf16 ? bf16.rows(at) : at);
          float* const to = sums + tiles.start(t) * gemm::kTileStride;
          if (z.bf16) bf16.multiply(tiles.height(t), vecs, depth, a, b, to, k + c > 0, upcoming.of(t), upcoming.step);
          else gemm::tile_multiply(tiles.height(t), vecs, depth, a, b, to, k + c > 0, upcoming.of(t), upcoming.step);
        }
      }
    }
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

// Strips [first, first + count). E: struct with void before(const FbpGroup&) const and operator()(const FbpPiece&) const.
template <class E>
void fbp_pass(const FbpPass& p, int64_t first, int64_t count, const E& epilogue) {
  const FbpSizes& z = p.z;
  const FbpPlan& plan = p.plan;
  const FbpScratch& at = p.at;
  float* const bias_u = p.u.bias ? p.scratch : nullptr;
  float* const bias_v = p.v.bias ? p.scratch + gemm::round_up(z.o, 16) * z.k : nullptr;
  if (bias_u) fbp_pack_bias(p.u.bias, z, bias_u);
  if (bias_v) fbp_pack_bias(p.v.bias, z, bias_v);
  const int64_t a_size = gemm::round_up(plan.a_rows * z.em, 16), v_size = gemm::round_up(plan.strip_rows * z.en, 16);
  const bool whole = plan.task_strips > 1, raw = !p.u.packed && !p.v.packed && !z.bf16;
  for (const int64_t end = first + count; first < end; first += kFbpStrips) {
    const int64_t together = gemm::min64(kFbpStrips, end - first);
    parallel(*p.workers, together, [&](int64_t i, int) {
      const FbpStrip s = fbp_strip(z, plan, first + i);
      fbp_pack_rows(p.u, z, s.a_row, s.a_rows, p.scratch + at.a + i * a_size);
      fbp_pack_rows(p.v, z, s.row, s.rows, p.scratch + at.v + i * v_size);
    });
    parallel(*p.workers, plan.strip_tasks * plan.col_blocks, [&](int64_t task, int worker) {
      const int64_t i0 = task / plan.col_blocks * plan.task_strips, i1 = gemm::min64(together, i0 + plan.task_strips);
      const int64_t o0 = task % plan.col_blocks * plan.block_outputs, o1 = gemm::min64(z.o, o0 + plan.block_outputs);
      const int64_t q_begin = o0 / kLanes * z.k, q_end = gemm::ceil_div(o1, kLanes) * z.k;
      float* const own = p.scratch + at.worker + worker * at.own;
      float *const hu = own + at.own_hu, *const hv = own + at.own_hv;
      float* const room_u = own + at.own_panels;
      float* const room_v = room_u + (whole ? plan.panels * gemm::kColumnUnit * z.em : 0);
      FbpFresh fresh(p, q_begin, q_end, room_u, room_v, whole);
      for (int64_t q0 = q_begin; q0 < q_end; q0 += plan.panels * gemm::kTileVecs) {
        const int64_t q1 = gemm::min64(q_end, q0 + plan.panels * gemm::kTileVecs);
        for (int64_t i = i0; i < i1; ++i) {
          FbpPiece piece;
          piece.strip_index = first + i;
          const FbpStrip& strip = piece.strip = fbp_strip(z, plan, first + i);
          piece.s = own + at.own_s + (i - i0) * plan.strip_rows * 16;
          float* const mask = own + at.own_mask + (i - i0) * plan.strip_rows * 16 * z.k;
          float* const mask_row = own + at.own_mask + plan.task_strips * plan.strip_rows * 16 * z.k;
          const int64_t next_q = i + 1 < i1 ? q0 : q1;  // the panels after these
          const float* to_v = p.v.packed ? p.v.packed + fbp_at(z, q0 * kLanes * z.en) : i > i0 ? room_v : nullptr;
          const float* to_u = whole && i + 1 < i1 ? room_u : nullptr;
          if (p.u.packed) to_u = next_q < q_end ? p.u.packed + fbp_at(z, next_q * kLanes * z.em) : nullptr;
          const float *a = p.scratch + at.a + i * a_size, *v = p.scratch + at.v + i * v_size;
          if (raw && i == i0) {
            const int64_t panels = gemm::ceil_div(q1 - q0, gemm::kTileVecs);
            const int64_t from = (q0 - q_begin) / gemm::kTileVecs * fresh.pieces();
            const int64_t middle = from + panels * gemm::ceil_div(z.m, p.u.piece);
            fresh.project(a, strip.a_rows, from, middle, hu);
            fresh.project(v, strip.rows, middle, from + panels * fresh.pieces(), hv);
          } else {
            fbp_project(p.u, z, a, strip.a_rows, q0, q1, room_u, whole, i == i0, to_v, hu);
            fbp_project(p.v, z, v, strip.rows, q0, q1, room_v, whole, i == i0, to_u, hv);
          }
          epilogue.before(FbpGroup{strip, q0, q1, hu, hv, bias_u, bias_v});
          for (int64_t q = q0; q < q1; ++q) {
            const int64_t panel = (q - q0) / gemm::kTileVecs, x = (q - q0) % gemm::kTileVecs;
            piece.block = q / z.k;
            piece.j = q % z.k;
            piece.lanes = int(gemm::min64(kLanes, z.o - piece.block * kLanes));
            piece.hu = hu + panel * strip.a_rows * gemm::kTileStride + x * kLanes;
            piece.hv = hv + panel * strip.rows * gemm::kTileStride + x * kLanes;
            piece.bias_u = bias_u ? load(bias_u + q * kLanes) : zero();
            piece.bias_v = bias_v ? load(bias_v + q * kLanes) : zero();
            if (z.dropout && piece.j == 0) fbp_mask(p.mask, z, strip, piece.block, piece.lanes, mask, mask_row);
            piece.mask = z.dropout ? mask + piece.j * kLanes : nullptr;
            epilogue(piece);
          }
        }
      }
    });
  }
}

FbpPass fbp_pass_of(const OpCall& call, const FbpSizes& z, float* scratch) {
  FbpPass p;
  p.workers = call.workers;
  p.z = z;
  p.plan = fbp_plan(z);
  p.at = fbp_scratch(z, p.plan, call.workers->count);
  auto side = [&](int x, int W, int bias, int64_t K, int64_t E, int64_t piece) {
    const float* packed = call.packed ? static_cast<const float*>(call.packed[W]) : nullptr;
    return FbpSide{call.in[x].f32(), packed, call.in[W].f32(), call.in[bias].f32(), K, E, piece};
  };
  p.u = side(FbpIn::a, FbpIn::U, FbpIn::bu, z.m, z.em, p.plan.piece_m);
  p.v = side(FbpIn::v, FbpIn::V, FbpIn::bv, z.n, z.en, p.plan.piece_n);
  p.scratch = scratch;
  p.mask = dropout_mask(call.attr[FbpAttr::dropout].f, call.attr[FbpAttr::seed].u, call.attr[FbpAttr::step].i,
                        call.attr[FbpAttr::instance].i);
  return p;
}

// Lane l to p[l*k], l < lanes.
AFFUSE_INLINE void scatter(float* p, Vec v, int64_t k, int lanes) {
  if (k == 1) return put(p, v, lanes);
  alignas(64) float t[kLanes];
  store(t, v);
  for (int l = 0; l < lanes; ++l) p[l * k] = t[l];
}

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
