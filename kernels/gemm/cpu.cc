// Register tiles and packing: see gemm.h.
#include "gemm.h"
#include "tile_step.h"
#include "transpose.h"

namespace affuse::AFFUSE_ISA::gemm {
namespace {

// R x NV vectors of sums in registers. Columns stream from L2; the next panel comes there meanwhile (measured: 108 to 135
// GFLOP/s when weights come from L3).
template <int R, int NV>
AFFUSE_NOINLINE void multiply(int64_t kc, const float* AFFUSE_RESTRICT a, const float* AFFUSE_RESTRICT b, float* acc,
                              bool resume, const float* next, int64_t next_step) {
  Vec c[R][NV];
  take_sums<R, NV>(c, acc, resume);
  steps_beside_upcoming(kc, next, next_step, [&]() __attribute__((always_inline)) { stream_step<R, NV>(c, a, b); });
  leave_sums<R, NV>(c, acc);
}

// The same from rows as they lie, `ld` apart. Each of them is a stream of its own: a line of each is fetched ahead every 16
// steps, at the end of the rows those that lie `following` floats after a. Two lines ahead were too late for memory
// (affuse bench --filter 'sweep 090').
template <int R, int NV>
AFFUSE_NOINLINE void multiply_lying(int64_t kc, const float* a, int64_t ld, const float* AFFUSE_RESTRICT b, float* acc,
                                    int64_t following) {
  constexpr int kStreams = (R + 2) / 3;  // one address register for three rows
  constexpr int64_t kAhead = 64;
  Vec c[R][NV];
  const float* row[kStreams];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    row[r / 3] = a + r / 3 * 3 * ld;
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) c[r][v] = zero();
  }
  for (int64_t k = 0; k < kc; k += 16) {
    const float* const ahead = a + (k + kAhead < kc ? k + kAhead : following + k + kAhead - kc);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) prefetch(ahead + r * ld);
#pragma GCC unroll 1
    for (int64_t steps = kc - k < 16 ? kc - k : 16; steps > 0; --steps) {
      Vec x[NV];
#pragma GCC unroll 2
      for (int v = 0; v < NV; ++v) x[v] = load(b + v * kLanes);
      prefetch(b + 8 * NV * kLanes);
      if constexpr (NV * kLanes > 16) prefetch(b + 8 * NV * kLanes + 16);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const Vec y = set1(row[r / 3][r % 3 * ld]);
#pragma GCC unroll 2
        for (int v = 0; v < NV; ++v) add_product(c[r][v], y, x[v]);
      }
#pragma GCC unroll 5
      for (int j = 0; j < kStreams; ++j) ++row[j];
      b += NV * kLanes;
    }
  }
  leave_sums<R, NV>(c, acc);
}

using Lying = void (*)(int64_t, const float*, int64_t, const float*, float*, int64_t);
constexpr Lying kLying[kTileRows + 1][2] = AFFUSE_TILES(multiply_lying);

using Multiply = void (*)(int64_t, const float*, const float*, float*, bool, const float*, int64_t);
constexpr Multiply kMultiply[kTileRows + 1][2] = AFFUSE_TILES(multiply);

// A tile's rows are kRowVecs vectors; T tiles, of these heights, by C columns of sums stay in registers.
constexpr int kRowVecs = (kTileRows + kLanes - 1) / kLanes;
#if defined(AFFUSE_ISA_AVX512) || defined(AFFUSE_ISA_NEON)
constexpr int kFewSums = 24;
#else
constexpr int kFewSums = 10;
#endif
constexpr int kMostTiles = kBlockRows / kTileRows < 6 ? kBlockRows / kTileRows : 6;
constexpr int few_tiles(int C) { return kFewSums / (C * kRowVecs) < kMostTiles ? kFewSums / (C * kRowVecs) : kMostTiles; }

template <int C, int T>
AFFUSE_NOINLINE void few(const RowTiles& tiles, int first, int64_t kc, const float* a, const float* b, float* acc,
                         bool resume) {
  Vec s[T][C][kRowVecs];
  const float* rows[T];
  int64_t height[T];
#pragma GCC unroll 6
  for (int t = 0; t < T; ++t) {
    rows[t] = a + tiles.start(first + t) * kc;
    height[t] = tiles.height(first + t);
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c)
#pragma GCC unroll 3
      for (int g = 0; g < kRowVecs; ++g) s[t][c][g] = zero();
  }
  float* const sums = acc + tiles.start(first) * kTileStride;
  const int start = tiles.start(first);
  const auto tile_sums = [&](int t, int g) { return sums + (tiles.start(first + t) - start + g * kLanes) * kTileStride; };
  const auto lanes = [&](int t, int g) {
    const int left = int(height[t]) - g * kLanes;
    return left < kLanes ? left : kLanes;
  };
  if (resume) {
#pragma GCC unroll 6
    for (int t = 0; t < T; ++t)
#pragma GCC unroll 3
      for (int g = 0; g < kRowVecs; ++g) {
        Vec v[kLanes];
#pragma GCC unroll 16
        for (int r = 0; r < kLanes; ++r) v[r] = r < lanes(t, g) ? load(tile_sums(t, g) + r * kTileStride) : zero();
        transpose(v);
#pragma GCC unroll 8
        for (int c = 0; c < C; ++c) s[t][c][g] = v[c];
      }
  }
  for (int64_t k = 0; k < kc; ++k) {
    Vec x[T][kRowVecs];
#pragma GCC unroll 6
    for (int t = 0; t < T; ++t) {
#pragma GCC unroll 3
      for (int g = 0; g < kRowVecs; ++g) x[t][g] = load(rows[t] + g * kLanes);
      rows[t] += height[t];
    }
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) {
      const Vec y = set1(b[c]);
#pragma GCC unroll 6
      for (int t = 0; t < T; ++t)
#pragma GCC unroll 3
        for (int g = 0; g < kRowVecs; ++g) s[t][c][g] = fma(x[t][g], y, s[t][c][g]);
    }
    b += kLanes;
  }
#pragma GCC unroll 6
  for (int t = 0; t < T; ++t)
#pragma GCC unroll 3
    for (int g = 0; g < kRowVecs; ++g) {
      Vec v[kLanes];
#pragma GCC unroll 16
      for (int c = 0; c < kLanes; ++c) v[c] = c < C ? s[t][c < C ? c : 0][g] : zero();
      transpose(v);
      const int n = lanes(t, g);
#pragma GCC unroll 16
      for (int r = 0; r < kLanes; ++r)
        if (r < n) store(tile_sums(t, g) + r * kTileStride, v[r]);
    }
}

// All tiles from `first` on, as many at a time as there is room for.
template <int C, int T>
void few_from(const RowTiles& tiles, int first, int64_t kc, const float* a, const float* b, float* acc, bool resume) {
  for (; first + T <= tiles.count; first += T) few<C, T>(tiles, first, kc, a, b, acc, resume);
  if constexpr (T > 1) few_from<C, T / 2>(tiles, first, kc, a, b, acc, resume);
}
template <int C>
void few_columns(const RowTiles& tiles, int cols, int64_t kc, const float* a, const float* b, float* acc, bool resume) {
  if (cols == C) return few_from<C, few_tiles(C)>(tiles, 0, kc, a, b, acc, resume);
  if constexpr (C < kFewColumns) few_columns<C + 1>(tiles, cols, kc, a, b, acc, resume);
}

// dst[k*stride + i] = source_i[k] for i in [0,m), k in [0,kc), zeros for a null source: the transposing copy under both
// operands' packers. stride >= m; what lies between m and stride is left alone. Sources that lie far apart are streams too
// many for the hardware: they are fetched ahead, at their end the `following` sources (null: none), which come next.
void interleave(const float* const* source, int m, int64_t kc, float* dst, int stride,
                const float* const* following = nullptr) {
  constexpr int64_t kAhead = 64;
  const float* const end = dst + kc * stride;
  for (int i = 0; i < m; i += kLanes) {
    const int rows = m - i < kLanes ? m - i : kLanes;
    for (int64_t k = 0; k < kc; k += kLanes) {
      const int steps = kc - k < kLanes ? int(kc - k) : kLanes;
      Vec v[kLanes];
#pragma GCC unroll 16
      for (int r = 0; r < kLanes; ++r) {
        const float* s = r < rows ? source[i + r] : nullptr;
        if (following && r < rows) prefetch_l2(k + kAhead < kc ? s + k + kAhead : following[i + r] + (k + kAhead - kc));
        v[r] = !s ? zero() : steps == kLanes ? load(s + k) : load(s + k, steps);
      }
      transpose(v);
      float* d = dst + k * stride + i;
      // A full store past the m-th element is undone by the next step's store; at the end there is none.
      const bool undone = i == 0 && m == stride && d + (kLanes - 1) * stride + kLanes <= end;
      const bool whole = steps == kLanes && (rows == kLanes || undone);
      if (whole) {
#pragma GCC unroll 16
        for (int r = 0; r < kLanes; ++r) store(d + r * stride, v[r]);
      } else {
        for (int r = 0; r < steps; ++r) store(d + r * stride, v[r], rows);
      }
    }
  }
}

}  // namespace

void tile_multiply(int rows, int vecs, int64_t kc, const float* a, const float* b, float* acc, bool resume,
                   const float* next, int64_t next_step) {
  kMultiply[rows][vecs - 1](kc, a, b, acc, resume, next ? next : b, next ? next_step : 0);
}

void multiply_row(int64_t kc, const float* a, const float* b, int64_t apart, float* acc, bool resume) {
  if constexpr (kRowPanels > 1) {
    Vec c[kRowPanels][kTileVecs];
    take_sums<kRowPanels, kTileVecs>(c, acc, resume);
    for (int64_t k = 0; k < kc; ++k, b += kTileStride) {
      const Vec y = set1(a[k]);
#pragma GCC unroll 4
      for (int p = 0; p < kRowPanels; ++p)
#pragma GCC unroll 2
        for (int v = 0; v < kTileVecs; ++v) c[p][v] = fma(y, load(b + p * apart + v * kLanes), c[p][v]);
    }
    leave_sums<kRowPanels, kTileVecs>(c, acc);
  }
}

void tile_multiply_lying(int rows, int vecs, int64_t kc, const float* a, int64_t ld, const float* b, float* acc,
                         int64_t following) {
  kLying[rows][vecs - 1](kc, a, ld, b, acc, following);
}

void multiply_few(const RowTiles& tiles, int cols, int64_t kc, const float* a, const float* b, float* acc, bool resume) {
  few_columns<1>(tiles, cols, kc, a, b, acc, resume);
}

void pack_rows(const float* a, int64_t ld, int m, int64_t kc, float* dst) {
  const RowTiles tiles(m);
  for (int t = 0; t < tiles.count; ++t) {
    const float *source[16], *following[16];
    const int height = tiles.height(t);
    for (int r = 0; r < height; ++r) {
      source[r] = a + (tiles.start(t) + r) * ld;
      following[r] = source[r] + height * ld;
    }
    interleave(source, height, kc, dst + tiles.start(t) * kc, height, following);
  }
}

void pack_rows_indirect(const float* const* a, int64_t k0, int m, int64_t kc, float* dst) {
  const RowTiles tiles(m);
  for (int t = 0; t < tiles.count; ++t) {
    const float* source[16];
    const int height = tiles.height(t);
    for (int r = 0; r < height; ++r) source[r] = a[tiles.start(t) + r] + k0;
    interleave(source, height, kc, dst + tiles.start(t) * kc, height);
  }
}

void pack_rows_transposed(const float* a, int64_t ld, int m, int64_t kc, float* dst) {
  const RowTiles tiles(m);
  for (int64_t k = 0; k < kc; ++k)  // a source row at a time: it lies in one piece in memory, the tiles lie in the cache
    for (int t = 0; t < tiles.count; ++t) {
      const int height = tiles.height(t);
      const float* s = a + k * ld + tiles.start(t);
      float* d = dst + tiles.start(t) * kc + k * height;
      for_lanes(height, [&](int64_t i, int n) { store(d + i, load(s + i, n), n); });
    }
}

void pack_panel_indirect(const float* const* rows, int cols, int64_t K, float* dst) {
  const int width = vecs_of(cols) * kLanes;
  const float* source[kTileStride];
  for (int c = 0; c < width; ++c) source[c] = c < cols ? rows[c] : nullptr;
  interleave(source, width, K, dst, width);
}

void pack_panel(const float* w, int64_t ld, int cols, int64_t K, Layout layout, float* dst) {
  if (layout == Layout::nk) {
    const float* rows[kTileStride];
    for (int c = 0; c < cols; ++c) rows[c] = w + c * ld;
    pack_panel_indirect(rows, cols, K, dst);
    return;
  }
  const int width = vecs_of(cols) * kLanes;
  if (cols == kTileStride) {
    for (int64_t k = 0; k < K; ++k) {
      const float* s = w + k * ld;
      float* d = dst + k * kTileStride;
      store(d, load(s));
      store(d + kLanes, load(s + kLanes));
    }
    return;
  }
  for (int64_t k = 0; k < K; ++k)
    for (int c = 0; c < width; c += kLanes) {
      const int left = cols - c;
      store(dst + k * width + c, left >= kLanes ? load(w + k * ld + c) : load(w + k * ld + c, left));
    }
}

void pack_columns(const float* w, int64_t ld, int64_t N, int64_t K, Layout layout, float* dst, const Workers& workers) {
  if (layout == Layout::nk) {
    parallel(workers, ceil_div(N, kTileStride), [&](int64_t p, int) {
      const int64_t n = p * kTileStride;
      pack_panel(w + n * ld, ld, int(min64(kTileStride, N - n)), K, layout, dst + n * K);
    });
    return;
  }
  // Some source rows at a time, so that memory is read along its rows and written in runs of kRows panel rows.
  constexpr int64_t kRows = 16;
  parallel(workers, ceil_div(K, kRows), [&](int64_t chunk, int) {
    const int64_t k = chunk * kRows, rows = min64(kRows, K - k);
    for (int64_t n = 0; n < N; n += kTileStride) {
      const int cols = int(min64(kTileStride, N - n));
      pack_panel(w + k * ld + n, ld, cols, rows, layout, dst + n * K + k * (vecs_of(cols) * kLanes));
    }
  });
}

void column_sums(const Workers& workers, const float* g, int64_t rows, int64_t cols, float* out, bool add) {
  constexpr int64_t kColumns = 128, kRows = 64;
  parallel(workers, ceil_div(cols, kColumns), [&](int64_t task, int) {
    const int64_t from = task * kColumns;
    for_lanes(min64(kColumns, cols - from), [&](int64_t c, int n) {
      const float* p = g + from + c;
      Vec total = add ? load(out + from + c, n) : zero();
      for (int64_t r0 = 0; r0 < rows; r0 += kRows) {
        const int64_t end = min64(rows, r0 + kRows);
        Vec part = zero();
        for (int64_t r = r0; r < end; ++r) part += load(p + r * cols, n);
        total += part;
      }
      store(out + from + c, total, n);
    });
  });
}

}  // namespace affuse::AFFUSE_ISA::gemm
