// The passes of afg's backward for one ISA level, in up to four steps; included by backward_cpu.cc only:
//
//   keys     only if k was not saved: k = tanh(Wx + b) of the valid frames
//   samples  scalars: α of the valid frames, the mean Σ α ᾱ = dc·c + Σ α dα. Without c, or with few frames (there the ᾱ
//            themselves give the mean with half the rounding, and cost little), the ᾱ of all frames come first
//   spans    chunk by chunk of the list of valid frames: ᾱ = dα + dc·x while a row is copied into the panels that the
//            matrix core reads, p̄ from k, α, ᾱ and the mean, db, du and dq on the way, dW += p̄ᵀ x. So x and k are read
//            once, and no [frames, A] array is stored
//   dx       p̄ W by the matrix core, p̄ made again for its rows, + Σ_j α_j dc_j where the tile is stored
//
// A step that no wanted gradient needs is left out; with frozen features the last one is. Spans are as many as the number of
// frames says; with more threads than spans the columns of dW are dealt out too, and ᾱ then is a step of its own. Either way
// every element is the same chain of operations.
//
// Case as in cpu.cc, forward + backward, percent of the roof (affuse bench --filter '^afg.backward' --peers none), one
// thread:
//   64, 65  weights only; weights and x: at first
//   78, 76  the weights: x read once and p̄ never stored, dW's sums fetched ahead (1 MB of them does not stay in L2, and
//           every tile resumes from them), rows staged between the tiles, a few lines at a time. dx: panels of W shared by
//           224 frames instead of 84, and lines stored past the cache
//   80, 77  ᾱ added up where a row is staged, so that it leaves L2 once
// Tried and left: chunks of 96, 192 and 256 frames (within 2, below 128); p̄ made row by row while staging (−2); keys
// fetched in the last quarter of a chunk (−1); features read by the micro kernel where they lie (71 % of the roof against
// 84 with the copying counted, 57 on small pages: rows 4 KB apart share two sets of L1); staging a panel of all rows at a
// time, into the place of the panel just multiplied, which halves the room (−6: two lines of a row at a time wait for
// memory, and the multiplications gain nothing). What is left, for the weights: multiplications 82 %, staging with ᾱ 9,
// p̄ 3, merging 1.
#pragma once
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

// A panel's worth of columns of a product of two rows: its two vectors go to chains of their own.
AFFUSE_INLINE void dot_step(Vec low, Vec high, const float* y, int64_t width, Vec (&chain)[2]) {
  if (width >= gemm::kTileStride) {
    chain[0] = fma(low, load(y), chain[0]);
    chain[1] = fma(high, load(y + kLanes), chain[1]);
  } else {
    chain[0] = fma(low, load(y, int(gemm::min64(kLanes, width))), chain[0]);
    chain[1] = fma(high, load(y + kLanes, int(gemm::max64(0, width - kLanes))), chain[1]);
  }
}

struct Backward {
  AfgSize n;
  BackwardPlan plan;
  BackwardScratch s;
  const float *query, *alpha, *c, *k, *dc, *dalpha;  // alpha, c, k, dc, dalpha: null when not given
  int64_t query_stride;
  float scale;
  bool masked;
  float *dx, *dW, *dq, *du;      // null: not wanted
  const float* packed_features;  // W in panels for p̄ W
  int64_t feature_rows;          // frames of a task of dx
  bool past_cache;               // dx is larger than the caches: its lines are not fetched before they are overwritten
  int64_t count, spans;
  bool mean_by_c;  // Σ α ᾱ comes from dc·c
  bool fused;      // ᾱ is computed where the features are packed

  const float* key(int64_t entry) const {
    if (!k) return s.keys + entry * n.A;
    return k + (s.list.sample[entry] * n.T + s.list.frame[entry]) * n.A;
  }
  const float* queries(int64_t entry) const { return query + s.list.sample[entry] * query_stride; }
  int64_t span_start(int64_t span) const { return count * span / spans; }

  // ---- samples ----

  // α_j of the sample's valid frames into share; returns that of its padding.
  float weights(int64_t b, int64_t j) const {
    const int64_t begin = s.list.first[b], end = s.list.first[b + 1], silent = n.T - (end - begin);
    const bool padded = !masked && silent > 0;
    float* share = s.share + j;
    if (alpha) {
      const float* row = alpha + (b * n.J + j) * n.T;
      for (int64_t i = begin; i < end; ++i) share[i * n.J] = row[s.list.frame[i]];
      return padded ? row[first_padding(b)] : 0.0f;
    }
    const float* q = query + b * query_stride + j * n.A;
    float quiet = 0, peak = -__builtin_inff(), total = 0, padding = 0;
    for (int64_t i = begin; i < end; ++i) {
      share[i * n.J] = scale * dot_of(q, key(i), n.A);
      peak = largest(share + i * n.J, 1, peak);
    }
    if (padded) peak = largest(&(quiet = scale * dot_of(q, s.silent, n.A)), 1, peak);
    for (int64_t i = begin; i < end; ++i) total += share[i * n.J] = exp_of(share[i * n.J] - peak);
    if (padded) total += float(silent) * (padding = exp_of(quiet - peak));
    for (int64_t i = begin; i < end; ++i) share[i * n.J] *= 1.0f / total;
    return padding / total;
  }

  int64_t first_padding(int64_t b) const {
    const int64_t begin = s.list.first[b], valid = s.list.first[b + 1] - begin;
    for (int64_t i = 0; i < valid; ++i)
      if (s.list.frame[begin + i] != i) return i;
    return valid;
  }

  // ᾱ of one frame: here in one go, by stage() panel after panel.
  void weight_gradient(int64_t entry) const {
    const int64_t b = s.list.sample[entry];
    const float* row = s.list.row[entry];
    for (int64_t j = 0; j < n.J; ++j) {
      Vec chain[2] = {zero(), zero()};
      for (int64_t c = 0; dc && c < n.D; c += gemm::kTileStride) {
        const int64_t width = gemm::min64(gemm::kTileStride, n.D - c);
        const bool whole = width == gemm::kTileStride;
        const Vec low = whole ? load(row + c) : load(row + c, int(gemm::min64(kLanes, width)));
        const Vec high = whole ? load(row + c + kLanes) : load(row + c + kLanes, int(gemm::max64(0, width - kLanes)));
        dot_step(low, high, dc + (b * n.J + j) * n.D + c, width, chain);
      }
      finish_slope(entry, j, chain);
    }
  }
  void finish_slope(int64_t entry, int64_t j, const Vec (&chain)[2]) const {
    float g = dalpha ? dalpha[(s.list.sample[entry] * n.J + j) * n.T + s.list.frame[entry]] : 0.0f;
    if (dc) g += sum(chain[0] + chain[1]);
    s.slope[entry * n.J + j] = g;
  }

  // Σ α ᾱ by dc·c + Σ α dα, or from every frame's ᾱ; and what the padding's s̄_j sum up to.
  void sample(int64_t b) const {
    const int64_t begin = s.list.first[b], end = s.list.first[b + 1], silent = n.T - (end - begin);
    if (begin == end) return;
    for (int64_t j = 0; j < n.J; ++j) {
      const float padding = weights(b, j);
      const float* grad_alpha = dalpha ? dalpha + (b * n.J + j) * n.T : nullptr;
      float mean = 0, padding_grad = 0;
      if (!dc || mean_by_c) {
        if (dc) mean = dot_of(dc + (b * n.J + j) * n.D, c + (b * n.J + j) * n.D, n.D);
        for (int64_t i = begin; grad_alpha && i < end; ++i) mean += s.share[i * n.J + j] * grad_alpha[s.list.frame[i]];
      } else {
        for (int64_t i = begin; i < end; ++i) mean += s.share[i * n.J + j] * s.slope[i * n.J + j];
      }
      const bool padded = !masked && silent > 0;
      if (padded && grad_alpha) {
        for (int64_t t = 0, i = begin; t < n.T; ++t) {
          if (i < end && s.list.frame[i] == t) ++i;
          else padding_grad += grad_alpha[t];
        }
        mean += padding * padding_grad;
      }
      s.mean[b * n.J + j] = mean;
      s.quiet[b * n.J + j] = padded ? scale * padding * (padding_grad - float(silent) * mean) : 0.0f;
    }
  }

  // ---- spans ----

  // s̄_j of a frame.
  float slope(int64_t entry, int64_t j) const {
    const int64_t at = entry * n.J + j;
    return scale * s.share[at] * (s.slope[at] - s.mean[s.list.sample[entry] * n.J + j]);
  }

  // p ← (Σ_j s̄_j q_j) ∘ (1 − key²) for columns [from, from + width) of one frame.
  void key_gradient(int64_t entry, int64_t from, int64_t width, float* p) const {
    const float *row = key(entry) + from, *q = queries(entry) + from;
    const float first = slope(entry, 0);
    for_lanes(width, [&](int64_t a, int lanes) {
      const Vec value = get(row + a, lanes);
      Vec g = set1(first) * get(q + a, lanes);
      for (int64_t j = 1; j < n.J; ++j) g = fma(set1(slope(entry, j)), get(q + j * n.A + a, lanes), g);
      put(p + a, g * fnma(value, value, set1(1.0f)), lanes);
    });
  }

  // Where Σ_t s̄_t,j k_t of sample b's frames in a span is added up; null: nobody wants it.
  float* query_gradient(int64_t span, int64_t b) const {
    if (!dq) return du ? s.part_du + span * n.A : nullptr;
    return s.list.first[b] < span_start(span) ? s.part_dq + span * n.J * n.A : dq + b * n.J * n.A;
  }

  // p̄ of entries [from, to) into packed (null: not wanted) as the micro kernel reads p̄ᵀ; the sums over frames too, if this
  // task is the one that makes them. Column block by column block, so that queries and sums stay in registers.
  void key_gradients(int64_t span, int64_t from, int64_t to, float* packed, bool sums) const {
    const float* row[kSpanChunk];
    float first[kSpanChunk];
    for (int64_t i = from; i < to; ++i) {
      row[i - from] = key(i);
      first[i - from] = slope(i, 0);
    }
    const gemm::RowTiles tiles(int(n.A));
    for (int t = 0; t < tiles.count; ++t)
      for (int h = 0; h < tiles.height(t); h += kLanes) {
        const int64_t a = tiles.start(t) + h, height = tiles.height(t);
        const int lanes = int(gemm::min64(kLanes, height - h));
        float* p = packed ? packed + tiles.start(t) * (to - from) + h : nullptr;
        float* db = s.part_db + span * n.A + a;
        Vec total = load(db, lanes);
        for (int64_t i = from; i < to;) {
          const int64_t b = s.list.sample[i], end = gemm::min64(to, s.list.first[b + 1]);
          const float* q = query + b * query_stride + a;
          float* grad = sums ? query_gradient(span, b) : nullptr;
          const Vec q0 = load(q, lanes);
          Vec grad0 = grad ? load(grad + a, lanes) : zero();
          for (; i < end; ++i) {
            const Vec value = load(row[i - from] + a, lanes), slope0 = set1(first[i - from]);
            Vec g = slope0 * q0;
            for (int64_t j = 1; j < n.J; ++j) {
              const Vec slope_j = set1(slope(i, j));
              g = fma(slope_j, load(q + j * n.A, lanes), g);
              if (grad) store(grad + j * n.A + a, fma(slope_j, value, load(grad + j * n.A + a, lanes)), lanes);
            }
            g = g * fnma(value, value, set1(1.0f));
            grad0 = fma(slope0, value, grad0);
            total = total + g;
            if (p) store(p + (i - from) * height, g, lanes);
          }
          if (grad) store(grad + a, grad0, lanes);
        }
        if (sums) store(db, total, lanes);
      }
  }

  // Row `at` of a chunk of kc: columns [c0, c1) of its features into the panels of columns from n0 on, and their part of its
  // ᾱ, whose chains wait in `chain` until the row is through.
  void stage(int64_t entry, int64_t at, int64_t kc, int64_t n0, int64_t c0, int64_t c1, float* panels, Vec* chain) const {
    const float* row = s.list.row[entry];
    const float* grad = fused && dc ? dc + s.list.sample[entry] * n.D : nullptr;
    if (c0 == n0) {
      chain[0] = chain[1] = zero();
      for (int64_t a = 0; a < n.A; a += 16) prefetch_l2(key(entry) + a);
    }
    if (!plan.project) return;
    Vec sums[2] = {chain[0], chain[1]};
    int64_t c = c0;
    for (; c + gemm::kTileStride <= c1; c += gemm::kTileStride) {
      float* to = panels + (c - n0) * kc + at * gemm::kTileStride;
      const Vec low = load(row + c), high = load(row + c + kLanes);
      store(to, low);
      store(to + kLanes, high);
      if (grad) dot_step(low, high, grad + c, gemm::kTileStride, sums);
    }
    if (c < c1) {
      const int64_t width = gemm::vecs_of(c1 - c) * kLanes;
      float* to = panels + (c - n0) * kc + at * width;
      const Vec low = load(row + c, int(gemm::min64(kLanes, c1 - c)));
      const Vec high = load(row + c + kLanes, int(gemm::max64(0, c1 - c - kLanes)));
      store(to, low);
      if (width > kLanes) store(to + kLanes, high);
      if (grad) dot_step(low, high, grad + c, c1 - c, sums);
    }
    chain[0] = sums[0];
    chain[1] = sums[1];
    if (fused && c1 == n.D) finish_slope(entry, 0, sums);
  }

  // Columns [n0, n1) of a span's dW, and, with n0 == 0, its other sums. The next chunk's rows are staged between the tile
  // multiplications, which fetch them into L2: so few lines at a time that the stores drain during the next one.
  // f: gemm::Float32 or gemm::Bf16Passing.
  template <class F>
  void span(const F& f, int64_t index, int64_t n0, int64_t n1, int worker) const {
    const int64_t begin = span_start(index), end = span_start(index + 1);
    float* const sums = s.part_dW + index * n.A * s.columns;
    float* const packed = plan.project ? s.tiles + worker * s.worker_tiles : nullptr;
    float *panels = s.panels + worker * s.worker_panels, *other = panels + s.worker_panels / 2;
    Vec chain[2];
    const gemm::RowTiles tiles(int(n.A));
    const int64_t turns = gemm::ceil_div(n1 - n0, gemm::kTileStride) * tiles.count;
    // A row is fetched in `pieces` of every second turn, and staged in `parts`.
    const int64_t pieces = gemm::max64(1, turns / 2 / kSpanChunk);
    const int64_t at_once = gemm::max64(1, gemm::ceil_div(2 * kSpanChunk, turns + 1));
    const int64_t piece = gemm::ceil_div(at_once * (n1 - n0), pieces);
    const int64_t part = gemm::round_up(gemm::ceil_div(n1 - n0, gemm::max64(1, turns / kSpanChunk)), gemm::kTileStride);
    for (int64_t i = begin; i < gemm::min64(end, begin + kSpanChunk); ++i)
      stage(i, i - begin, gemm::min64(kSpanChunk, end - begin), n0, n0, n1, panels, chain);
    for (int64_t from = begin; from < end; from += kSpanChunk) {
      const int64_t to = gemm::min64(end, from + kSpanChunk), kc = to - from, next = gemm::min64(kSpanChunk, end - to);
      int64_t row = 0, column = n0, turn = 0;  // the next part to stage
      const auto stage_until = [&](int64_t limit, int64_t most) {
        for (; row < limit && most > 0; --most) {
          stage(to + row, row, next, n0, column, gemm::min64(n1, column + part), other, chain);
          if ((column += part) < n1) continue;
          column = n0;
          ++row;
        }
      };
      key_gradients(index, from, to, packed, n0 == 0);
      if (packed) f.settle_rows(packed, int(n.A), kc);
      for (int64_t c = n0; plan.project && c < n1; c += gemm::kTileStride) {
        const int vecs = gemm::vecs_of(gemm::min64(gemm::kTileStride, n1 - c));
        f.settle_columns(panels + (c - n0) * kc, gemm::min64(gemm::kTileStride, n1 - c), kc);
        for (int t = 0; t < tiles.count; ++t, ++turn) {
          float* acc = sums + c * n.A + tiles.start(t) * gemm::kTileStride;
          const int64_t tile_floats = tiles.height(t) * gemm::kTileStride, fetched = turn / 2 / pieces * at_once;
          // By turns the sums that the next two resume from (dW does not stay in L2) and rows.
          const float* ahead = turn % 2 == 0   ? acc + tile_floats
                               : fetched < next ? s.list.row[to + fetched] + n0 + turn / 2 % pieces * piece
                                                : nullptr;
          f.multiply(tiles.height(t), vecs, kc, packed + tiles.start(t) * kc, panels + (c - n0) * kc, acc, from > begin,
                     ahead, gemm::ceil_div(turn % 2 == 0 ? 2 * tile_floats : piece, f.steps(kc)));
          stage_until(gemm::min64(fetched, next), at_once);
        }
      }
      stage_until(next, INT64_MAX);
      float* const full = other;
      other = panels;
      panels = full;
    }
  }

  // dW from the spans' sums: one panel of columns.
  void merge(int64_t column) const {
    const int64_t width = gemm::min64(gemm::kTileStride, n.D - column);
    for (int64_t a = 0; a < n.A; ++a)
      for_lanes(width, [&](int64_t d, int lanes) {
        const float* part = s.part_dW + column * n.A + a * gemm::kTileStride + d;
        Vec v = load(part);
        for (int64_t i = 1; i < spans; ++i) v = v + load(part + i * n.A * s.columns);
        put(dW + a * n.D + column + d, v, lanes);
      });
  }

  // What the spans left open in the small sums: samples across spans, and padding that took part in the softmax.
  void finish(float* db) const {
    for (int64_t i = 1; i < spans; ++i) {
      add_scaled(s.part_db, s.part_db + i * n.A, 1.0f, n.A);
      if (du) add_scaled(s.part_du, s.part_du + i * n.A, 1.0f, n.A);
      const int64_t b = s.list.sample[span_start(i)];
      if (dq && s.list.first[b] < span_start(i)) add_scaled(dq + b * n.J * n.A, s.part_dq + i * n.J * n.A, 1.0f, n.J * n.A);
    }
    for (int64_t b = 0; !masked && b < n.B; ++b) {
      const int64_t valid = s.list.first[b + 1] - s.list.first[b];
      if (valid == 0 || valid == n.T) continue;
      const float *q = query + b * query_stride, *quiet = s.quiet + b * n.J;
      float* query_grad = dq ? dq + b * n.J * n.A : du ? s.part_du : nullptr;
      for (int64_t j = 0; query_grad && j < n.J; ++j) add_scaled(query_grad + j * n.A, s.silent, quiet[j], n.A);
      for_lanes(n.A, [&](int64_t a, int lanes) {
        const Vec value = get(s.silent + a, lanes);
        Vec g = zero();
        for (int64_t j = 0; j < n.J; ++j) g = fma(set1(quiet[j]), get(q + j * n.A + a, lanes), g);
        put(s.part_db + a, fma(g, fnma(value, value, set1(1.0f)), get(s.part_db + a, lanes)), lanes);
      });
    }
    const auto copy = [&](const float* from, float* to) {
      for_lanes(n.A, [&](int64_t a, int lanes) { put(to + a, get(from + a, lanes), lanes); });
    };
    if (db) copy(s.part_db, db);
    if (du) copy(s.part_du, du);
  }

  template <class F>
  void frame_sums(const F& f, const Workers& workers, float* db) const {
    fill(s.part_db, spans * n.A, 0.0f);
    fill(s.part_du, spans * n.A, 0.0f);
    if (dq) fill(dq, n.B * n.J * n.A, 0.0f);
    if (dq) fill(s.part_dq, spans * n.J * n.A, 0.0f);
    if (dW && count == 0) fill(dW, n.A * n.D, 0.0f);
    if (count > 0) {
      // How the columns are dealt out changes nothing in the sums.
      const int64_t panels = dW ? gemm::ceil_div(n.D, gemm::kTileStride) : 1;
      const int64_t blocks = workers.count <= spans ? 1 : gemm::min64(panels, gemm::ceil_div(2 * workers.count, spans));
      parallel(workers, spans * blocks, [&](int64_t task, int worker) {
        const int64_t i = task % blocks;
        span(f, task / blocks, panels * i / blocks * gemm::kTileStride,
             gemm::min64(n.D, panels * (i + 1) / blocks * gemm::kTileStride), worker);
      });
      if (dW) parallel(workers, panels, [&](int64_t i, int) { merge(i * gemm::kTileStride); });
    }
    finish(db);
  }

  // ---- dx ----

  // p̄ of `rows` entries from first on, as the rows of p̄ W: tiles of [depth][height], depth A or even(A).
  void pack_key_gradients(int64_t first, int rows, int64_t depth, float* packed) const {
    constexpr int64_t kWidth = 256;
    alignas(64) float p[16 * kWidth];
    const gemm::RowTiles tiles(rows);
    for (int t = 0; t < tiles.count; ++t) {
      const int height = tiles.height(t);
      for (int64_t a = 0; a < n.A; a += kWidth) {
        const int64_t width = gemm::min64(kWidth, n.A - a);
        for (int r = 0; r < height; ++r) key_gradient(first + tiles.start(t) + r, a, width, p + r * kWidth);
        gemm::pack_rows(p, kWidth, height, width, packed + tiles.start(t) * depth + a * height);
      }
      if (depth > n.A) fill(packed + tiles.start(t) * depth + n.A * height, height, 0.0f);
    }
  }

  // A block of frames: p̄ W, and Σ_j α_j dc_j where a tile is stored. f: gemm::Float32 or gemm::Bf16.
  template <class F>
  void features(const F& f, int64_t index, int worker) const {
    const int64_t first = index * feature_rows;
    const int rows = int(gemm::min64(feature_rows, count - first));
    const gemm::RowTiles tiles(rows);
    float *a = s.feature_rows + worker * s.worker_features, *acc = s.sums + worker * 16 * gemm::kColumnUnit;
    const int64_t depth = F::kRounds ? gemm::even(n.A) : n.A;
    pack_key_gradients(first, rows, depth, a);
    if constexpr (F::kRounds) gemm::Bf16Passing::settle_rows(a, rows, depth);
    for (int64_t d = 0; d < n.D; d += gemm::kTileStride) {
      const int cols = int(gemm::min64(gemm::kTileStride, n.D - d)), vecs = gemm::vecs_of(cols);
      const bool more = d + gemm::kTileStride < n.D;
      const gemm::Upcoming next(more ? packed_features + f.columns((d + gemm::kTileStride) * depth) : nullptr,
                                f.columns(depth), tiles.count);
      for (int t = 0; t < tiles.count; ++t) {
        if (!past_cache)
          for (int r = 0; r < tiles.height(t); ++r) gemm::prefetch_row(features_at(first + tiles.start(t) + r, d), cols);
        f.multiply(tiles.height(t), vecs, depth, a + tiles.start(t) * depth, packed_features + f.columns(d * depth), acc,
                   false, next.of(t), next.step);
        store_features(gemm::Tile{first + tiles.start(t), d, tiles.height(t), cols, acc});
      }
    }
    if (past_cache) drain_stores();
  }

  AFFUSE_INLINE float* features_at(int64_t entry, int64_t column) const {
    return dx + (s.list.sample[entry] * n.T + s.list.frame[entry]) * n.D + column;
  }
  void store_features(const gemm::Tile& t) const {
    const bool whole = n.J == 1 && dc && t.cols == gemm::kTileStride;
    for (int r = 0; r < t.rows; ++r) {
      const int64_t row = t.row + r, b = s.list.sample[row];
      const float* sums = t.acc + r * gemm::kTileStride;
      float* out = features_at(row, t.col);
      if (whole) {
        const Vec share = set1(s.share[row]);
        const float* from = dc + b * n.D + t.col;
        const Vec low = fma(share, load(from), load(sums)), high = fma(share, load(from + kLanes), load(sums + kLanes));
        if (past_cache) {
          store_past_cache(out, low);
          store_past_cache(out + kLanes, high);
        } else {
          store(out, low);
          store(out + kLanes, high);
        }
        continue;
      }
      for_lanes(t.cols, [&](int64_t d, int lanes) {
        Vec v = load(sums + d);
        for (int64_t j = 0; dc && j < n.J; ++j)
          v = fma(set1(s.share[row * n.J + j]), get(dc + (b * n.J + j) * n.D + t.col + d, lanes), v);
        put(out + d, v, lanes);
      });
    }
  }
};

}  // namespace

}  // namespace affuse::AFFUSE_ISA
