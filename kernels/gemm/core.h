// The per-ISA half of gemm.h: register tiles, packing, loaders and the two loops over tasks. Include gemm.h, not this.
#pragma once
#include "../common/simd.h"

namespace affuse::AFFUSE_ISA::gemm {

using namespace affuse::gemm;

// Register tile: kTileRows x (kTileVecs vectors). AVX-512: 28 sums + 2 columns + 1 broadcast of 32 registers; the tile is
// tall rather than wide because columns stream from the L2 cache (128 bytes for 28 FMAs) while rows stay in L1.
#if defined(AFFUSE_ISA_AVX512)
constexpr int kTileRows = 14;
#elif defined(AFFUSE_ISA_AVX2)
constexpr int kTileRows = 6;
#elif defined(AFFUSE_ISA_NEON)
constexpr int kTileRows = 12;  // 24 sums + 2 columns + 3 vectors of rows, used lane by lane, of 32 registers
#else
constexpr int kTileRows = 4;
#endif
constexpr int kTileVecs = 2;
constexpr int kTileStride = kTileVecs * kLanes;  // floats between rows of Tile::acc; also the width of a full panel
static_assert(kColumnUnit % kTileStride == 0 && kBlockRows % kTileRows == 0 && kTileRows <= 16);

struct Tile {
  int64_t row, col;  // of the first element
  int rows, cols;    // valid part
  float* acc;        // the sums, 64-byte aligned, row stride kTileStride; columns >= cols up to the vector's end are padding
};

// Base of epilogues. tile() is yours. With Split::rows, begin and end enclose the tiles of a block of whole rows. ahead()
// comes before the last multiplication of a tile: to fetch what tile() will write or read (its sums are not there yet).
struct Epilogue {
  AFFUSE_INLINE void begin(int64_t, int, int) const {}
  AFFUSE_INLINE void end(int64_t, int, int) const {}
  AFFUSE_INLINE void ahead(const Tile&) const {}
};

// A block of m rows is cut into tiles of nearly equal height <= kTileRows. Packed block: tile after tile, each [kc][height].
struct RowTiles {
  int count, base, extra;
  explicit AFFUSE_INLINE RowTiles(int m) : count((m + kTileRows - 1) / kTileRows) {
    base = count ? m / count : 0;
    extra = count ? m % count : 0;
  }
  AFFUSE_INLINE int start(int t) const { return t * base + (t < extra ? t : extra); }
  AFFUSE_INLINE int height(int t) const { return base + (t < extra); }
};

// ---- primitives (kernels/gemm/cpu.cc) ----

// acc[r][c] (+)= sum_k a[k][r] * b[k][c]: rows 1…kTileRows, vecs 1 or 2; a [kc][rows], b [kc][vecs*kLanes]. With resume the
// sums continue from acc, else from 0. On the side, the cache line of next + k*next_step is brought into L2 (any address is
// allowed; null: none): see Upcoming.
void tile_multiply(int rows, int vecs, int64_t kc, const float* a, const float* b, float* acc, bool resume,
                   const float* next = nullptr, int64_t next_step = 0);

// The same, from 0, with rows as they lie in memory: (i,k) = a[i*ld + k]. The rows that come next lie `following` floats
// after these.
void tile_multiply_lying(int rows, int vecs, int64_t kc, const float* a, int64_t ld, const float* b, float* acc,
                         int64_t following);

// The same for a panel of few columns, all tiles of a packed block at once, with vectors along the rows: one multiply-add
// for a column and a tile instead of one for a row. The chain of every element is the same. acc: tile t at
// start(t)*kTileStride. a is read up to 16 floats past its end.
constexpr int kFewColumns = kLanes / 2;
void multiply_few(const RowTiles& tiles, int cols, int64_t kc, const float* a, const float* b, float* acc, bool resume);

// A panel that few row tiles meet comes from memory as fast as it is read: the tiles take it in turns, so many steps at a
// time, while the next as many come into L2. Further ahead (a panel of 1024 steps) memory gives less: 16 rows with 61 MB of
// weights, 50 against 55 % of the multiply-add roof (affuse bench --filter '^fbp/B=16'). Where no line comes by itself, the
// other way round.
#if defined(AFFUSE_ISA_AVX512)
constexpr int64_t kTurn = 128;
#else
constexpr int64_t kTurn = 512;
#endif
AFFUSE_INLINE int64_t turn_of(const RowTiles& tiles, int64_t kc) { return tiles.count <= 2 && kc > kTurn ? kTurn : kc; }

// The panel after this one, or the next turn of it (kc rows of kTileStride floats, null: there is none), dealt to the row
// tiles that multiply by this one.
struct Upcoming {
  const float* panel;
  int64_t kc, step;
  AFFUSE_INLINE Upcoming(const float* panel, int64_t kc, int tiles)
      : panel(panel), kc(kc), step((kTileStride + tiles - 1) / tiles) {}
  AFFUSE_INLINE const float* of(int tile) const { return panel ? panel + tile * step * kc : nullptr; }
};

// One row times this many whole panels at once, `apart` floats from each other: memory gives more to four streams of
// addresses than to one (Zen 3: 28 against 17 GB/s), and eight chains of multiply-adds wait less than two. 1: panel by panel,
// with the next one on its way to L2, which is as quick where that was measured (AVX-512).
// acc: panel p's sums at p*kTileStride; chains as tile_multiply's.
#if defined(AFFUSE_ISA_AVX512)
constexpr int kRowPanels = 1;
#else
constexpr int kRowPanels = 4;
#endif
void multiply_row(int64_t kc, const float* a, const float* b, int64_t apart, float* acc, bool resume);

// The row packers: m rows, k in [0,kc), into dst (m*kc floats) as RowTiles says.
void pack_rows(const float* a, int64_t ld, int m, int64_t kc, float* dst);                  // (i,k) = a[i*ld + k]
void pack_rows_transposed(const float* a, int64_t ld, int m, int64_t kc, float* dst);       // (i,k) = a[k*ld + i]
void pack_rows_indirect(const float* const* a, int64_t k0, int m, int64_t kc, float* dst);  // (i,k) = a[i][k0 + k]

// Columns [0,N) into panels of kTileStride: panel p at dst + p*kTileStride*K is [K][width], width a whole number of vectors,
// padded with zeros. nk: element (k,n) = w[n*ld + k]; kn: w[k*ld + n].
void pack_columns(const float* w, int64_t ld, int64_t N, int64_t K, Layout layout, float* dst, const Workers& workers);
// One panel of `cols` <= kTileStride columns; kn or nk as above.
void pack_panel(const float* w, int64_t ld, int cols, int64_t K, Layout layout, float* dst);
// Like pack_panel for nk with scattered source rows: column c is rows[c] (null: zeros).
void pack_panel_indirect(const float* const* rows, int cols, int64_t K, float* dst);

// out[c] (+)= sum over rows r of g[r*cols + c]: blocks of 64 rows, then the blocks, always in this order. rows may be 0.
void column_sums(const Workers& workers, const float* g, int64_t rows, int64_t cols, float* out, bool add = false);

AFFUSE_INLINE int vecs_of(int64_t cols) { return cols > kLanes ? 2 : 1; }

// ---- row loaders ----
// One that knows where its rows are zero says so: span(i, m, K) is the part of K that matters for rows [i, i+m), from and to
// even where an operand is rounded. Without it, all of K does.
struct Span {
  int64_t from, to;
};
template <class Rows>
AFFUSE_INLINE Span span_of(const Rows& rows, int64_t i, int m, int64_t K) {
  if constexpr (requires { rows.span(i, m, K); }) return rows.span(i, m, K);
  else return {0, K};
}
struct PlainRows {  // (i,k) = data[i*ld + k]
  const float* data;
  int64_t ld;
  AFFUSE_INLINE void pack(int64_t i, int m, int64_t k, int64_t kc, float* dst) const {
    pack_rows(data + i * ld + k, ld, m, kc, dst);
  }
};
struct TransposedRows {  // (i,k) = data[k*ld + i]
  const float* data;
  int64_t ld;
  AFFUSE_INLINE void pack(int64_t i, int m, int64_t k, int64_t kc, float* dst) const {
    pack_rows_transposed(data + k * ld + i, ld, m, kc, dst);
  }
};
struct IndirectRows {  // (i,k) = rows[i][k]
  const float* const* rows;
  AFFUSE_INLINE void pack(int64_t i, int m, int64_t k, int64_t kc, float* dst) const {
    pack_rows_indirect(rows + i, k, m, kc, dst);
  }
};
// Rows that meet few columns are not worth copying: see run_lying().
template <class Rows>
constexpr bool kRowsLie = false;
template <>
constexpr bool kRowsLie<PlainRows> = true;
// ---- column loaders of stream() ----
// Columns [n0,n1) of a piece of K into panels of kTileStride, panel of column n at dst + (n-n0)*kc. A whole source row at a
// time: it lies in one piece in memory, the panels lie in the cache.
template <class RowOf>
AFFUSE_NOINLINE void pack_source_rows(const RowOf& row_of, int64_t n0, int64_t n1, int64_t kc, float* dst) {
  const int64_t whole = n0 + (n1 - n0) / kTileStride * kTileStride;
  const int cols = int(n1 - whole), width = vecs_of(cols) * kLanes;
  for (int64_t i = 0; i < kc; ++i) {
    const float* row = row_of(i);
    for (int64_t n = n0; n < whole; n += kTileStride)
      for (int c = 0; c < kTileStride; c += kLanes) store(dst + (n - n0) * kc + i * kTileStride + c, load(row + n + c));
    for (int c = 0; cols > 0 && c < width; c += kLanes) {
      const int left = cols - c;
      store(dst + (whole - n0) * kc + i * width + c, left >= kLanes ? load(row + whole + c) : load(row + whole + c, left));
    }
  }
}
// Where an operand lies, for fetching it ahead: the address may be past the end.
struct Source {
  const float* at;
  int64_t ld;
};
struct PlainColumns {  // (k,n) = data[k*ld + n]
  const float* data;
  int64_t ld;
  static constexpr bool kCopies = true;  // packing a full panel copies what source() tells, row by row
  AFFUSE_INLINE Source source(int64_t n, int64_t k) const { return {data + k * ld + n, ld}; }
  AFFUSE_INLINE void pack(int64_t n0, int64_t n1, int64_t k, int64_t kc, float* dst) const {
    pack_source_rows([&](int64_t i) { return data + (k + i) * ld; }, n0, n1, kc, dst);
  }
};
struct IndirectColumns {  // (k,n) = rows[k][n]: K runs over scattered rows
  const float* const* rows;
  AFFUSE_INLINE void pack(int64_t n0, int64_t n1, int64_t k, int64_t kc, float* dst) const {
    pack_source_rows([&](int64_t i) { return rows[k + i]; }, n0, n1, kc, dst);
  }
};

// ---- loops ----

// The operand format of run() and stream(): where element n of a packed operand lies, what becomes of an operand that a
// loader has packed, whether tile_multiply could multiply it then, the steps that a multiplication makes of kc, and what
// multiplies. bf16.h has the others.
struct Float32 {
  static constexpr bool kRounds = false;
  static constexpr bool kInLines = false;
  static AFFUSE_INLINE int64_t rows(int64_t n) { return n; }
  static AFFUSE_INLINE int64_t columns(int64_t n) { return n; }
  static AFFUSE_INLINE void settle_rows(float*, int, int64_t) {}
  static AFFUSE_INLINE void settle_columns(float*, int64_t, int64_t) {}
  static constexpr bool plain() { return true; }
  static AFFUSE_INLINE int64_t steps(int64_t kc) { return kc; }
  static AFFUSE_INLINE void multiply(int height, int vecs, int64_t kc, const float* a, const float* b, float* acc,
                                     bool resume, const float* next, int64_t next_step) {
    tile_multiply(height, vecs, kc, a, b, acc, resume, next, next_step);
  }
};

// Which task comes at this place: `at_once` row blocks take turns, each with its column blocks in order.
AFFUSE_INLINE void in_turns(int64_t task, int64_t row_blocks, int64_t col_blocks, int64_t at_once, int64_t& row_block,
                            int64_t& col_block) {
  const int64_t first = task / (at_once * col_blocks) * at_once, place = task % (at_once * col_blocks);
  const int64_t turn = min64(at_once, row_blocks - first);
  row_block = first + place % turn;
  col_block = place / turn;
}
AFFUSE_INLINE int64_t& held(float* scratch) { return *reinterpret_cast<int64_t*>(scratch); }

// run() without packing, where columns are few: copying a row costs as much as half a panel's multiplication, reading it as
// it lies makes that a tenth slower. Not where a tile's lines fall into the same sets of L1, nor where the columns of a
// long K would not stay in L2.
AFFUSE_INLINE bool leave_rows(int64_t N, int64_t K, int64_t ld) {
  const bool apart = (ld + 64) % 512 >= 128 || kTileRows * ld <= 5120;
  return apart && N <= 144 && N * K <= 131072;
}
template <class E>
void run_lying(const Workers& workers, int64_t M, int64_t N, int64_t K, const PlainRows& rows, const float* packed,
               const E& epilogue, float* workspace, const Plan& p) {
  parallel(workers, p.row_blocks * p.col_blocks, [&](int64_t task, int worker) {
    const int64_t i = task / p.col_blocks * p.block_rows, n0 = task % p.col_blocks * p.block_cols;
    const int64_t n1 = min64(N, n0 + p.block_cols);
    const int m = int(min64(p.block_rows, M - i));
    const RowTiles tiles(m);
    float* const acc = workspace + worker * worker_floats(p);
    epilogue.begin(i, m, worker);
    for (int64_t n = n0; n < n1; n += kTileStride) {
      const int cols = int(min64(kTileStride, n1 - n));
      for (int t = 0; t < tiles.count; ++t) {
        const Tile tile{i + tiles.start(t), n, tiles.height(t), cols, acc};
        epilogue.ahead(tile);
        tile_multiply_lying(tile.rows, vecs_of(cols), K, rows.data + tile.row * rows.ld, rows.ld, packed + n * K, acc,
                            tile.rows * rows.ld);
        epilogue.tile(tile, worker);
      }
    }
    epilogue.end(i, m, worker);
  });
}

// Packed columns. workspace: workspace_floats(M,N,K,workers.count,split) floats, 64-byte aligned.
template <class Rows, class E, class Format = Float32>
void run(const Workers& workers, int64_t M, int64_t N, int64_t K, const Rows& rows, const float* packed, const E& epilogue,
         float* workspace, Split split = Split::any, const Format& f = {}) {
  if (M <= 0 || N <= 0) return;
  const Plan p = plan(M, N, K, split);
  if constexpr (kRowsLie<Rows> && !Format::kRounds) {
    if (leave_rows(N, K, rows.ld)) return run_lying(workers, M, N, K, rows, packed, epilogue, workspace, p);
  }
  const int64_t own = worker_floats(p);
  // A worker keeps the rows it packed last: the tasks of a row block come one after the other, those of as many row blocks
  // as there are workers in turns.
  for (int w = 0; w < workers.count; ++w) held(workspace + w * own) = -1;
  parallel(workers, p.row_blocks * p.col_blocks, [&](int64_t task, int worker) {
    int64_t row_block, col_block;
    in_turns(task, p.row_blocks, p.col_blocks, workers.count, row_block, col_block);
    const int64_t i = row_block * p.block_rows, n0 = col_block * p.block_cols;
    const int64_t n1 = min64(N, n0 + p.block_cols);
    const int m = int(min64(p.block_rows, M - i));
    const RowTiles tiles(m);
    float* const acc = workspace + worker * own + 16;
    float* const kept = acc + p.sums;
    int64_t& holds = held(acc - 16);
    const bool cut = p.piece < K, packed_before = holds == i && p.kept >= K;
    holds = i;
    epilogue.begin(i, m, worker);
    const Span span = span_of(rows, i, m, K);
    int64_t k = span.from;
    do {  // also once when there is nothing: the sums are 0
      const int64_t kc = min64(p.piece, span.to - k);
      const bool last = k + kc >= span.to, resume = k > span.from;
      float* const block = kept + (p.kept >= K ? f.rows(m * (k - span.from)) : 0);
      if (!packed_before) rows.pack(i, m, k, kc, block);
      for (int64_t n = n0; n < n1; n += kTileStride) {
        const int cols = int(min64(kTileStride, n1 - n)), vecs = vecs_of(cols);
        const float* b = packed + f.columns(n * K + k * (vecs * kLanes));
        float* const panel = cut ? acc + (n - n0) * m : acc;  // only a cut K has to remember the sums of every panel
        const auto tile_of = [&](int t, float* sums) { return Tile{i + tiles.start(t), n, tiles.height(t), cols, sums}; };
        if (!Format::kRounds && !Format::kInLines && cols <= kFewColumns) {
          for (int t = 0; last && t < tiles.count; ++t) epilogue.ahead(tile_of(t, nullptr));
          multiply_few(tiles, cols, kc, block, b, panel, resume);
          for (int t = 0; last && t < tiles.count; ++t)
            epilogue.tile(tile_of(t, panel + tiles.start(t) * kTileStride), worker);
          continue;
        }
        if constexpr (kRowPanels > 1 && !Format::kRounds && !Format::kInLines) {
          if (m == 1 && n + kRowPanels * kTileStride <= n1) {
            alignas(64) float sums[kRowPanels * kTileStride];
            float* const together = cut ? panel : sums;
            multiply_row(kc, block, b, K * kTileStride, together, resume);
            for (int x = 0; last && x < kRowPanels; ++x)
              epilogue.tile(Tile{i, n + x * kTileStride, 1, kTileStride, together + x * kTileStride}, worker);
            n += (kRowPanels - 1) * kTileStride;
            continue;
          }
        }
        const int64_t after = n + kTileStride;
        const float* const upcoming = after < n1 ? packed + f.columns(after * K + k * kTileStride) : nullptr;
        const Upcoming next(upcoming, f.columns(kc), tiles.count);
        for (int t = 0; t < tiles.count; ++t) {
          const Tile tile = tile_of(t, cut ? panel + tiles.start(t) * kTileStride : panel);
          if (last) epilogue.ahead(tile);
          f.multiply(tile.rows, vecs, kc, block + f.rows(tiles.start(t) * kc), b, tile.acc, resume, next.of(t), next.step);
          if (last) epilogue.tile(tile, worker);
        }
      }
      k += kc;
    } while (k < span.to);
    epilogue.end(i, m, worker);
  });
}

// Columns as they lie in memory, element (k,n) = w[n*ld + k], for a weight that nobody packed: with few rows (fresh_panels)
// each panel is packed into the cache, meets all rows and is gone; with many the whole weight is packed first. As run() with
// Split::any, except that begin() and end() are not called. workspace: unpacked_workspace_floats(M,N,K,workers.count).
template <class Rows, class E>
void run_unpacked(const Workers& workers, int64_t M, int64_t N, int64_t K, const Rows& rows, const float* w, int64_t ld,
                  const E& epilogue, float* workspace) {
  if (!fresh_panels(M, K)) {
    pack_columns(w, ld, N, K, Layout::nk, workspace, workers);
    return run(workers, M, N, K, rows, workspace, epilogue, workspace + packed_floats(N, K));
  }
  if (M <= 0 || N <= 0) return;
  const FreshPlan p = fresh_plan(M, N, K);
  parallel(workers, p.row_blocks, [&](int64_t block, int) {
    const int64_t i = block * p.block_rows;
    rows.pack(i, int(min64(p.block_rows, M - i)), 0, K, workspace + i * K);
  });
  float* const own = workspace + round_up(M * K, 16);
  parallel(workers, p.col_blocks, [&](int64_t task, int worker) {
    float* const acc = own + worker * p.worker;
    float* const panel = acc + round_up(p.block_rows * kColumnUnit, 16);
    const int64_t n1 = min64(N, (task + 1) * p.block_cols);
    for (int64_t n = task * p.block_cols; n < n1; n += kTileStride) {
      const int cols = int(min64(kTileStride, n1 - n)), vecs = vecs_of(cols);
      pack_panel(w + n * ld, ld, cols, K, Layout::nk, panel);
      // The next panel's source is as good as one piece of memory where ld == K.
      const bool more = n + kTileStride < n1 && ld == K;
      for (int64_t i = 0; i < M; i += p.block_rows) {
        const RowTiles tiles(int(min64(p.block_rows, M - i)));
        const auto tile_of = [&](int t, float* sums) { return Tile{i + tiles.start(t), n, tiles.height(t), cols, sums}; };
        if (cols <= kFewColumns) {
          for (int t = 0; t < tiles.count; ++t) epilogue.ahead(tile_of(t, nullptr));
          multiply_few(tiles, cols, K, workspace + i * K, panel, acc, false);
          for (int t = 0; t < tiles.count; ++t) epilogue.tile(tile_of(t, acc + tiles.start(t) * kTileStride), worker);
          continue;
        }
        const Upcoming next(more && i == 0 ? w + (n + kTileStride) * ld : nullptr, K, tiles.count);
        for (int t = 0; t < tiles.count; ++t) {
          const Tile tile = tile_of(t, acc);
          epilogue.ahead(tile);
          tile_multiply(tile.rows, vecs, K, workspace + tile.row * K, panel, acc, false, next.of(t), next.step);
          epilogue.tile(tile, worker);
        }
      }
    }
  });
}

// ---- common epilogues ----
// The lines that a tile of C is the first to touch, by the last element it has in them: rows that begin inside a line share
// their tile's first line with the panel before.
constexpr int kFirstTouched = kTileStride < 16 ? kTileStride - 1 : 15;
AFFUSE_INLINE void prefetch_row(const float* c, int cols) {
  for (int x = 15; x < cols + 15; x += 16) prefetch_write(c + (x < cols ? x : cols - 1));
}
AFFUSE_INLINE void prefetch_tile(const float* c, int64_t ld, const Tile& t) {
  for (int r = 0; r < t.rows; ++r) prefetch_row(c + (t.row + r) * ld + t.col, t.cols);
}
// A tile of C in memory: what stream() fetches evenly while the tile is multiplied, instead of ahead()'s all at once.
struct Target {
  float* at;
  int64_t ld;
};
struct Store : Epilogue {  // C[i*ld + n] = sum
  float* c;
  int64_t ld;
  AFFUSE_INLINE Target target(const Tile& t) const { return {c + t.row * ld + t.col, ld}; }
  AFFUSE_INLINE void ahead(const Tile& t) const { prefetch_tile(c, ld, t); }
  AFFUSE_INLINE Store(float* c, int64_t ld) : c(c), ld(ld) {}
  AFFUSE_INLINE void tile(const Tile& t, int) const {
    for (int r = 0; r < t.rows; ++r)
      for_lanes(t.cols, [&](int64_t x, int n) {
        store(c + (t.row + r) * ld + t.col + x, load(t.acc + r * kTileStride + x), n);
      });
  }
};
struct AddTo : Epilogue {  // C[i*ld + n] += sum
  float* c;
  int64_t ld;
  AFFUSE_INLINE Target target(const Tile& t) const { return {c + t.row * ld + t.col, ld}; }
  AFFUSE_INLINE void ahead(const Tile& t) const { prefetch_tile(c, ld, t); }
  AFFUSE_INLINE AddTo(float* c, int64_t ld) : c(c), ld(ld) {}
  AFFUSE_INLINE void tile(const Tile& t, int) const {
    for (int r = 0; r < t.rows; ++r)
      for_lanes(t.cols, [&](int64_t x, int n) {
        float* p = c + (t.row + r) * ld + t.col + x;
        store(p, load(p, n) + load(t.acc + r * kTileStride + x), n);
      });
  }
};

}  // namespace affuse::AFFUSE_ISA::gemm
