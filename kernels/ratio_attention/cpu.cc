// ratio_attention for one ISA level: one task per sample, one pass over x. A tile of frames is scored and, while its rows
// are still in the cache, added to the result.
//
// Weights without logarithms: with e = exp(-|z|) and a shift h >= min(z, 0) shared by all frames of a sample,
//   σ(z) · exp(-h)  is  1/(1+e) for z >= 0 (then h = 0)  and  exp(z - h)/(1+e) for z < 0,
// which stays in range when every σ(z) itself underflows: h = min(0, max z) makes the largest weight at least 1/2.
#include "../common/math.h"
#include "../common/stream.h"
#include "ratio_attention.h"

namespace affuse::AFFUSE_ISA {
namespace {

constexpr int64_t kTile = 16;       // most frames that are scored before their rows are added up
constexpr int64_t kNear = 8192;     // floats of them: they are read again from the first cache, or nearly
constexpr int64_t kAhead = 2048;    // floats from the frame that is scored to the one that is fetched, which are some frames or one
constexpr int kUnroll = 4;    // vectors of c in registers while a tile is added up
constexpr int64_t kBlock = kUnroll * kLanes;

// out[v] = rows[i] · vectors[v] for one row and `count` (1 or 2) vectors. `later` is a row that will be read.
template <int count>
AFFUSE_INLINE void dot(const float* row, const float* later, const float* const (&vector)[2], int64_t D, float (&out)[2]) {
  constexpr int kSums = 4 / count;  // a multiply-add takes four cycles, and would wait for the one before it
  Vec acc[count][kSums];
  for (int v = 0; v < count; ++v)
    for (int i = 0; i < kSums; ++i) acc[v][i] = zero();
  int64_t d = 0;
  for (; d + kSums * kLanes <= D; d += kSums * kLanes)
    for (int i = 0; i < kSums; ++i) {
      prefetch(later + d + i * kLanes);
      const Vec x = load(row + d + i * kLanes);
      for (int v = 0; v < count; ++v) acc[v][i] = fma(x, load(vector[v] + d + i * kLanes), acc[v][i]);
    }
  for (; d < D; d += kLanes) {
    const int n = D - d < kLanes ? int(D - d) : kLanes;
    const Vec x = load(row + d, n);
    for (int v = 0; v < count; ++v) acc[v][0] = fma(x, load(vector[v] + d, n), acc[v][0]);
  }
  for (int v = 0; v < count; ++v) {
    for (int i = 1; i < kSums; ++i) acc[v][0] += acc[v][i];
    out[v] = sum(acc[v][0]);
  }
}

// z[0, n) → gate σ(z) and weight σ(z) exp(-shift); gate, weight and rest (1 − σ) may each be null.
void gates(const float* z, int64_t n, float shift, float* gate, float* weight, float* rest) {
  for_lanes(n, [&](int64_t i, int lanes) {
    const Vec v = load(z + i, lanes), one = set1(1.0f);
    const Vec e = exp_negative(-abs(v)), up = one / (one + e), down = e * up;  // σ(|z|) and σ(−|z|)
    const Mask positive = le(zero(), v);
    // A NaN compares false and takes the second choice, where exp keeps it.
    if (gate) store(gate + i, select(positive, up, down), lanes);
    if (weight) store(weight + i, select(positive, up, exp_negative(v - set1(shift)) * up), lanes);
    if (rest) store(rest + i, select(positive, down, up), lanes);
  });
}

// The shift that suits z[0, n) and everything that suited `before`; a NaN is passed over (its weight is NaN anyway).
float shift_of(const float* z, int64_t n, float before) {
  float largest = before;
  for (int64_t i = 0; i < n; ++i) largest = z[i] > largest ? z[i] : largest;
  return largest < 0.0f ? largest : 0.0f;
}

// c = c · keep + Σ_i weight[i] row_i over `n` columns. Memory would rest meanwhile: every other one of the `coming` rows
// after these is fetched, the others when they are scored.
template <bool full>
AFFUSE_INLINE void add_columns(const float* x, const int32_t* frames, int64_t D, const float* weight, int64_t rows,
                               float keep, float* c, int64_t n, int64_t coming) {
  Vec acc[kUnroll];
  const auto lanes = [&](int i) {
    const int64_t left = n - int64_t(i) * kLanes;
    return full || left >= kLanes ? kLanes : left > 0 ? int(left) : 0;
  };
  for (int i = 0; i < kUnroll; ++i) acc[i] = set1(keep) * load(c + i * kLanes, lanes(i));
  for (int64_t r = 0; r < rows; ++r) {
    const float* row = x + frames[r] * D;
    const Vec w = set1(weight[r]);
    if (full && r % 2 == 0 && r < coming)
      for (int i = 0; i < kUnroll; ++i) prefetch_l2(x + frames[rows + r] * D + i * kLanes);
    for (int i = 0; i < kUnroll; ++i)
      if (lanes(i)) acc[i] = fma(w, full ? load(row + i * kLanes) : load(row + i * kLanes, lanes(i)), acc[i]);
  }
  for (int i = 0; i < kUnroll; ++i)
    if (lanes(i)) store(c + i * kLanes, acc[i], lanes(i));
}

void add_rows(const float* x, const int32_t* frames, int64_t D, const float* weight, int64_t rows, float keep, float* c,
              int64_t coming) {
  int64_t d = 0;
  for (; d + kBlock <= D; d += kBlock) add_columns<true>(x + d, frames, D, weight, rows, keep, c + d, kBlock, coming);
  if (d < D) add_columns<false>(x + d, frames, D, weight, rows, keep, c + d, D - d, coming);
}

void fill(float* p, int64_t n, float value) {
  for_lanes(n, [&](int64_t i, int lanes) { store(p + i, set1(value), lanes); });
}

void multiply(float* p, int64_t n, float factor) {
  for_lanes(n, [&](int64_t i, int lanes) { store(p + i, set1(factor) * load(p + i, lanes), lanes); });
}

float exp_of(float x) {
  float lanes[kLanes];
  store(lanes, exp(set1(x)));
  return lanes[0];
}

int64_t at_most(int64_t n, int64_t most) { return n < most ? n : most; }
int64_t tile_of(int64_t D) { return D * kTile <= kNear ? kTile : D * 4 >= kNear ? 4 : kNear / D; }

// Which frame of `valid` to fetch while frame i is read.
int64_t later(int64_t i, int64_t valid, int64_t D) { return at_most(i + (2 * D < kAhead ? kAhead / D : 1), valid - 1); }

int64_t round_up(int64_t n) { return (n + 15) / 16 * 16; }  // elements of 4 bytes in whole cache lines

}  // namespace

void ratio_attention_forward(const OpCall& call) {
  const Tensor &c = call.out[kRatioOutC], &alpha = call.out[kRatioOutAlpha];
  const Frames f = frames_of(call.in[kRatioX], call.in[kRatioLengths], call.in[kRatioMask]);
  const int64_t T = f.T, D = call.in[kRatioX].dim[2], tile = tile_of(D);
  const float *q = call.in[kRatioQ].f32(), beta = call.in[kRatioBeta].f32()[0];
  parallel(*call.workers, f.B, [&](int64_t b, int worker) {
    int32_t* frames = static_cast<int32_t*>(call.workspace) + worker * round_up(T);
    const int64_t valid = valid_frames(f, b, frames);
    const float* x = call.in[kRatioX].f32() + b * T * D;
    float *out = c.given() ? c.f32() + b * D : nullptr, *gate_out = alpha.given() ? alpha.f32() + b * T : nullptr;
    if (out) fill(out, D, 0.0f);
    if (gate_out) fill(gate_out, T, 0.0f);
    float total = 0, shift = -__builtin_inff();
    for (int64_t i = 0; i < valid; i += tile) {
      const int64_t rows = at_most(valid - i, tile);
      float z[kTile], gate[kTile], weight[kTile];
      for (int64_t r = 0; r < rows; ++r) {
        const float* const vectors[2] = {q, nullptr};
        float score[2];
        dot<1>(x + frames[i + r] * D, x + frames[later(i + r, valid, D)] * D, vectors, D, score);
        z[r] = score[0] + beta;
      }
      const float next = shift_of(z, rows, shift);
      const float keep = i == 0 ? 0.0f : next == shift ? 1.0f : exp_of(shift - next);
      shift = next;
      gates(z, rows, shift, gate, weight, nullptr);
      if (gate_out)
        for (int64_t r = 0; r < rows; ++r) gate_out[frames[i + r]] = gate[r];
      if (!out) continue;
      total *= keep;
      for (int64_t r = 0; r < rows; ++r) total += weight[r];
      add_rows(x, frames + i, D, weight, rows, keep, out, valid - i - rows);
    }
    if (out && valid > 0) multiply(out, D, 1.0f / total);
  });
}

void ratio_attention_backward(const OpCall& call) {
  const Tensor &dx = call.out[kRatioDx], &dq = call.out[kRatioDq], &dbeta = call.out[kRatioDbeta];
  const Tensor &dc = call.in[kRatioDc], &dalpha = call.in[kRatioDalpha];
  const Frames f = frames_of(call.in[kRatioX], call.in[kRatioLengths], call.in[kRatioMask]);
  const int64_t B = f.B, T = f.T, D = call.in[kRatioX].dim[2];
  const float *q = call.in[kRatioQ].f32(), beta = call.in[kRatioBeta].f32()[0];
  // Scratch: every sample's part of dq and dbeta, then per worker the frames, z → dz and ᾱ → w.
  float* part_q = static_cast<float*>(call.workspace);
  float* part_beta = part_q + B * D;
  float* per_worker = part_q + round_up(B * (D + 1));
  parallel(*call.workers, B, [&](int64_t b, int worker) {
    float *z = per_worker + worker * 3 * round_up(T), *w = z + round_up(T);
    int32_t* frames = reinterpret_cast<int32_t*>(w + round_up(T));
    const int64_t valid = valid_frames(f, b, frames);
    const float* x = call.in[kRatioX].f32() + b * T * D;
    const float *gc = dc.given() ? dc.f32() + b * D : nullptr, *ga = dalpha.given() ? dalpha.f32() + b * T : nullptr;
    float shift = -__builtin_inff(), total = 0, mean = 0, sum_dz = 0;
    for (int64_t i = 0; i < valid; ++i) {
      const float* const vectors[2] = {q, gc};
      float score[2] = {0, 0};
      if (gc)
        dot<2>(x + frames[i] * D, x + frames[later(i, valid, D)] * D, vectors, D, score);
      else
        dot<1>(x + frames[i] * D, x + frames[later(i, valid, D)] * D, vectors, D, score);
      z[i] = score[0] + beta;
      w[i] = score[1];
      shift = shift_of(z + i, 1, shift);
    }
    for (int pass = 0; pass < 2; ++pass)  // the sample's sums first, then what needs them
      for (int64_t i = 0; i < valid; i += kTile) {
        const int64_t rows = at_most(valid - i, kTile);
        float gate[kTile], weight[kTile], rest[kTile];
        gates(z + i, rows, shift, gate, weight, rest);
        for (int64_t r = 0; r < rows; ++r) {
          if (pass == 0) {
            total += weight[r];
            mean += weight[r] * w[i + r];
            continue;
          }
          const float share = weight[r] / total;
          float dz = share * (w[i + r] - mean / total) * rest[r];
          if (ga) dz += ga[frames[i + r]] * gate[r] * rest[r];
          z[i + r] = dz;
          w[i + r] = share;
          sum_dz += dz;
        }
      }
    if (dx.given()) {
      float* out = dx.f32() + b * T * D;
      for (int64_t t = 0, i = 0; t < T; ++t) {
        if (i == valid || frames[i] != t) {
          fill(out + t * D, D, 0.0f);
          continue;
        }
        const Vec own = set1(z[i]), share = set1(w[i]);
        for_row(D, q, nullptr, out + t * D + kRowAhead, [&](int64_t d, auto n) AFFUSE_INLINE_BODY {
          auto g = own * get(q + d, n);
          if (gc) g = fma(share, get(gc + d, n), g);
          put(out + t * D + d, g, n);
        });
        ++i;
      }
    }
    if (dq.given()) {
      fill(part_q + b * D, D, 0.0f);
      for (int64_t i = 0; i < valid; i += kTile)
        add_rows(x, frames + i, D, z + i, at_most(valid - i, kTile), 1.0f, part_q + b * D, valid - i - kTile);
    }
    part_beta[b] = sum_dz;
  });
  if (dq.given())
    for_lanes(D, [&](int64_t d, int n) {
      Vec total = zero();
      for (int64_t b = 0; b < B; ++b) total = total + load(part_q + b * D + d, n);
      store(dq.f32() + d, total, n);
    });
  if (dbeta.given()) {
    float total = 0;
    for (int64_t b = 0; b < B; ++b) total += part_beta[b];
    dbeta.f32()[0] = total;
  }
}

}  // namespace affuse::AFFUSE_ISA
