// The patch matrix of a convolution, row by row out of a staged map, and how maps are staged. For cpu.cc.
#pragma once
#include "../common/reduce.h"
#include "../gemm/lines.h"
#include "conv2d.h"

namespace affuse::AFFUSE_ISA {
namespace {

// The positions of B maps of H x W that are computed: row 0 of every map, then row 1 of every map and so on, so that
// positions whose windows reach over the same edge lie together. All columns, or each item's own.
struct Grid {
  int64_t B, H, W;
  const int64_t* first;  // [B+1] columns before each item's; null: all columns are own

  struct Place {
    int64_t b, h, w, width;
  };
  AFFUSE_INLINE int64_t columns() const { return first ? first[B] : B * W; }
  AFFUSE_INLINE int64_t rows() const { return H * columns(); }
  AFFUSE_INLINE int64_t width(int64_t b) const { return first ? first[b + 1] - first[b] : W; }
  AFFUSE_INLINE Place place(int64_t m) const {
    const int64_t all = columns(), h = m / all, at = m % all;
    if (!first) return {at / W, h, at % W, W};
    int64_t b = 0, n = B;
    while (n - b > 1) {  // first[b] <= at < first[n]; items without a column are stepped over
      const int64_t half = b + (n - b) / 2;
      if (first[half] <= at) b = half;
      else n = half;
    }
    return {b, h, at - first[b], width(b)};
  }
  AFFUSE_INLINE void next(Place& p) const {
    if (++p.w < p.width) return;
    p.w = 0;
    do
      if (++p.b == B) p.b = 0, ++p.h;
    while ((p.width = width(p.b)) == 0);
  }
};

// Fills `first` and returns the grid; own(b) says how many columns are b's. table null: all.
template <class Own>
Grid grid_of(int64_t B, int64_t H, int64_t W, int64_t* table, Own&& own) {
  if (!table) return {B, H, W, nullptr};
  table[0] = 0;
  for (int64_t b = 0; b < B; ++b) table[b + 1] = table[b] + own(b);
  return {B, H, W, table};
}

constexpr int64_t kGroup = 16;  // positions whose floats are copied together, for the sake of the L1 cache

// Rows of floats at the grid's places of a channel-last map.
struct Rows {
  Grid grid;
  float* base;                 // of place (0, 0, 0)
  int64_t image, down, right;  // floats between items, rows and columns of the grid
  AFFUSE_INLINE float* at(const Grid::Place& p) const { return base + p.b * image + p.h * down + p.w * right; }
  // Addresses of n places from m on.
  AFFUSE_INLINE void list(int64_t m, int64_t n, const float** out) const {
    Grid::Place p = grid.place(m);
    for (int64_t i = 0; i < n; ++i, grid.next(p)) out[i] = at(p);
  }
};

// Row m of the patch matrix: runs of `length` floats, `pitch` floats apart, from the place of m on: one for each row of the
// kernel. Run r of grid row h is row r + step h of the map with its edge; rows outside [top, bottom) of that are zeros.
struct Patches {
  Rows rows;
  int64_t pitch, length, step, top, bottom;

  // The part of K that is not zeros in every row from i to i+m.
  AFFUSE_INLINE gemm::Span span(int64_t i, int m, int64_t K) const {
    const int64_t first = rows.grid.place(i).h, last = rows.grid.place(i + m - 1).h;
    const int64_t from = gemm::min64(K, gemm::max64(0, top - step * last) * length);
    return {from, gemm::max64(from, gemm::min64(K, (bottom - step * first) * length))};
  }
  // The rows for which columns [n0, n1) are not all zeros.
  AFFUSE_INLINE gemm::Span positions(int64_t n0, int64_t n1) const {
    const int64_t r0 = n0 / length, r1 = (n1 - 1) / length, all = rows.grid.columns();
    const auto row = [&](int64_t at) { return gemm::min64(rows.grid.H, gemm::ceil_div(gemm::max64(0, at), step)) * all; };
    return {row(top - r1), row(bottom - r0)};
  }

  // Row loader of gemm::run.
  AFFUSE_INLINE void pack(int64_t i, int m, int64_t k, int64_t kc, float* dst) const {
    const gemm::RowTiles tiles(m);
    Grid::Place p = rows.grid.place(i);
    for (int t = 0; t < tiles.count; ++t) {
      const float* source[16];
      const int height = tiles.height(t);
      for (int r = 0; r < height; ++r) {
        source[r] = rows.at(p);
        rows.grid.next(p);
      }
      float* d = dst + tiles.start(t) * kc;
      for (int64_t at = k; at < k + kc;) {
        const int64_t run = at / length, from = at - run * length, n = gemm::min64(length - from, k + kc - at);
        gemm::pack_rows_indirect(source, run * pitch + from, height, n, d);
        d += n * height;
        at += n;
      }
    }
  }
};

// The same in lines, copied rather than transposed: for runs of whole lines.
struct PatchLines {
  const Patches& patches;
  AFFUSE_INLINE gemm::Span span(int64_t i, int m, int64_t K) const { return patches.span(i, m, K); }
  AFFUSE_INLINE void pack(int64_t i, int m, int64_t k, int64_t kc, float* dst) const {
    const gemm::RowTiles tiles(m);
    Grid::Place p = patches.rows.grid.place(i);
    for (int t = 0; t < tiles.count; ++t) {
      const int height = tiles.height(t);
      for (int r = 0; r < height; ++r, patches.rows.grid.next(p)) {
        const float* const source = patches.rows.at(p);
        float* d = dst + tiles.start(t) * kc;
        for (int64_t at = k; at < k + kc;) {
          const int64_t run = at / patches.length, from = at - run * patches.length;
          const int64_t n = gemm::min64(patches.length - from, k + kc - at);
          gemm::copy_lines(source + run * patches.pitch + from, n, height, r, d);
          d += n * height;
          at += n;
        }
      }
    }
  }
};

// A block of columns of the patch matrix, and of a column of ones behind its last (its product with g is the bias's
// gradient), as panels: at most kGradColumns of them.
struct PatchColumns {
  const Patches& patches;
  int64_t n0, n1, K;  // columns [n0, n1) of [0, K], column K the ones
  struct Piece {      // of a row: n floats from `source` on, to `target` + position * width
    int64_t source, target;
    int width, n;
  };
  Piece pieces[kGradColumns];
  int count = 0;

  AFFUSE_INLINE PatchColumns(const Patches& patches, int64_t n0, int64_t n1, int64_t K)
      : patches(patches), n0(n0), n1(n1), K(K) {}
  AFFUSE_INLINE int64_t panel_of(int64_t n) const { return (n - n0) / gemm::kTileStride * gemm::kTileStride; }
  AFFUSE_INLINE int width_of(int64_t panel) const {
    return gemm::vecs_of(gemm::min64(gemm::kTileStride, n1 - n0 - panel)) * kLanes;
  }
  // The table depends on kc, the positions of a piece: between panels lie kc rows.
  AFFUSE_INLINE void plan(int64_t kc) {
    count = 0;
    for (int64_t at = n0; at < gemm::min64(n1, K);) {
      const int64_t run = at / patches.length, from = at - run * patches.length, panel = panel_of(at);
      int64_t n = gemm::min64(patches.length - from, gemm::min64(n1, K) - at);
      n = gemm::min64(gemm::min64(n, kLanes), panel + gemm::kTileStride - (at - n0));
      pieces[count++] = {run * patches.pitch + from, panel * kc + (at - n0 - panel), width_of(panel), int(n)};
      at += n;
    }
  }
  AFFUSE_INLINE void pack(int64_t k, int64_t kc, float* dst) const {
    const float* rows[kGradPiece];
    patches.rows.list(k, kc, rows);
    for (int64_t i0 = 0; i0 < kc; i0 += kGroup)
      for (int e = 0; e < count; ++e) {
        const Piece piece = pieces[e];
        float* d = dst + piece.target;
        const int64_t i1 = gemm::min64(kc, i0 + kGroup);
        if (piece.n == kLanes)
          for (int64_t i = i0; i < i1; ++i) {
            prefetch(rows[gemm::min64(i + kGroup, kc - 1)] + piece.source);
            store(d + i * piece.width, load(rows[i] + piece.source));
          }
        else
          for (int64_t i = i0; i < i1; ++i) store(d + i * piece.width, load(rows[i] + piece.source, piece.n), piece.n);
      }
    if (n1 <= K) return;
    const int64_t panel = panel_of(K), width = width_of(panel);
    float* ones = dst + panel * kc + (K - n0 - panel);
    for (int64_t i = 0; i < kc; ++i) ones[i * width] = 1.0f;
  }
};

// g as transposed rows: (o, k) = g of channel o at position k, and 0 where `gate` (the saved y, laid out as g is) is not
// positive.
struct GradientRows {
  Rows g;
  const float* gate;
  AFFUSE_INLINE void pack(int64_t o, int m, int64_t k, int64_t kc, float* dst) const {
    const gemm::RowTiles tiles(m);
    const float* rows[kGradPiece];
    g.list(k, kc, rows);
    const int64_t to_gate = gate - g.base;
    for (int64_t i0 = 0; i0 < kc; i0 += kGroup)
      for (int t = 0; t < tiles.count; ++t) {
        const int height = tiles.height(t);
        float* d = dst + tiles.start(t) * kc;
        const int64_t from = o + tiles.start(t), i1 = gemm::min64(kc, i0 + kGroup);
        for (int c = 0; c < height; c += kLanes) {
          const int n = height - c < kLanes ? height - c : kLanes;
          if (!gate)
            for (int64_t i = i0; i < i1; ++i) {
              prefetch(rows[gemm::min64(i + kGroup, kc - 1)] + from);
              store(d + i * height + c, load(rows[i] + from + c, n), n);
            }
          else
            for (int64_t i = i0; i < i1; ++i) {
              const float *s = rows[i] + from + c, *later = rows[gemm::min64(i + kGroup, kc - 1)] + from;
              prefetch(later);
              prefetch(later + to_gate);
              store(d + i * height + c, keep(lt(zero(), load(s + to_gate, n)), load(s, n)), n);
            }
        }
      }
  }
};

AFFUSE_INLINE void clear(float* p, int64_t n) {
  for_lanes(n, [&](int64_t i, int k) { put(p + i, zero(), k); });
}

// Lays out a map channel-last with its edge; columns from own(b) on become zeros. With `gate` (the same shape as x) an
// element passes where its gate is positive.
template <class Own>
void stage(const Workers& workers, const Maps& m, const float* x, const float* gate, const Stage& s, float* out, Own&& own) {
  const auto passed = [&](int64_t at) { return gate && !(gate[at] > 0.0f) ? 0.0f : x[at]; };
  parallel(workers, m.B * s.H, [&](int64_t task, int) {
    const int64_t b = task / s.H, h = task % s.H - s.top, W = h >= 0 && h < m.H ? own(b) : 0, C = m.C;
    float* row = out + task * s.W * C;
    if (W == 0) return clear(row, s.W * C);
    clear(row, s.left * C);
    float* d = row + s.left * C;
    if (m.last) {
      const int64_t from = m.at(b, 0, h, 0);
      for_lanes(W * C, [&](int64_t i, int n) {
        const Vec v = get(x + from + i, n);
        put(d + i, gate ? keep(lt(zero(), get(gate + from + i, n)), v) : v, n);
      });
    } else {
      const int64_t from = m.at(b, 0, h, 0), plane = m.H * m.W;
      for (int64_t w = 0; w < W; ++w)
        for (int64_t c = 0; c < C; ++c) d[w * C + c] = passed(from + c * plane + w);
    }
    clear(d + W * C, (s.W - s.left - W) * C);
  });
}

// Rows of a channel-last map into planes; columns from own(b) on become zeros.
template <class Own>
void unstage(const Workers& workers, const Maps& m, const float* rows, float* out, Own&& own) {
  parallel(workers, m.B * m.H, [&](int64_t task, int) {
    const int64_t b = task / m.H, h = task % m.H, W = own(b);
    const float* s = rows + task * m.W * m.C;
    for (int64_t c = 0; c < m.C; ++c) {
      float* d = out + m.at(b, c, h, 0);
      for (int64_t w = 0; w < W; ++w) d[w] = s[w * m.C + c];
      clear(d + W, m.W - W);
    }
  });
}

// Zeros in the columns that are not own.
template <class Own>
void clear_columns(const Workers& workers, const Maps& m, float* rows, Own&& own) {
  parallel(workers, m.B * m.H, [&](int64_t task, int) {
    const int64_t W = own(task / m.H);
    clear(rows + (task * m.W + W) * m.C, (m.W - W) * m.C);
  });
}

}  // namespace
}  // namespace affuse::AFFUSE_ISA
