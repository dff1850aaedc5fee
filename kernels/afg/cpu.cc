// afg's forward for one ISA level.
//
// The valid frames of all samples form one list, cut into blocks of rows. A task copies a block's rows into lines
// (gemm/lines.h) and multiplies them by Wᵀ; while a tile of the product is in L1 it becomes tanh(Wx + b) and is reduced to
// scores, and when the block's scores are complete its lines, still in L2, are added up with their weights. So x is read
// once, from memory, and k is stored only if it is wanted. A sample's frames in one block are a segment: peak, total and
// weighted sum. Whole samples put their sum straight into c; the others are merged at the end, block by block.
//
// T = 200, D = 1024, A = 256, B = 32, mixed lengths, W packed ahead, one thread of a 2.5 GHz Cascade Lake, x in memory,
// percent of the FMA roof (151 GFLOP/s) measured beside it (affuse bench --filter '^afg/' --peers none):
//   74    blocks by gemm::run, the gather from the rows in memory order: they had left L2, and packing waited for memory
//   80    the next block's rows fetched into L2 by the tile multiplications, the gather from the packed copy
//   81    tanh by one estimate and one correction instead of a division
//   82    keys of a tile in one pass, scores in another: constants stay in registers; four vectors of tanh in step
//   82.5  the gather's parts listed once per segment, its steps known to the compiler
//   84    rows copied in lines instead of transposed: no shuffles, and the gather reads them as they lie
//   85    the next block's rows fetched as late as the fill buffers allow
// With k stored it goes past the cache, since nothing reads it before the backward. D = 512, A = 512: 85. Blocks of 42,
// 56, 70 and 84 rows differ by less than a percent. What is left (perf, one thread): the multiplications 86 % of the
// time, copying rows 6 (they come from memory once), tanh and scores 4, gather 1, merging 1.
// With D small the keys cost more: tanh is 20 instructions a vector, about 12 cycles, beside D / 2 cycles of multiply-adds.
#include "frames_cpu.h"

namespace affuse::AFFUSE_ISA {
namespace {

struct Forward {
  AfgSize n;
  ForwardPlan plan;
  int64_t count;        // valid frames
  const float* packed;  // W
  int ahead;            // blocks between a worker's present block and what is probably its next one
  ForwardScratch s;
  const float *bias, *query;
  int64_t query_stride;  // floats between the queries of neighbouring samples: 0 for u
  float scale;
  bool masked;
  float *c, *alpha, *k;  // null: not wanted
  bool past_cache;       // k is larger than the caches: its lines are not fetched before they are overwritten

  const float* queries(int64_t b) const { return query + b * query_stride; }
  // [rows of the block][J]: products with the queries, lane by lane
  Vec* products(int worker) const { return reinterpret_cast<Vec*>(s.products + worker * n.J * kForwardRows * kMostLanes); }
  // Segments have their own number: along the list, block or sample rise from one to the next.
  int64_t segment(int64_t block, int64_t b) const { return (block + b) * n.J; }
  float* partial(int64_t block, bool begun_before) const { return s.partial + (2 * block + !begun_before) * n.J * n.D; }

  // Block `index` of the list: its rows are packed, multiplied by all of W, and added up with their weights. f: the format
  // of operands, gemm::Float32 or gemm::Bf16.
  template <class F>
  void block(const F& f, int64_t index, int worker) const {
    const int64_t first = index * plan.block_rows;
    const int rows = int(gemm::min64(plan.block_rows, count - first));
    const gemm::RowTiles tiles(rows);
    float *a = s.rows + worker * s.worker_rows, *sums = s.sums + worker * s.worker_sums;
    Vec* product = products(worker);
    for (int64_t i = 0; i < rows * n.J; ++i) product[i] = zero();
    Fetch fetch(*this, index, tiles.count);
    const int64_t depth = F::kRounds ? gemm::even(n.D) : n.D, piece = plan.cut ? plan.piece : depth;
    float* const rounded = s.rounded + worker * s.worker_rounded;
    for (int64_t d = 0; d < depth; d += piece) {
      const int64_t there = gemm::min64(piece, n.D - d), kc = gemm::min64(piece, depth - d);
      const bool last = d + kc >= depth;
      for (int t = 0; t < tiles.count; ++t)
        for (int r = 0; r < tiles.height(t); ++r)
          gemm::copy_lines(s.list.row[first + tiles.start(t) + r] + d, there, tiles.height(t), r,
                           a + d * rows + gemm::lines_floats(tiles.start(t), there));
      if constexpr (F::kRounds)
        gemm::Bf16Rows{gemm::IndirectRows{s.list.row + first}, n.D}.pack(0, rows, d, kc, rounded + f.rows(d * rows));
      for (int64_t c = 0; c < n.A; c += gemm::kTileStride) {
        const int cols = int(gemm::min64(gemm::kTileStride, n.A - c)), vecs = gemm::vecs_of(cols);
        const float* b = packed + f.columns(c * depth + d * (vecs * kLanes));
        const int64_t after = c + gemm::kTileStride;
        const float* next_panel = after < n.A ? packed + f.columns(after * depth + d * gemm::kTileStride) : nullptr;
        for (int t = 0; t < tiles.count; ++t) {
          float* acc = plan.cut ? sums + c * rows + tiles.start(t) * gemm::kTileStride : sums;
          const Fetch::Piece next = fetch.take(t, next_panel, f.columns(kc));
          if constexpr (F::kRounds)
            f.multiply(tiles.height(t), vecs, kc, rounded + f.rows(d * rows + tiles.start(t) * kc), b, acc, d > 0, next.from,
                       next.step);
          else
            gemm::lines_multiply(tiles.height(t), vecs, kc, a + d * rows + gemm::lines_floats(tiles.start(t), kc), b, acc,
                                 d > 0, next.from, next.step);
          if (!last) continue;
          tile(gemm::Tile{first + tiles.start(t), c, tiles.height(t), cols, acc}, product + tiles.start(t) * n.J);
        }
      }
    }
    end(first, rows, a, worker);
    if (past_cache) drain_stores();
  }

  // What a tile multiplication brings into L2 on the side: the first half of the tiles the next panel of W, the others some
  // rows of the next block, a line for every second step of K (more of them would take the fill buffers from the loads), and
  // as late as that allows: W passes through L2 once per block and would push them out again.
  struct Fetch {
    struct Piece {
      const float* from;
      int64_t step;
    };
    const Forward& f;
    int64_t row, end, each;  // entries of the list; how many at a time
    int64_t wait;            // turns until the first
    int panel_tiles;
    int64_t panel_step;
    Fetch(const Forward& forward, int64_t index, int tiles) : f(forward) {
      panel_tiles = (tiles + 1) / 2;
      panel_step = gemm::ceil_div(gemm::kTileStride, panel_tiles);
      row = gemm::min64((index + f.ahead) * f.plan.block_rows, f.count);
      end = gemm::min64(row + f.plan.block_rows, f.count);
      const int64_t turns = gemm::ceil_div(f.n.A, gemm::kTileStride) * (tiles - panel_tiles);
      each = turns > 0 ? gemm::max64(gemm::ceil_div(end - row, turns), gemm::ceil_div(8 * f.plan.piece, f.n.D)) : 0;
      wait = each ? turns - gemm::ceil_div(end - row, each) : 0;
    }
    Piece take(int t, const float* next_panel, int64_t kc) {
      if (t < panel_tiles) return {next_panel ? next_panel + t * panel_step * kc : nullptr, panel_step};
      if (row >= end || wait-- > 0) return {nullptr, 0};
      const Piece piece{f.s.list.row[row], gemm::ceil_div(each * f.n.D, kc)};  // as if the next rows lay behind this one
      row += each;
      return piece;
    }
  };

  // A finished tile of W x becomes keys, and those meet the queries: into the products of its rows.
  void tile(const gemm::Tile& t, Vec* product) const {
    const bool wide = t.cols > kLanes;
    const int lows = int(gemm::min64(kLanes, t.cols)), highs = int(gemm::max64(0, t.cols - kLanes));
    const float* b = bias + t.col;
    const Vec low_bias = get(b, lows), high_bias = get(b + kLanes, highs);
    // Some vectors in step: two rows of two, or four of one.
    int done = 0;
    Many<Vec> z;
    if (wide) {
      constexpr int kRows = kMany / gemm::kTileVecs;
      for (; done + kRows <= t.rows; done += kRows) {
        float* acc = t.acc + done * gemm::kTileStride;
        for (int i = 0; i < kMany; ++i) z.part[i] = load(acc + i * kLanes) + (i % 2 ? high_bias : low_bias);
        z = tanh(z);
        for (int i = 0; i < kMany; ++i) store(acc + i * kLanes, z.part[i]);
      }
    } else {
      for (; done + kMany <= t.rows; done += kMany) {
        float* acc = t.acc + done * gemm::kTileStride;
        for (int i = 0; i < kMany; ++i) z.part[i] = load(acc + i * gemm::kTileStride) + low_bias;
        z = tanh(z);
        for (int i = 0; i < kMany; ++i) store(acc + i * gemm::kTileStride, z.part[i]);
      }
    }
    for (; done < t.rows; ++done) {
      float* acc = t.acc + done * gemm::kTileStride;
      store(acc, tanh(load(acc) + low_bias));
      if (wide) store(acc + kLanes, tanh(load(acc + kLanes) + high_bias));
    }
    const int32_t* sample = s.list.sample + t.row;
    if (n.J == 1) {
      for (int r = 0; r < t.rows;) {
        const float *q = queries(sample[r]) + t.col, *acc = t.acc + r * gemm::kTileStride;
        const Vec low = get(q, lows), high = get(q + kLanes, highs);
        const int32_t same = sample[r];
        if (wide) {
          for (; r < t.rows && sample[r] == same; ++r, acc += gemm::kTileStride)
            product[r] = fma(load(acc + kLanes), high, fma(load(acc), low, product[r]));
        } else {
          for (; r < t.rows && sample[r] == same; ++r, acc += gemm::kTileStride)
            product[r] = fma(load(acc), low, product[r]);
        }
      }
    } else {
      for (int r = 0; r < t.rows; ++r)
        for (int64_t j = 0; j < n.J; ++j)
          for_lanes(t.cols, [&](int64_t a, int lanes) {
            Vec& sum = product[r * n.J + j];
            sum = fma(load(t.acc + r * gemm::kTileStride + a), get(queries(sample[r]) + j * n.A + t.col + a, lanes), sum);
          });
    }
    if (!k) return;
    for (int r = 0; r < t.rows; ++r) {
      float* out = k + (sample[r] * n.T + s.list.frame[t.row + r]) * n.A + t.col;
      if (past_cache) {
        for (int64_t a = 0; a < t.cols; a += kLanes) store_past_cache(out + a, load(t.acc + r * gemm::kTileStride + a));
        continue;
      }
      for_lanes(t.cols, [&](int64_t a, int lanes) { put(out + a, load(t.acc + r * gemm::kTileStride + a), lanes); });
    }
  }

  // a: the block's packed rows
  void end(int64_t first, int rows, const float* a, int worker) const {
    const Vec* product = products(worker);
    float* scores = s.scores + worker * n.J * kForwardRows;
    for (int64_t i = 0, r = 0, j = 0; i < rows * n.J; i += kLanes) {  // [r][j], some at a time
      const int some = int(gemm::min64(kLanes, rows * n.J - i));
      Vec v[kLanes];
      for (int l = 0; l < kLanes; ++l) v[l] = l < some ? product[i + l] : zero();
      const Vec sums = set1(scale) * sums_of(v);
      if (n.J == 1) {
        store(scores + i, sums, some);
        continue;
      }
      alignas(64) float each[kLanes];
      store(each, sums);
      for (int l = 0; l < some; ++l) {
        scores[j * kForwardRows + r] = each[l];
        if (++j == n.J) j = 0, ++r;
      }
    }
    for (int64_t r = 0; r < rows;) {
      const int64_t b = s.list.sample[first + r];
      const int64_t end = gemm::min64(rows, s.list.first[b + 1] - first);
      reduce_segment(first, rows, a, r, end, b, scores);
      r = end;
    }
  }

  // Rows [from, to) of the block that starts at list entry `first`; all of sample b.
  void reduce_segment(int64_t first, int rows, const float* a, int64_t from, int64_t to, int64_t b,
                      float* scores) const {
    const int64_t block = first / plan.block_rows, id = segment(block, b);
    const bool begun_before = s.list.first[b] < first + from, goes_on = first + to < s.list.first[b + 1];
    float* sum = begun_before || goes_on ? partial(block, begun_before) : c ? c + b * n.J * n.D : nullptr;
    for (int64_t j = 0; j < n.J; ++j) {
      float* score = scores + j * kForwardRows + from;
      if (alpha)  // the score for now; finish() makes it a weight
        for (int64_t i = 0; i < to - from; ++i) alpha[(b * n.J + j) * n.T + s.list.frame[first + from + i]] = score[i];
      s.peak[id + j] = largest(score, to - from, -__builtin_inff());
      s.total[id + j] = exp_shifted(score, to - from, s.peak[id + j]);
    }
    if (c) gather_lines(a, rows, plan.piece, from, to, scores, kForwardRows, n.J, n.D, sum);
  }

  // Sample b once all its segments are there.
  void finish(int64_t b) const {
    const int64_t begin = s.list.first[b], end = s.list.first[b + 1], silent = n.T - (end - begin);
    for (int64_t j = 0; j < n.J; ++j) {
      float* sum = c ? c + (b * n.J + j) * n.D : nullptr;
      float* weight = alpha ? alpha + (b * n.J + j) * n.T : nullptr;
      if (begin == end) {
        if (sum) fill(sum, n.D, 0.0f);
        if (weight) fill(weight, n.T, 0.0f);
        continue;
      }
      const int64_t head = begin / plan.block_rows, tail = (end - 1) / plan.block_rows;
      float peak = -__builtin_inff(), total = 0;
      for (int64_t block = head; block <= tail; ++block) peak = largest(&s.peak[segment(block, b) + j], 1, peak);
      float quiet = 0;  // the score of a frame of zeros
      const bool padded = !masked && silent > 0;
      if (padded) peak = largest(&(quiet = scale * dot_of(queries(b) + j * n.A, s.silent, n.A)), 1, peak);
      for (int64_t block = head; block <= tail; ++block) {
        const int64_t id = segment(block, b) + j;
        const float factor = exp_of(s.peak[id] - peak);
        total += factor * s.total[id];
        if (!sum) continue;
        if (head == tail) {
          multiply(sum, n.D, factor);
        } else {
          if (block == head) fill(sum, n.D, 0.0f);
          add_scaled(sum, partial(block, block > head) + j * n.D, factor, n.D);
        }
      }
      if (padded) total += float(silent) * exp_of(quiet - peak);
      if (sum) multiply(sum, n.D, 1.0f / total);
      if (weight) finish_weights(b, weight, peak, 1.0f / total, padded ? exp_of(quiet - peak) / total : 0.0f);
    }
  }

  void finish_weights(int64_t b, float* weight, float peak, float factor, float padding) const {
    for_lanes(n.T, [&](int64_t t, int lanes) {  // garbage on padding stays there: it is overwritten below
      put(weight + t, set1(factor) * exp_negative(get(weight + t, lanes) - set1(peak)), lanes);
    });
    each_padding_frame(b, [&](int64_t t) { weight[t] = padding; });
  }

  template <class F>
  void each_padding_frame(int64_t b, F&& body) const {
    const int32_t *next = s.list.frame + s.list.first[b], *last = s.list.frame + s.list.first[b + 1];
    for (int64_t t = 0; t < n.T; ++t) {
      if (next != last && *next == t)
        ++next;
      else
        body(t);
    }
  }
};

}  // namespace

void afg_pack(const OpShape& shape, int, const void* W, void* packed, const Workers& workers) {
  afg_pack_weight(afg_size(shape.in), afg_bf16(shape.attr), gemm::Layout::nk, static_cast<const float*>(W),
                  static_cast<float*>(packed), workers);
}

void afg_forward(const OpCall& call) {
  const Workers& workers = *call.workers;
  const void* packed = call.packed ? call.packed[kAfgW] : nullptr;
  Forward f;
  f.n = afg_size(call.in);
  Carver carver{static_cast<char*>(call.workspace)};
  const bool bf16 = afg_bf16(call.attr);
  f.s = carve_forward(carver, f.n, workers.count, bf16);
  f.bias = call.in[kAfgB].f32();
  f.query = call.in[kAfgQ].given() ? call.in[kAfgQ].f32() : call.in[kAfgU].f32();
  f.query_stride = call.in[kAfgQ].given() ? f.n.J * f.n.A : 0;
  f.scale = float(call.attr[kAfgScale].f);
  f.masked = call.attr[kAfgMasked].i != 0;
  f.c = call.out[kAfgOutC].f32();
  f.alpha = call.out[kAfgOutAlpha].f32();
  f.k = call.out[kAfgOutK].f32();

  const Frames frames = frames_of(call.in[kAfgX], call.in[kAfgLengths], call.in[kAfgMask]);
  const int64_t count = list_frames(frames, call.in[kAfgX].f32(), f.n.D, f.s.list);
  f.count = count;
  f.past_cache = f.k && passes_cache(f.k, f.n.B * f.n.T, f.n.A);
  f.plan = forward_plan(count, f.n.D);
  f.ahead = workers.count;
  if (!f.masked) silent_key(f.bias, f.n.A, f.s.silent);
  if (!packed && count > 0)
    afg_pack_weight(f.n, bf16, gemm::Layout::nk, call.in[kAfgW].f32(), f.s.packed, workers);
  f.packed = packed ? static_cast<const float*>(packed) : f.s.packed;
  const auto blocks = [&](const auto& format) {
    parallel(workers, f.plan.blocks, [&](int64_t index, int worker) { f.block(format, index, worker); });
  };
  if (count > 0 && bf16) blocks(gemm::Bf16{afg_pairs(f.n)});
  else if (count > 0) blocks(gemm::Float32{});
  parallel(workers, f.n.B, [&](int64_t b, int) {
    f.finish(b);
    if (f.k) f.each_padding_frame(b, [&](int64_t t) { fill(f.k + (b * f.n.T + t) * f.n.A, f.n.A, 0.0f); });
  });
}

}  // namespace affuse::AFFUSE_ISA
