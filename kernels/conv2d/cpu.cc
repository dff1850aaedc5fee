#include "../gemm/transpose.h"
#include "patches.h"

namespace affuse::AFFUSE_ISA {
namespace {

// y = f(sum + b) at the places of the grid.
template <bool Relu>
struct Finish : gemm::Epilogue {
  Rows y;
  const float* b;
  AFFUSE_INLINE void row(const gemm::Tile& t, int r, float* out) const {
    for_lanes(t.cols, [&](int64_t c, int n) {
      Vec z = load(t.acc + r * gemm::kTileStride + c);
      if (b) z += get(b + t.col + c, n);
      put(out + t.col + c, Relu ? max(zero(), z) : z, n);
    });
  }
  AFFUSE_INLINE void tile(const gemm::Tile& t, int) const {
    Grid::Place p = y.grid.place(t.row);
    for (int r = 0; r < t.rows; ++r, y.grid.next(p)) {
      float* out = y.at(p);
      for (int c = 0; c < gemm::kTileStride; c += 16) __builtin_prefetch(out + t.rows * y.right + t.col + c, 1, 3);
      row(t, r, out);
    }
  }
};

// Sums to the places of the grid.
struct Put : gemm::Epilogue {
  Rows rows;
  AFFUSE_INLINE void tile(const gemm::Tile& t, int) const {
    Grid::Place p = rows.grid.place(t.row);
    for (int r = 0; r < t.rows; ++r, rows.grid.next(p)) {
      float* out = rows.at(p) + t.col;
      for_lanes(t.cols, [&](int64_t c, int n) { put(out + c, load(t.acc + r * gemm::kTileStride + c), n); });
    }
  }
};

// Packed columns [N,K] of float32 as the columns of gemm::Bf16, in place: pairs where these are multiplied, else rounded.
// Pairs are shorter, so the first panel comes first; an odd K is filled up, so the last one does.
void round_panels(int64_t N, int64_t K, float* packed, const Workers& workers) {
  const int64_t E = gemm::even(K), panels = gemm::ceil_div(N, gemm::kTileStride);
  const auto width_of = [&](int64_t panel) {
    return gemm::vecs_of(gemm::min64(gemm::kTileStride, N - panel * gemm::kTileStride)) * kLanes;
  };
  if (gemm::dot_tiles()) {
    for (int64_t p = 0; p < panels; ++p) {
      const int64_t n = p * gemm::kTileStride;
      gemm::store_pairs(packed + n * K, K, E / 2, width_of(p), packed + n * E / 2);
    }
    return;
  }
  for (int64_t p = E > K ? panels : 0; p-- > 0;) {
    const int64_t width = width_of(p);
    float *const from = packed + p * gemm::kTileStride * K, *const to = packed + p * gemm::kTileStride * E;
    for (int64_t i = K * width; (i -= kLanes) >= 0;) store(to + i, load(from + i));
    for (int64_t i = 0; i < width; i += kLanes) store(to + K * width + i, zero());
  }
  parallel(workers, panels, [&](int64_t p, int) {
    gemm::round_in_place(packed + p * gemm::kTileStride * E, E * width_of(p));
  });
}

// Columns o of the patch matrix's product: element k = ((i kw) + j) C + c of column o is W[o,c,i,j]. Transposed in
// registers: kLanes rows o by kLanes neighbouring floats (c, i, j).
void pack_forward(const Conv& c, const float* W, float* packed, const Workers& workers) {
  const int64_t C = c.x.C, taps = c.taps(), K = C * taps;
  constexpr int64_t kChunk = 16;
  const int64_t chunks = gemm::ceil_div(C, kChunk);
  parallel(workers, gemm::ceil_div(c.O, gemm::kTileStride) * chunks, [&](int64_t task, int) {
    const int64_t n = task / chunks * gemm::kTileStride, c0 = task % chunks * kChunk, c1 = gemm::min64(C, c0 + kChunk);
    const int cols = int(gemm::min64(gemm::kTileStride, c.O - n)), width = gemm::vecs_of(cols) * kLanes;
    for (int o = 0; o < width; o += kLanes)
      for (int64_t e = c0 * taps; e < c1 * taps; e += kLanes) {
        const int lanes = int(gemm::min64(kLanes, c1 * taps - e));
        Vec v[kLanes];
#pragma GCC unroll 16
        for (int r = 0; r < kLanes; ++r) v[r] = o + r < cols ? get(W + (n + o + r) * K + e, lanes) : zero();
        gemm::transpose(v);
        int64_t ch = e / taps, tap = e - ch * taps;
        for (int r = 0; r < lanes; ++r) {
          store(packed + n * K + (tap * C + ch) * width + o, v[r]);
          if (++tap == taps) tap = 0, ++ch;
        }
      }
  });
  if (c.bf16) round_panels(c.O, K, packed, workers);
}

// One phase of dx: element k = ((t Tw) + u) O + o of column c is W[o,c,i,j], the taps in descending order, i = r +
// stride (Th-1-t). Transposed in registers: kLanes columns c by kLanes taps.
void pack_phase(const Conv& c, const Phase& ph, const Phase& pw, const float* W, float* packed, const Workers& workers) {
  const int64_t C = c.x.C, O = c.O, K = ph.taps * pw.taps * O, taps = c.taps();
  constexpr int64_t kChunk = 16;
  const int64_t chunks = gemm::ceil_div(O, kChunk);
  parallel(workers, gemm::ceil_div(C, gemm::kTileStride) * chunks, [&](int64_t task, int) {
    const int64_t n = task / chunks * gemm::kTileStride, o0 = task % chunks * kChunk, o1 = gemm::min64(O, o0 + kChunk);
    const int cols = int(gemm::min64(gemm::kTileStride, C - n)), width = gemm::vecs_of(cols) * kLanes;
    for (int64_t o = o0; o < o1; ++o)
      for (int q = 0; q < width; q += kLanes)
        for (int64_t e = 0; e < taps; e += kLanes) {
          const int lanes = int(gemm::min64(kLanes, taps - e));
          Vec v[kLanes];
#pragma GCC unroll 16
          for (int r = 0; r < kLanes; ++r) v[r] = q + r < cols ? get(W + (o * C + n + q + r) * taps + e, lanes) : zero();
          gemm::transpose(v);
          int64_t i = e / c.kw, j = e % c.kw;
          for (int r = 0; r < lanes; ++r) {
            const int64_t t = ph.tap(i, c.stride), u = pw.tap(j, c.stride);
            if (t >= 0 && u >= 0) store(packed + n * K + ((t * pw.taps + u) * O + o) * width + q, v[r]);
            if (++j == c.kw) j = 0, ++i;
          }
        }
  });
  if (c.bf16) round_panels(C, K, packed, workers);
}

// gemm::run() with the operands that the attribute asks for; K as it is.
template <class E>
void multiply_patches(const Conv& c, const Workers& workers, int64_t M, int64_t N, int64_t K, const Patches& patches,
             const float* packed, const E& epilogue, float* room) {
  if (!c.bf16 && patches.length % kLanes == 0 && N > gemm::kFewColumns)
    return gemm::run(workers, M, N, K, PatchLines{patches}, packed, epilogue, room, gemm::Split::any, gemm::Lines{});
  if (!c.bf16) return gemm::run(workers, M, N, K, patches, packed, epilogue, room);
  gemm::run(workers, M, N, gemm::even(K), gemm::Bf16Rows{patches, K}, packed, epilogue, room, gemm::Split::any,
            gemm::Bf16{gemm::dot_tiles() != nullptr});
}

// Calls body(phase of rows, phase of columns, floats of packed weights before it) for every phase with taps.
template <class F>
void phases(const Conv& c, F&& body) {
  int64_t at = 0;
  for (int64_t r = 0; r < c.stride && r < c.kh; ++r)
    for (int64_t q = 0; q < c.stride && q < c.kw; ++q) {
      const Phase ph = phase_of(r, c.x.H, c.kh, c.stride, c.pad), pw = phase_of(q, c.x.W, c.kw, c.stride, c.pad);
      body(ph, pw, at);
      at += conv_packed_floats(c, c.x.C, ph.taps * pw.taps * c.O);
    }
}

// The patches of x at the places of `grid`; staged: x with its edge, or x itself.
Patches patches_of(const Conv& c, const Grid& grid, const float* staged) {
  const Stage s = stage_x(c);
  const int64_t row = s.W * s.C;
  return {{grid, const_cast<float*>(staged), s.image(), c.stride * row, c.stride * s.C}, row, c.kw * s.C,
          c.stride, c.pad, c.pad + c.x.H};
}

void forward(const OpCall& call, const Conv& c, const float* packed, float* y, float* room) {
  const Workers& workers = *call.workers;
  const int32_t* widths = call.in[3].i32();
  const ConvScratch at = conv_scratch(c, workers.count);
  const auto own = [&](int64_t b) { return c.own(widths, b); };
  const Grid grid = grid_of(c.x.B, c.y.H, c.y.W, widths ? reinterpret_cast<int64_t*>(room) : nullptr, own);
  const float* x = call.in[0].f32();
  if (stages_x(c)) {
    stage(workers, c.x, x, nullptr, stage_x(c), room + at.staged, [&](int64_t b) { return own_width(widths, b, c.x.W); });
    x = room + at.staged;
  }
  if (!packed) {
    pack_forward(c, call.in[1].f32(), room + at.weights, workers);
    packed = room + at.weights;
  }
  const bool direct = c.y.last || c.O == 1;
  float* rows = direct ? y : room + at.rows;
  const Rows place{grid, rows, c.y.H * c.y.W * c.O, c.y.W * c.O, c.O};
  const auto run = [&](auto finish) {
    finish.y = place;
    finish.b = call.in[2].f32();
    multiply_patches(c, workers, grid.rows(), c.O, c.x.C * c.taps(), patches_of(c, grid, x), packed, finish,
                     room + at.product);
  };
  if (c.relu) run(Finish<true>{});
  else run(Finish<false>{});
  if (!direct) unstage(workers, c.y, rows, y, own);
  else if (widths) clear_columns(workers, resized({c.y.B, 0, 0, 0, true}, c.O, c.y.H, c.y.W), rows, own);
}

// dW and db (null: not wanted) from all positions of the grid. f: the format of operands, gemm::Float32 or
// gemm::Bf16Passing.
template <class F>
void weight_gradient(const OpCall& call, const Conv& c, const F& f, const Grid& grid, const GradientRows& g, const float* x,
                     float* db, float* room) {
  const Workers& workers = *call.workers;
  const int64_t C = c.x.C, taps = c.taps(), K = C * taps, N = K + 1, all = grid.rows();
  const GradPlan p = grad_plan(c);
  float* const ahead = room + p.results;
  float* const own = ahead + p.rows;
  const auto start_of = [&](int64_t slice) { return all * slice / p.slices; };
  if (p.ahead) {  // piece after piece of every slice, in each block after block of rows
    const int64_t pieces = gemm::ceil_div(gemm::ceil_div(all, p.slices) + 1, kGradPiece);
    parallel(workers, p.slices * pieces, [&](int64_t task, int) {
      const int64_t k = start_of(task / pieces) + task % pieces * kGradPiece;
      const int64_t kc = gemm::min64(kGradPiece, start_of(task / pieces + 1) - k);
      for (int64_t i = 0; kc > 0 && i < c.O; i += p.block_rows) {
        const int m = int(gemm::min64(p.block_rows, c.O - i));
        g.pack(i, m, k, kc, ahead + k * c.O + i * kc);
        f.settle_rows(ahead + k * c.O + i * kc, m, kc);
      }
    });
  }
  const Patches patches = patches_of(c, grid, x);
  parallel(workers, p.slices * p.row_blocks * p.col_blocks, [&](int64_t task, int worker) {
    const int64_t slice = task / (p.row_blocks * p.col_blocks), block = task / p.col_blocks % p.row_blocks;
    const int64_t i = block * p.block_rows, n0 = p.column(task % p.col_blocks);
    const int64_t n1 = gemm::min64(N, p.column(task % p.col_blocks + 1));
    const int m = int(gemm::min64(p.block_rows, c.O - i));
    const int64_t from = start_of(slice), to = start_of(slice + 1);
    const gemm::RowTiles tiles(m);
    float* const sums = own + worker * p.worker;
    float* const columns = sums + p.block_rows * kGradColumns;
    float* const fresh = columns + kGradPiece * kGradColumns;
    PatchColumns loader(patches, n0, n1, K);
    const gemm::Span there = n1 > K ? gemm::Span{from, to} : patches.positions(n0, n1);
    bool resume = false;
    for (int64_t k = from; k < to; k += kGradPiece) {
      const int64_t whole = gemm::min64(kGradPiece, to - k);
      // Of the piece, what is not zeros: from an even position on, because rounded ones come in pairs.
      const int64_t skipped = gemm::max64(0, there.from - k) / 2 * 2, kc = gemm::min64(k + whole, there.to) - k - skipped;
      if (kc <= 0) continue;
      loader.plan(kc);
      loader.pack(k + skipped, kc, columns);
      f.settle_columns(columns, n1 - n0, kc);
      const float* rows = ahead + k * c.O + i * whole;
      if (!p.ahead) {
        g.pack(i, m, k, whole, fresh);
        f.settle_rows(fresh, m, whole);
        rows = fresh;
      }
      for (int t = 0; t < tiles.count; ++t)
        for (int64_t n = n0; n < n1; n += gemm::kTileStride) {
          const int vecs = gemm::vecs_of(gemm::min64(gemm::kTileStride, n1 - n));
          f.multiply(tiles.height(t), vecs, kc, rows + tiles.start(t) * whole + f.rows(skipped * tiles.height(t)),
                     columns + (n - n0) * kc, sums + (n - n0) * m + tiles.start(t) * gemm::kTileStride, resume, nullptr, 0);
        }
      resume = true;
    }
    if (!resume) clear(sums, m * kGradColumns);
    float* out = room + (slice * c.O + i) * N;
    for (int64_t n = n0; n < n1; n += gemm::kTileStride) {
      const float* panel = sums + (n - n0) * m;
      for (int r = 0; r < m; ++r)
        for_lanes(gemm::min64(gemm::kTileStride, n1 - n), [&](int64_t col, int lanes) {
          put(out + r * N + n + col, load(panel + r * gemm::kTileStride + col), lanes);
        });
    }
  });
  float* const dW = call.out[1].f32();
  parallel(workers, c.O, [&](int64_t o, int) {
    float* s = room + o * N;
    for (int64_t slice = 1; slice < p.slices; ++slice) {
      const float* other = s + slice * c.O * N;
      for_lanes(N, [&](int64_t i, int n) { put(s + i, get(s + i, n) + get(other + i, n), n); });
    }
    if (db) db[o] = s[K];
    if (!dW) return;
    float* d = dW + o * K;
    for (int64_t ch = 0; ch < C; ++ch)
      for (int64_t tap = 0; tap < taps; ++tap) d[ch * taps + tap] = s[tap * C + ch];
  });
}

void input_gradient(const OpCall& call, const Conv& c, const Stage& s, float* g, const float* packed, int64_t* table,
                    float* rows, float* room) {
  const Workers& workers = *call.workers;
  const int32_t* widths = call.in[3].i32();
  const int64_t C = c.x.C, O = c.O;
  const Maps last = resized({c.x.B, 0, 0, 0, true}, C, c.x.H, c.x.W);
  if (c.stride > c.kh || c.stride > c.kw) clear_columns(workers, last, rows, [](int64_t) { return int64_t(0); });
  else if (widths) clear_columns(workers, last, rows, [&](int64_t b) { return int64_t(widths[b]); });
  phases(c, [&](const Phase& ph, const Phase& pw, int64_t weights) {
    const Grid grid = grid_of(c.x.B, ph.count, pw.count, widths ? table : nullptr, [&](int64_t b) {
      return widths[b] <= pw.first ? int64_t(0) : (widths[b] - pw.first + c.stride - 1) / c.stride;
    });
    if (ph.count == 0 || pw.count == 0 || grid.rows() == 0) return;
    const int64_t h = (ph.first + c.pad) / c.stride - (ph.taps - 1) + s.top;
    const int64_t w = (pw.first + c.pad) / c.stride - (pw.taps - 1) + s.left;
    const int64_t row = s.W * O;
    const Patches patches{{grid, g + h * row + w * O, s.image(), row, O}, row, pw.taps * O, 1, s.top - h, s.top - h + c.y.H};
    Put put;
    put.rows = {grid, rows + (ph.first * c.x.W + pw.first) * C, c.x.H * c.x.W * C, c.stride * c.x.W * C, c.stride * C};
    multiply_patches(c, workers, grid.rows(), C, ph.taps * pw.taps * O, patches, packed + weights, put, room);
  });
}

}  // namespace

void conv2d_forward(const OpCall& call) {
  const Conv c = conv_of(call.in[0], call.in[1], call.attr);
  write_widths(call.out[1], call.in[3], c.kw, c.stride, c.pad);
  if (!call.out[0].data) return;
  const auto* packed = call.packed ? static_cast<const float*>(call.packed[1]) : nullptr;
  forward(call, c, packed, call.out[0].f32(), static_cast<float*>(call.workspace));
}

void conv2d_backward(const OpCall& call) {
  const Conv c = conv_of(call.in[0], call.in[1], call.attr);
  const Workers& workers = *call.workers;
  const int32_t* widths = call.in[3].i32();
  float *dx = call.out[0].f32(), *dW = call.out[1].f32(), *db = call.out[2].f32();
  float* room = static_cast<float*>(call.workspace);
  const float *y = call.in[4].f32(), *dy = call.in[5].f32();
  const auto at = conv_backward_scratch(c, workers.count, dx, dW, widths, c.relu && !y);
  const auto own = [&](int64_t b) { return c.own(widths, b); };
  auto* table = reinterpret_cast<int64_t*>(room);
  float* product = room + at.product;
  if (c.relu && !y && c.x.B > 0) {
    forward(call, c, nullptr, room + at.y, product);
    y = room + at.y;
  }
  const Stage s = stage_g(c, dx);
  float* g = const_cast<float*>(dy);  // read only
  const float* gate = c.relu ? y : nullptr;
  if (stages_g(c, s, dx, dW, widths)) {
    g = room + at.g;
    stage(workers, c.y, dy, gate, s, g, own);
    gate = nullptr;
  }
  if (dW) {
    const float* x = call.in[0].f32();
    if (stages_x(c)) {
      stage(workers, c.x, x, nullptr, stage_x(c), room + at.x, [&](int64_t b) { return own_width(widths, b, c.x.W); });
      x = room + at.x;
    }
    const Grid grid = grid_of(c.x.B, c.y.H, c.y.W, widths ? table : nullptr, own);
    const Rows rows{grid, g + (s.top * s.W + s.left) * c.O, s.image(), s.W * c.O, c.O};
    if (c.bf16) weight_gradient(call, c, gemm::Bf16Passing{}, grid, {rows, gate}, x, nullptr, room + at.product);
    else weight_gradient(call, c, gemm::Float32{}, grid, {rows, gate}, x, db, room + at.product);
  }
  if (db && (c.bf16 || !dW)) {
    gemm::column_sums(workers, g, c.x.B * s.H * s.W, c.O, db);
  }
  if (dx && c.x.B > 0) {
    const auto* packed = call.packed ? static_cast<const float*>(call.packed[1]) : nullptr;
    if (!packed) {
      float* weights = room + at.weights;
      phases(c, [&](const Phase& ph, const Phase& pw, int64_t from) {
        pack_phase(c, ph, pw, call.in[1].f32(), weights + from, workers);
      });
      packed = weights;
    }
    const bool direct = c.x.last || c.x.C == 1;
    float* rows = direct ? dx : room + at.rows;
    input_gradient(call, c, s, g, packed, table, rows, product);
    if (!direct) unstage(workers, c.x, rows, dx, [&](int64_t b) { return own_width(widths, b, c.x.W); });
  }
}

void conv2d_pack(const OpShape& s, int, const void* data, void* packed, const Workers& workers) {
  pack_forward(conv_of(s.in[0], s.in[1], s.attr), static_cast<const float*>(data), static_cast<float*>(packed), workers);
}
void conv2d_backward_pack(const OpShape& s, int, const void* data, void* packed, const Workers& workers) {
  const Conv c = conv_of(s.in[0], s.in[1], s.attr);
  phases(c, [&](const Phase& ph, const Phase& pw, int64_t from) {
    pack_phase(c, ph, pw, static_cast<const float*>(data), static_cast<float*>(packed) + from, workers);
  });
}

}  // namespace affuse::AFFUSE_ISA
