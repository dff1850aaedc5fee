// afg's forward for one ISA level.
//
// The valid frames of all samples form one list, cut into blocks of rows. A task multiplies a block by Wᵀ; while a tile of
// the product is in L1 it becomes tanh(Wx + b) and is reduced to scores, and when the block's scores are complete its rows,
// still in L2, are added up with their weights. So x comes from memory once and k is stored only if it is wanted. A sample's
// frames in one block are a segment: peak, total and weighted sum. Whole samples put their sum straight into c; the others
// are merged at the end, block by block.
#include "frames_cpu.h"

namespace affuse::AFFUSE_ISA {
namespace {

struct Forward : gemm::Epilogue {
  AfgSize n;
  int64_t block_rows;
  ForwardScratch s;
  const float *bias, *query;
  int64_t query_stride;  // floats between the queries of neighbouring samples: 0 for u
  float scale;
  bool masked;
  float *c, *alpha, *k;  // null: not wanted

  const float* queries(int64_t b) const { return query + b * query_stride; }
  // [rows of the block][J]: products with the queries, lane by lane
  Vec* products(int worker) const { return reinterpret_cast<Vec*>(s.products + worker * n.J * gemm::kBlockRows * kMostLanes); }
  // Segments have their own number: along the list, block or sample rise from one to the next.
  int64_t segment(int64_t block, int64_t b) const { return (block + b) * n.J; }
  float* partial(int64_t block, bool begun_before) const { return s.partial + (2 * block + !begun_before) * n.J * n.D; }

  void begin(int64_t, int rows, int worker) const {
    Vec* product = products(worker);
    for (int64_t i = 0; i < rows * n.J; ++i) product[i] = zero();
  }

  void tile(const gemm::Tile& t, int worker) const {
    Vec* block_products = products(worker) + (t.row % block_rows) * n.J;
    for (int r = 0; r < t.rows; ++r) {
      const int64_t row = t.row + r;
      const float* q = queries(s.list.sample[row]) + t.col;
      Vec* product = block_products + r * n.J;
      float* key_out = k ? k + (s.list.sample[row] * n.T + s.list.frame[row]) * n.A + t.col : nullptr;
      Vec key[gemm::kTileVecs];
      for_lanes(t.cols, [&](int64_t a, int lanes) {
        Vec& v = key[a / kLanes] = tanh(load(t.acc + r * gemm::kTileStride + a) + get(bias + t.col + a, lanes));
        if (key_out) put(key_out + a, v, lanes);
      });
      for (int64_t j = 0; j < n.J; ++j) {
        Vec sum = product[j];
        for_lanes(t.cols, [&](int64_t a, int lanes) { sum = fma(key[a / kLanes], get(q + j * n.A + a, lanes), sum); });
        product[j] = sum;
      }
    }
  }

  void end(int64_t first, int rows, int worker) const {
    const Vec* product = products(worker);
    float* scores = s.scores + worker * n.J * gemm::kBlockRows;
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t j = 0; j < n.J; ++j) scores[j * gemm::kBlockRows + r] = scale * sum(product[r * n.J + j]);
    for (int64_t r = 0; r < rows;) {
      const int64_t b = s.list.sample[first + r];
      const int64_t end = gemm::min64(rows, s.list.first[b + 1] - first);
      reduce_segment(first, r, end, b, scores);
      r = end;
    }
  }

  // Rows [from, to) of the block that starts at list entry `first`; all of sample b.
  void reduce_segment(int64_t first, int64_t from, int64_t to, int64_t b, float* scores) const {
    const int64_t block = first / block_rows, id = segment(block, b);
    const bool begun_before = s.list.first[b] < first + from, goes_on = first + to < s.list.first[b + 1];
    float* sum = begun_before || goes_on ? partial(block, begun_before) : c ? c + b * n.J * n.D : nullptr;
    for (int64_t j = 0; j < n.J; ++j) {
      float* score = scores + j * gemm::kBlockRows + from;
      if (alpha)  // the score for now; finish() makes it a weight
        for (int64_t i = 0; i < to - from; ++i) alpha[(b * n.J + j) * n.T + s.list.frame[first + from + i]] = score[i];
      s.peak[id + j] = largest(score, to - from, -__builtin_inff());
      s.total[id + j] = exp_shifted(score, to - from, s.peak[id + j]);
    }
    if (c) gather(s.list.row + first + from, scores + from, gemm::kBlockRows, to - from, n.J, n.D, sum);
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
      const int64_t head = begin / block_rows, tail = (end - 1) / block_rows;
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
      put(weight + t, set1(factor) * exp(get(weight + t, lanes) - set1(peak)), lanes);
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
  const AfgSize n = afg_size(shape.in);
  gemm::pack_columns(static_cast<const float*>(W), n.D, n.A, n.D, gemm::Layout::nk, static_cast<float*>(packed), workers);
}

void afg_forward(const OpCall& call) {
  const Workers& workers = *call.workers;
  const void* packed = call.packed ? call.packed[kAfgW] : nullptr;
  Forward f;
  f.n = afg_size(call.in);
  Carver carver{static_cast<char*>(call.workspace)};
  f.s = carve_forward(carver, f.n, workers.count);
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
  f.block_rows = gemm::plan(count, f.n.A, f.n.D, gemm::Split::rows).block_rows;
  if (!f.masked) silent_key(f.bias, f.n.A, f.s.silent);
  if (!packed && count > 0)
    gemm::pack_columns(call.in[kAfgW].f32(), f.n.D, f.n.A, f.n.D, gemm::Layout::nk, f.s.packed, workers);
  gemm::run(workers, count, f.n.A, f.n.D, gemm::IndirectRows{f.s.list.row},
            packed ? static_cast<const float*>(packed) : f.s.packed, f, f.s.gemm, gemm::Split::rows);
  parallel(workers, f.n.B, [&](int64_t b, int) {
    f.finish(b);
    if (f.k) f.each_padding_frame(b, [&](int64_t t) { fill(f.k + (b * f.n.T + t) * f.n.A, f.n.A, 0.0f); });
  });
}

}  // namespace affuse::AFFUSE_ISA
