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
    if (!y.grid.first) {  // then the rows of y follow each other
      for (int r = 0; r < t.rows; ++r) row(t, r, y.base + (t.row + r) * y.right);
      return;
    }
    Grid::Place p = y.grid.place(t.row);
    for (int r = 0; r < t.rows; ++r, y.grid.next(p)) row(t, r, y.at(p));
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

// Columns o of the patch matrix's product: element k = ((i kw) + j) C + c of column o is W[o,c,i,j].
void pack_forward(const Conv& c, const float* W, float* packed, const Workers& workers) {
  const int64_t C = c.x.C, taps = c.taps(), K = C * taps;
  constexpr int64_t kChunk = 16;
  const int64_t chunks = gemm::ceil_div(C, kChunk);
  parallel(workers, gemm::ceil_div(c.O, gemm::kTileStride) * chunks, [&](int64_t task, int) {
    const int64_t n = task / chunks * gemm::kTileStride, c0 = task % chunks * kChunk, c1 = gemm::min64(C, c0 + kChunk);
    const int cols = int(gemm::min64(gemm::kTileStride, c.O - n)), width = gemm::vecs_of(cols) * kLanes;
    float* panel = packed + n * K;
    for (int64_t ch = c0; ch < c1; ++ch)
      for (int64_t tap = 0; tap < taps; ++tap) {
        float* d = panel + (tap * C + ch) * width;
        const float* s = W + (n * C + ch) * taps + tap;
        for (int o = 0; o < width; ++o) d[o] = o < cols ? s[o * K] : 0.0f;
      }
  });
}

// One phase of dx: element k = ((t Tw) + u) O + o of column c is W[o,c,i,j], the taps in descending order, i = r + stride (Th-1-t).
void pack_phase(const Conv& c, const Phase& ph, const Phase& pw, const float* W, float* packed, const Workers& workers) {
  const int64_t C = c.x.C, O = c.O, K = ph.taps * pw.taps * O;
  constexpr int64_t kChunk = 16;
  const int64_t chunks = gemm::ceil_div(O, kChunk);
  parallel(workers, gemm::ceil_div(C, gemm::kTileStride) * chunks, [&](int64_t task, int) {
    const int64_t n = task / chunks * gemm::kTileStride, o0 = task % chunks * kChunk, o1 = gemm::min64(O, o0 + kChunk);
    const int cols = int(gemm::min64(gemm::kTileStride, C - n)), width = gemm::vecs_of(cols) * kLanes;
    float* panel = packed + n * K;
    for (int64_t o = o0; o < o1; ++o)
      for (int64_t t = 0; t < ph.taps; ++t)
        for (int64_t u = 0; u < pw.taps; ++u) {
          const int64_t i = ph.r + c.stride * (ph.taps - 1 - t), j = pw.r + c.stride * (pw.taps - 1 - u);
          float* d = panel + ((t * pw.taps + u) * O + o) * width;
          const float* s = W + ((o * C + n) * c.kh + i) * c.kw + j;
          for (int q = 0; q < width; ++q) d[q] = q < cols ? s[q * c.taps()] : 0.0f;
        }
  });
}

// Calls body(phase of rows, phase of columns, floats of packed weights before it) for every phase with taps.
template <class F>
void phases(const Conv& c, F&& body) {
  int64_t at = 0;
  for (int64_t r = 0; r < c.stride && r < c.kh; ++r)
    for (int64_t q = 0; q < c.stride && q < c.kw; ++q) {
      const Phase ph = phase_of(r, c.x.H, c.kh, c.stride, c.pad), pw = phase_of(q, c.x.W, c.kw, c.stride, c.pad);
      body(ph, pw, at);
      at += gemm::packed_floats(c.x.C, ph.taps * pw.taps * c.O);
    }
}

// The patches of x at the places of `grid`; staged: x with its edge, or x itself.
Patches patches_of(const Conv& c, const Grid& grid, const float* staged) {
  const Stage s = stage_x(c);
  const int64_t row = s.W * s.C;
  return {{grid, const_cast<float*>(staged), s.image(), c.stride * row, c.stride * s.C}, row, c.kw * s.C};
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
    gemm::run(workers, grid.rows(), c.O, c.x.C * c.taps(), patches_of(c, grid, x), packed, finish, room + at.product);
  };
  if (c.relu) run(Finish<true>{});
  else run(Finish<false>{});
  if (!direct) unstage(workers, c.y, rows, y, own);
  else if (widths) clear_columns(workers, resized({c.y.B, 0, 0, 0, true}, c.O, c.y.H, c.y.W), rows, own);
}

void weight_gradient(const OpCall& call, const Conv& c, const Grid& grid, const Rows& g, const float* x, float* dW, float* room) {
  const Workers& workers = *call.workers;
  const int64_t C = c.x.C, taps = c.taps(), K = C * taps;
  const bool direct = C == 1 || taps == 1;  // [O, taps, C] is [O, C, taps] then
  float* rows = direct ? dW : room;
  gemm::stream(workers, c.O, K, grid.rows(), TransposedRowsOf{g}, PatchColumns{patches_of(c, grid, x)}, gemm::Store(rows, K),
               room + gemm::round_up(c.O * K, 16));
  if (direct) return;
  parallel(workers, c.O, [&](int64_t o, int) {
    const float* s = rows + o * K;
    float* d = dW + o * K;
    for (int64_t ch = 0; ch < C; ++ch)
      for (int64_t tap = 0; tap < taps; ++tap) d[ch * taps + tap] = s[tap * C + ch];
  });
}

void input_gradient(const OpCall& call, const Conv& c, const Stage& s, float* g, const float* packed, int64_t* table, float* rows,
                    float* room) {
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
    const int64_t h = (ph.first + c.pad) / c.stride - (ph.taps - 1) + s.top, w = (pw.first + c.pad) / c.stride - (pw.taps - 1) + s.left;
    const int64_t row = s.W * O;
    const Patches patches{{grid, g + h * row + w * O, s.image(), row, O}, row, pw.taps * O};
    Put put;
    put.rows = {grid, rows + (ph.first * c.x.W + pw.first) * C, c.x.H * c.x.W * C, c.stride * c.x.W * C, c.stride * C};
    gemm::run(workers, grid.rows(), C, ph.taps * pw.taps * O, patches, packed + weights, put, room);
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
  float *dx = call.out[0].f32(), *dW = call.out[1].f32(), *db = call.out[2].f32(), *room = static_cast<float*>(call.workspace);
  const float *y = call.in[4].f32(), *dy = call.in[5].f32();
  const auto at = conv_backward_scratch(c, workers.count, dx, dW, widths, c.relu && !y);
  const auto own = [&](int64_t b) { return c.own(widths, b); };
  auto* table = reinterpret_cast<int64_t*>(room);
  float* product = room + at.product;
  if (c.relu && !y && c.x.B > 0) {
    forward(call, c, nullptr, product, product + gemm::round_up(call.in[5].count(), 16));
    y = product;
  }
  const Stage s = stage_g(c, dx);
  float* g = const_cast<float*>(dy);  // read only
  if (stages_g(c, s, widths)) {
    g = room + at.g;
    stage(workers, c.y, dy, c.relu ? y : nullptr, s, g, own);
  }
  if (dW) {
    const float* x = call.in[0].f32();
    if (stages_x(c)) {
      stage(workers, c.x, x, nullptr, stage_x(c), room + at.x, [&](int64_t b) { return own_width(widths, b, c.x.W); });
      x = room + at.x;
    }
    const Grid grid = grid_of(c.x.B, c.y.H, c.y.W, widths ? table : nullptr, own);
    const Rows rows{grid, g + (s.top * s.W + s.left) * c.O, s.image(), s.W * c.O, c.O};
    weight_gradient(call, c, grid, rows, x, dW, product);
  }
  if (db) gemm::column_sums(workers, g, c.x.B * s.H * s.W, c.O, db);
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
