// stream(): products of two operands of which neither is kept, dW = dy^T x and dx = g W of a weight as it lies. Part of
// gemm.h: include that.
//
// Rows of at most kStreamAhead floats are packed ahead, once. Columns likewise if several row blocks meet them, or if K is
// so short that little is multiplied between two copies (dW of few rows: affuse bench --filter 'sweep 016'); else they
// are fresh: a panel is copied into L2 while the one before it is multiplied, a row of it every few steps of K, and that
// row's source comes out of memory one multiplication earlier. So a weight is read from memory once, evenly, and written
// nowhere (256 rows of 5000 times 41 MB of W: 69 % of the multiply-add roof when whole blocks are copied between the
// multiplications, 81 % so). A product that is stored fetches its tile of C in the same way; if its columns were packed ahead
// and K is in one piece, its sums go from registers to C.
#pragma once
#include <type_traits>

#include "gemm.h"

namespace affuse::gemm {

constexpr int kStreamRows = 336;                    // most rows of a task
constexpr int64_t kStreamAhead = int64_t(4) << 20;  // floats of an operand that is packed ahead
constexpr int64_t kShallowK = 128;                  // up to here few columns are packed ahead for a single row block too

struct StreamPlan {
  int64_t row_blocks, block_rows, col_blocks, block_cols, piece;
  int64_t sums;  // as in Plan
  bool rows_ahead, columns_ahead;
};
// Columns ahead: a block of them is in L2 while row tiles pass, each in L1 for all panels: 256 x 384. Fresh: a block of rows
// takes half of L2 (512 KB) and meets two panels in turn.
static constexpr StreamPlan stream_plan(int64_t M, int64_t N, int64_t K) {
  StreamPlan p{};
  p.row_blocks = max64(1, ceil_div(M, kStreamRows));
  p.block_rows = max64(1, ceil_div(M, p.row_blocks));
  p.rows_ahead = M * K <= kStreamAhead;
  const int64_t columns = round_up(N, kColumnUnit) * K;
  p.columns_ahead = columns <= (p.row_blocks > 1 ? kStreamAhead : K <= kShallowK ? kStreamAhead / 16 : 0);
  const int64_t units = max64(1, ceil_div(N, kColumnUnit));
  const int64_t widest = 256 / kColumnUnit;
  const int64_t by_work = max64(1, int64_t(double(M) * double(N) * double(K) / 524288.0) / p.row_blocks);
  const int64_t want = max64(ceil_div(units, widest), min64(min64(ceil_div(8, p.row_blocks), by_work), units));
  p.block_cols = ceil_div(units, want) * kColumnUnit;
  p.col_blocks = max64(1, ceil_div(N, p.block_cols));
  const int64_t longest = p.columns_ahead ? 384 : min64(1024, 131072 / p.block_rows);
  p.piece = max64(1, K <= longest + longest / 2 ? K : round_up(ceil_div(K, ceil_div(K, longest)), 16));
  p.sums = p.piece < K ? round_up(p.block_rows * p.block_cols, 16) : 16 * kColumnUnit;
  return p;
}
static constexpr int64_t stream_worker_floats(const StreamPlan& p) {
  return p.sums + (p.rows_ahead ? 0 : round_up(p.block_rows * p.piece, 16)) +
         (p.columns_ahead ? 0 : 2 * p.piece * kColumnUnit);
}
static constexpr int64_t stream_workspace_floats(int64_t M, int64_t N, int64_t K, int workers) {
  const StreamPlan p = stream_plan(M, N, K);
  return (p.rows_ahead ? round_up(M * K, 16) : 0) + (p.columns_ahead ? round_up(N, kColumnUnit) * K : 0) +
         workers * stream_worker_floats(p);
}

}  // namespace affuse::gemm

#if defined(AFFUSE_ISA)
#include "core.h"

namespace affuse::AFFUSE_ISA::gemm {

// What a multiplication does on the side, spread evenly over its steps, `rows` times: a row of kTileStride floats is copied
// (to null: not), and the cache lines at fetch and fetch + second (0: none) come into L1 for writing, or into L2. After
// `before` of them fetches go on at `then`; after every `again` of them more that is then_step further on.
struct Aside {
  int64_t rows = 0, ld = 0;
  const float* from = nullptr;
  float* to = nullptr;
  const float* fetch = nullptr;
  int64_t second = kTileStride > 16 ? 16 : 0;
  int64_t before = INT64_MAX, again = INT64_MAX;
  const float* then = nullptr;
  int64_t then_step = 0;
  bool write = false;
};
// tile_multiply with something on the side (kernels/gemm/stream_cpu.cc).
void tile_multiply_aside(int rows, int vecs, int64_t kc, const float* a, const float* b, float* acc, bool resume,
                         const Aside& aside);

// c[r*ld + n] = sum_k a[k][r] * b[k][n] for panels of `cols` <= kTileStride columns side by side; more than one are whole.
void panels_multiply_into(int rows, int64_t panels, int cols, int64_t kc, const float* a, const float* b, float* c,
                          int64_t ld);

// Where another micro kernel multiplies, fetches come before it.
template <class Format>
AFFUSE_INLINE void multiply_aside(const Format& f, int rows, int vecs, int64_t kc, const float* a, const float* b,
                                  float* acc, bool resume, const Aside& aside) {
  if (f.plain()) return tile_multiply_aside(rows, vecs, kc, a, b, acc, resume, aside);
  for (int64_t i = 0; i < aside.rows; ++i)
    for (int line = 0; line < kTileStride; line += 16) {
      const float* const at = aside.fetch + i * aside.ld + line;
      if (aside.write) prefetch_write(at);
      else prefetch_l2(at);
    }
  f.multiply(rows, vecs, kc, a, b, acc, resume, nullptr, 0);
}

constexpr int64_t kFetchRows = 48;  // how far the source of a copied row is fetched ahead

// One task of stream(): rows [i, i+m) times columns [n0, n1).
struct StreamTask {
  int64_t i, n0, n1, K;
  int m, worker;
  const float* ahead;  // packed rows of the block, or null: each piece is packed into `block`
  float *acc, *block;
};

// Columns that nobody packed: panel after panel, piece of K after piece, each copied while the one before is multiplied.
template <class Rows, class Columns, class E, class Format>
void stream_fresh(const StreamPlan& p, const StreamTask& task, const Rows& rows, const Columns& columns, const E& epilogue,
                  float* room, const Format& f) {
  const RowTiles tiles(task.m);
  const int64_t K = task.K, panels = ceil_div(task.n1 - task.n0, kTileStride);
  const int64_t units = panels * max64(1, ceil_div(K, p.piece));
  const bool cut = p.piece < K;
  struct Unit {
    int64_t k, kc, n;
    int cols, vecs;
  };
  auto unit = [&](int64_t u) {
    const int64_t k = u / panels * p.piece, n = task.n0 + u % panels * kTileStride;
    const int cols = int(min64(kTileStride, task.n1 - n));
    return Unit{k, min64(p.piece, K - k), n, cols, vecs_of(cols)};
  };
  auto pack = [&](const Unit& x, int64_t from, int64_t count, float* dst) {
    if (count > 0) columns.pack(x.n, x.n + x.cols, x.k + from, count, dst + from * x.vecs * kLanes);
  };
  const int64_t size = p.piece * kColumnUnit;
  pack(unit(0), 0, unit(0).kc, room);
  const float* a = nullptr;
  for (int64_t u = 0; u < units; ++u) {
    const Unit x = unit(u), next = unit(min64(u + 1, units - 1)), after = unit(min64(u + 2, units - 1));
    const int64_t to_pack = u + 1 < units ? next.kc : 0, share = ceil_div(to_pack, tiles.count);
    float* const b = room + (u & 1) * size;
    float* const place = room + (~u & 1) * size;
    const bool last = x.k + x.kc >= K;
    if (task.ahead) {
      a = task.ahead + task.m * x.k;
    } else if (x.n == task.n0) {
      rows.pack(task.i, task.m, x.k, x.kc, task.block);
      f.settle_rows(task.block, task.m, x.kc);
      a = task.block;
    }
    if (x.kc > 0) f.settle_columns(b, x.cols, x.kc);
    for (int t = 0; t < tiles.count; ++t) {
      const int height = tiles.height(t);
      float* const sums = cut ? task.acc + (x.n - task.n0) * task.m + tiles.start(t) * kTileStride : task.acc;
      const Tile tile{task.i + tiles.start(t), x.n, height, x.cols, sums};
      if (last) epilogue.ahead(tile);
      const int64_t done = min64(to_pack, t * share), count = min64(share, to_pack - done);
      Aside aside;
      if constexpr (requires { columns.source(next.n, next.k); }) {
        const Source source = columns.source(next.n, next.k + done), beyond = columns.source(after.n, after.k);
        aside.ld = source.ld;
        aside.rows = count;
        // A row that does not begin with a line touches three: the first of them came with the panel before this one.
        const bool begins = source.ld % 16 == 0 && (reinterpret_cast<uintptr_t>(source.at) & 63) == 0;
        const int64_t line = begins ? 0 : 15;
        const int64_t left = next.kc - done - kFetchRows;  // rows of the next panel that are still to be fetched
        aside.fetch = (left > 0 ? source.at + kFetchRows * source.ld : beyond.at - left * source.ld) + line;
        if (left > 0) aside.before = left;
        aside.then = beyond.at + line;
        if constexpr (requires { Columns::kCopies; })
          if (next.cols == kTileStride && f.plain()) {
            aside.from = source.at;
            aside.to = place + done * kTileStride;
          }
      }
      if (!aside.to) pack(next, done, count, place);
      const float* const tile_rows = a + tiles.start(t) * x.kc;
      multiply_aside(f, height, x.vecs, x.kc, tile_rows, b, sums, x.k > 0, aside);
      if (last) epilogue.tile(tile, task.worker);
    }
  }
}

// Columns packed ahead: [n0, n1) at `columns`, piece after piece.
template <class Rows, class E, class Format>
void stream_ahead(const StreamPlan& p, const StreamTask& task, const Rows& rows, const float* columns, const E& epilogue,
                  const Format& f) {
  const RowTiles tiles(task.m);
  const int64_t K = task.K, width = round_up(task.n1 - task.n0, kTileStride);
  const bool cut = p.piece < K;
  for (int64_t k = 0; k < K; k += p.piece) {
    const int64_t kc = min64(p.piece, K - k);
    const bool last = k + kc >= K;
    const float* a = task.ahead ? task.ahead + task.m * k : task.block;
    const float* const b = columns + round_up(task.n1 - task.n0, kColumnUnit) * k;
    if (!task.ahead) {
      rows.pack(task.i, task.m, k, kc, task.block);
      f.settle_rows(task.block, task.m, kc);
    }
    for (int t = 0; t < tiles.count; ++t) {
      const int height = tiles.height(t);
      const float* const tile_rows = a + tiles.start(t) * kc;
      if constexpr (std::is_same_v<E, Store>)
        if (!cut && f.plain()) {
          const int64_t panels = (task.n1 - task.n0) / kTileStride, whole = panels * kTileStride;
          const int left = int(task.n1 - task.n0 - whole);
          float* const to = epilogue.c + (task.i + tiles.start(t)) * epilogue.ld + task.n0;
          panels_multiply_into(height, panels, kTileStride, kc, tile_rows, b, to, epilogue.ld);
          if (left > 0) panels_multiply_into(height, 1, left, kc, tile_rows, b + whole * kc, to + whole, epilogue.ld);
          continue;
        }
      for (int64_t n = task.n0; n < task.n1; n += kTileStride) {
        const int cols = int(min64(kTileStride, task.n1 - n)), vecs = vecs_of(cols);
        float* const sums = cut ? task.acc + tiles.start(t) * width + (n - task.n0) * height : task.acc;
        const Tile tile{task.i + tiles.start(t), n, height, cols, sums};
        Aside aside;
        if (last) {
          if constexpr (requires { epilogue.target(tile); }) {
            const Target target = epilogue.target(tile);
            aside.rows = height;
            aside.fetch = target.at + kFirstTouched;
            aside.ld = target.ld;
            aside.write = true;
          } else {
            epilogue.ahead(tile);
          }
        }
        multiply_aside(f, height, vecs, kc, tile_rows, b + (n - task.n0) * kc, sums, k > 0, aside);
        if (last) epilogue.tile(tile, task.worker);
      }
    }
  }
}

// Both operands through loaders, neither kept. workspace: stream_workspace_floats(M,N,K,workers.count).
template <class Rows, class Columns, class E, class Format = Float32>
void stream(const Workers& workers, int64_t M, int64_t N, int64_t K, const Rows& rows, const Columns& columns,
            const E& epilogue, float* workspace, const Format& f = {}) {
  if (M <= 0 || N <= 0) return;
  const StreamPlan p = stream_plan(M, N, K);
  const int64_t pieces = ceil_div(K, p.piece);
  float* ahead = nullptr;
  if (p.rows_ahead) {
    ahead = workspace;
    workspace += round_up(M * K, 16);
    parallel(workers, p.row_blocks * pieces, [&](int64_t task, int) {
      const int64_t i = task / pieces * p.block_rows, k = task % pieces * p.piece;
      const int m = int(min64(p.block_rows, M - i));
      if (m <= 0) return;
      float* const to = ahead + i * K + m * k;
      rows.pack(i, m, k, min64(p.piece, K - k), to);
      f.settle_rows(to, m, min64(p.piece, K - k));
    });
  }
  float* columns_ahead = nullptr;  // column block after block, each piece after piece
  if (p.columns_ahead && K > 0) {
    columns_ahead = workspace;
    workspace += round_up(N, kColumnUnit) * K;
    parallel(workers, p.col_blocks * pieces, [&](int64_t task, int) {
      const int64_t n0 = task / pieces * p.block_cols, n1 = min64(N, n0 + p.block_cols), k = task % pieces * p.piece;
      float* const to = columns_ahead + n0 * K + round_up(n1 - n0, kColumnUnit) * k;
      columns.pack(n0, n1, k, min64(p.piece, K - k), to);
      f.settle_columns(to, n1 - n0, min64(p.piece, K - k));
    });
  }
  const int64_t own = stream_worker_floats(p);
  parallel(workers, p.row_blocks * p.col_blocks, [&](int64_t index, int worker) {
    StreamTask task;
    task.i = index / p.col_blocks * p.block_rows;
    task.n0 = index % p.col_blocks * p.block_cols;
    task.n1 = min64(N, task.n0 + p.block_cols);
    task.K = K;
    task.m = int(min64(p.block_rows, M - task.i));
    task.worker = worker;
    task.ahead = ahead ? ahead + task.i * K : nullptr;
    task.acc = workspace + worker * own;
    task.block = task.acc + p.sums;
    if (task.m <= 0) return;
    float* const room = task.block + (p.rows_ahead ? 0 : round_up(p.block_rows * p.piece, 16));
    if (columns_ahead) stream_ahead(p, task, rows, columns_ahead + task.n0 * K, epilogue, f);
    else stream_fresh(p, task, rows, columns, epilogue, room, f);
  });
}

}  // namespace affuse::AFFUSE_ISA::gemm
#endif
