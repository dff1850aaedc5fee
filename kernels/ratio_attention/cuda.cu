// ratio_attention on a device; padding is never read.
//
// Forward: a warp takes 64 frames of a sample, a few at a time, and keeps q, their weighted sum and the shift that suits
// all of them so far in registers: x is read once. Samples of more frames are split between warps by T alone; a second
// launch joins the parts in order. Rows beyond 1024 elements (256 where memory allows no 16-byte accesses) are scored 32 at
// a time and then read again, from the caches, for the sum.
// Backward: a team of threads for each frame scores it (common/cuda/rows.h), a block for each sample makes dz and the
// weights of that, then a warp for 64 frames by 32 or 128 columns writes dx and adds dq, whose parts are added in order
// (columns.h).
//
// Weights without logarithms: see cpu.cc.
#include "../common/cuda/columns.h"
#include "../common/cuda/divide.h"
#include "../common/cuda/rows.h"
#include "ratio_attention.h"

namespace affuse::cuda {
namespace {

constexpr int kWarps = 4;       // of a block
constexpr int64_t kPiece = 64;  // frames of a warp, at least
constexpr int kMostPieces = 64;

struct Valid {
  const int32_t *lengths, *mask;  // null: every frame
  int64_t T;
  AFFUSE_DEVICE int64_t length(int64_t b) const {
    if (!lengths) return T;
    const int64_t n = lengths[b];
    return n < T ? n : T;
  }
  // t < length(b)
  AFFUSE_DEVICE bool unmasked(int64_t b, int64_t t) const { return !mask || mask[b * T + t] != 0; }
  AFFUSE_DEVICE bool operator()(int64_t b, int64_t t) const { return t < length(b) && unmasked(b, t); }
};

struct Gate {
  float gate, weight, rest;  // sigma(z), sigma(z) exp(-shift), 1 - sigma(z); NaN stays
};
AFFUSE_DEVICE Gate gate_of(float z, float shift) {
  const float e = expf(-fabsf(z)), up = 1.0f / (1.0f + e), down = e * up;
  const bool positive = z >= 0.0f;
  return {positive ? up : down, positive ? up : expf(z - shift) * up, positive ? down : up};
}
// The shift that suits z and what suited `before`.
AFFUSE_DEVICE float raised(float before, float z) { return z > before ? z : before; }
AFFUSE_DEVICE float shift_of(float largest) { return largest < 0.0f ? largest : 0.0f; }

// ---- forward ----

struct Forward {
  const float *x, *q, *beta;
  Valid valid;
  float *c, *alpha;  // either may be null
  float* parts;      // [B][pieces][2 + D rounded up to 4]: total, shift, …, sum; null: one piece, straight to c
  int64_t B, T, D, frames, stride;  // frames of a piece; floats of a part
  Divider pieces;                   // of a sample
};

constexpr int64_t kPartHead = 4;  // total, shift, nothing, nothing: what follows is aligned

// K packs of N neighbours for each lane, FRAMES frames in flight.
template <int N, int K, int FRAMES>
AFFUSE_GLOBAL(32 * kWarps, N * K > 16 ? 3 : 4) gather(Forward a) {
  const int64_t tasks = a.B * a.pieces.divisor;
  const float beta = *a.beta;
  Pack<N> q[K];
#pragma unroll
  for (int k = 0; k < K; ++k) {
    const int64_t d = (k * 32 + int(lane())) * N;
    q[k] = d < a.D ? get<N>(a.q + d) : fill<N>(0.0f);
  }
  for (int64_t task = int64_t(blockIdx.x) * kWarps + warp(); task < tasks; task += int64_t(gridDim.x) * kWarps) {
    const Parts at = a.pieces.split(task);
    const int64_t b = at.quotient, from = at.rest * a.frames, end = from + a.frames < a.T ? from + a.frames : a.T;
    const int64_t length = a.valid.length(b);
    Pack<N> sum[K];
#pragma unroll
    for (int k = 0; k < K; ++k) sum[k] = fill<N>(0.0f);
    float shift = -HUGE_VALF, total = 0;
    for (int64_t t = from; t < end; t += FRAMES) {
      bool there[FRAMES];
      Pack<N> x[FRAMES][K];
#pragma unroll
      for (int f = 0; f < FRAMES; ++f) {
        there[f] = t + f < end && t + f < length && a.valid.unmasked(b, t + f);
        const float* const row = a.x + (b * a.T + t + f) * a.D;
#pragma unroll
        for (int k = 0; k < K; ++k) {
          const int64_t d = (k * 32 + int(lane())) * N;
          x[f][k] = there[f] && d < a.D ? get<N>(row + d) : fill<N>(0.0f);
        }
      }
      float z[FRAMES], next = shift;
#pragma unroll
      for (int f = 0; f < FRAMES; ++f) {
        float dot = 0;
#pragma unroll
        for (int k = 0; k < K; ++k) dot = dot_of(x[f][k], q[k], dot);
        z[f] = warp_sum(dot) + beta;
        if (there[f]) next = raised(next, z[f]);
      }
      next = shift_of(next);
      const float keep = next == shift ? 1.0f : expf(shift - next);
      shift = next;
      total *= keep;
#pragma unroll
      for (int k = 0; k < K; ++k) sum[k] = sum[k] * keep;
#pragma unroll
      for (int f = 0; f < FRAMES; ++f) {
        Gate g{0, 0, 0};
        if (there[f]) g = gate_of(z[f], shift);
        if (a.alpha && lane() == unsigned(f) && t + f < end) a.alpha[b * a.T + t + f] = g.gate;
        total += g.weight;
#pragma unroll
        for (int k = 0; k < K; ++k)
          if (there[f]) sum[k] = fma(x[f][k], g.weight, sum[k]);
      }
    }
    if (!a.c) continue;
    float* const part = a.parts ? a.parts + task * a.stride : nullptr;
    if (part && lane() == 0) part[0] = total, part[1] = shift;
    const float scale = part ? 1.0f : total == 0.0f ? 0.0f : 1.0f / total;  // a frame weighs at least half
#pragma unroll
    for (int k = 0; k < K; ++k) {
      const int64_t d = (k * 32 + int(lane())) * N;
      if (d < a.D) put((part ? part + kPartHead : a.c + b * a.D) + d, sum[k] * scale);
    }
  }
}

// The same for rows of any length: 32 frames are scored, a lane keeps the weight of one, then their rows are added.
template <int N>
AFFUSE_GLOBAL(32 * kWarps, 3) gather_long(Forward a) {
  const int64_t tasks = a.B * a.pieces.divisor;
  const float beta = *a.beta;
  for (int64_t task = int64_t(blockIdx.x) * kWarps + warp(); task < tasks; task += int64_t(gridDim.x) * kWarps) {
    const Parts at = a.pieces.split(task);
    const int64_t b = at.quotient, from = at.rest * a.frames, end = from + a.frames < a.T ? from + a.frames : a.T;
    const int64_t length = a.valid.length(b);
    float* const part = a.parts ? a.parts + task * a.stride : nullptr;
    float* const to = part ? part + kPartHead : a.c ? a.c + b * a.D : nullptr;
    float shift = -HUGE_VALF, total = 0;
    const auto each_column = [&](auto body) {
      for (int64_t d = int64_t(lane()) * N; d < a.D; d += 32 * N) body(d);
    };
    if (to) each_column([&](int64_t d) { put(to + d, fill<N>(0.0f)); });
    for (int64_t t = from; t < end; t += 32) {
      float z = -HUGE_VALF;
      bool own = false;  // this lane's frame counts
      for (int f = 0; f < 32 && t + f < end && t + f < length; ++f) {
        if (!a.valid.unmasked(b, t + f)) continue;
        const float* const row = a.x + (b * a.T + t + f) * a.D;
        float dot = 0;
        each_column([&](int64_t d) { dot = dot_of(get<N>(row + d), get<N>(a.q + d), dot); });
        dot = warp_sum(dot) + beta;
        if (lane() == unsigned(f)) z = dot, own = true;
      }
      const float next = shift_of(raised(shift, warp_max(own && z == z ? z : -HUGE_VALF)));
      const float keep = next == shift ? 1.0f : expf(shift - next);
      shift = next;
      Gate g{0, 0, 0};
      if (own) g = gate_of(z, shift);
      if (a.alpha && t + lane() < end) a.alpha[b * a.T + t + lane()] = g.gate;
      total = total * keep + warp_sum(g.weight);
      if (!to) continue;
      const float marked = own ? g.weight : -1.0f;
      for (int64_t first = 0; first < a.D; first += 32 * N) {
        const int64_t d = first + int64_t(lane()) * N;
        Pack<N> sum = d < a.D ? get<N>(to + d) * keep : fill<N>(0.0f);
#pragma unroll 8
        for (int f = 0; f < 32; ++f) {
          const float weight = shuffle(marked, unsigned(f));
          if (weight < 0.0f || d >= a.D) continue;
          sum = fma(get<N>(a.x + (b * a.T + t + f) * a.D + d), weight, sum);
        }
        if (d < a.D) put(to + d, sum);
      }
    }
    if (part) {
      if (lane() == 0) part[0] = total, part[1] = shift;
    } else if (to && total != 0.0f) {
      each_column([&](int64_t d) { put(to + d, get<N>(to + d) * (1.0f / total)); });
    }
  }
}

// A block joins the parts of a sample.
AFFUSE_GLOBAL(256, 4) join(Forward a) {
  Shared shared;
  float* const factor = shared.take<float>(kMostPieces);
  const int pieces = int(a.pieces.divisor);
  for (int64_t b = blockIdx.x; b < a.B; b += gridDim.x) {
    const float* const parts = a.parts + b * pieces * a.stride;
    float shift = -HUGE_VALF, total = 0;
    for (int p = 0; p < pieces; ++p)
      if (parts[p * a.stride] != 0.0f) shift = raised(shift, parts[p * a.stride + 1]);
    if (int(threadIdx.x) < pieces) {
      const float* const own = parts + int(threadIdx.x) * a.stride;
      factor[threadIdx.x] = own[0] == 0.0f ? 0.0f : expf(own[1] - shift);
    }
    barrier();
    for (int p = 0; p < pieces; ++p)
      if (parts[p * a.stride] != 0.0f) total = fmaf(parts[p * a.stride], factor[p], total);
    const float scale = total == 0.0f ? 0.0f : 1.0f / total;
    for (int64_t d = threadIdx.x; d < a.D; d += 256) {
      float sum = 0;
      for (int p = 0; p < pieces; ++p)
        if (factor[p] != 0.0f) sum = fmaf(parts[p * a.stride + kPartHead + d], factor[p], sum);
      a.c[b * a.D + d] = sum * scale;
    }
    barrier();
  }
}

int64_t frames_of_piece(int64_t T) {
  const int64_t least = (T + kMostPieces - 1) / kMostPieces;
  return least > kPiece ? (least + 31) / 32 * 32 : kPiece;
}
int64_t pieces_of(int64_t T) { return T > kPiece ? (T + frames_of_piece(T) - 1) / frames_of_piece(T) : 1; }
int64_t part_stride(int64_t D) { return kPartHead + (D + 3) / 4 * 4; }

template <int N>
void gather_as(Queue& queue, const Forward& a) {
  const int64_t packs = (a.D + N - 1) / N, tasks = a.B * a.pieces.divisor;
  const int64_t blocks = (tasks + kWarps - 1) / kWarps, most = int64_t(queue.processors) * 32;
  const auto kernel = packs <= 32    ? gather<N, 1, 4>
                      : packs <= 64  ? gather<N, 2, 4>
                      : packs <= 128 ? gather<N, 4, 2>
                      : packs <= 256 ? gather<N, 8, 1>
                                     : gather_long<N>;
  launch("ratio_attention", kernel, queue, Grid{blocks < most ? blocks : most}, 32 * kWarps, 0, a);
}

Valid valid_of(const OpCall& call) {
  return {call.in[kRatioLengths].i32(), call.in[kRatioMask].i32(), call.in[kRatioX].dim[1]};
}

void forward(const OpCall& call, Queue& queue) {
  const Tensor& x = call.in[kRatioX];
  const int64_t B = x.dim[0], T = x.dim[1], D = x.dim[2], pieces = pieces_of(T);
  Forward a{x.f32(), call.in[kRatioQ].f32(), call.in[kRatioBeta].f32(), valid_of(call), call.out[kRatioOutC].f32(),
            call.out[kRatioOutAlpha].f32(), nullptr, B, T, D, frames_of_piece(T), part_stride(D),
            divider(pieces, B * pieces)};
  if (pieces > 1 && a.c) a.parts = static_cast<float*>(call.workspace);
  if (D % 4 == 0 && aligned(a.x) && aligned(a.q) && aligned(a.c)) gather_as<4>(queue, a);
  else gather_as<1>(queue, a);
  if (!a.parts) return;
  const int64_t most = int64_t(queue.processors) * 8;
  AFFUSE_LAUNCH(join, queue, Grid{B < most ? B : most}, 256, SharedBytes().take<float>(kMostPieces).bytes, a);
}
size_t workspace(const OpShape& s, int) {
  const TensorDesc& x = s.in[kRatioX];
  const int64_t pieces = pieces_of(x.dim[1]);
  return pieces > 1 ? size_t(x.dim[0] * pieces * part_stride(x.dim[2])) * sizeof(float) : 0;
}

// ---- backward ----

struct Scores {
  const float *q, *beta, *x, *dc;  // dc may be null
  Valid valid;
  Divider T;
  float *z, *slope;  // [B T]: q.x + beta, dc.x; slope null without dc
  template <int LANES, int N, int K>
  AFFUSE_DEVICE void operator()(Row<LANES, N, K> row) const {
    const Parts at = T.split(row.index);
    row.there = row.there && valid(at.quotient, at.rest);
    const float* const g = dc ? dc + at.quotient * row.columns : nullptr;
    float score = 0, along = 0;
    row.each([&](int, int64_t c) {
      const Pack<N> v = get<N>(x + row.at + c);
      score = dot_of(v, get<N>(q + c), score);
      if (g) along = dot_of(v, get<N>(g + c), along);
    });
    score = row.sum(score) + *beta;
    if (g) along = row.sum(along);
    if (!row.first || !row.there) return;
    z[row.index] = score;
    if (g) slope[row.index] = along;
  }
};

// z becomes dz, slope (written also without dc) the frame's share of c; both 0 and -1 where the frame does not count.
AFFUSE_GLOBAL(256, 4) sample_slopes(Valid valid, int64_t B, bool gathers, const float* dalpha, float* z, float* slope) {
  Shared shared;
  float* const room = shared.take<float>(8);
  const int64_t T = valid.T;
  for (int64_t b = blockIdx.x; b < B; b += gridDim.x) {
    const int64_t length = valid.length(b);
    float *const zs = z + b * T, *const slopes = slope + b * T;
    float shift = -HUGE_VALF, total = 0, mean = 0;
    for (int64_t t = threadIdx.x; t < length; t += 256)
      if (valid.unmasked(b, t)) shift = raised(shift, zs[t]);
    shift = shift_of(block_max<256>(shift, room));
    for (int64_t t = threadIdx.x; t < length; t += 256) {
      if (!valid.unmasked(b, t)) continue;
      const float weight = gate_of(zs[t], shift).weight;
      total += weight;
      if (gathers) mean = fmaf(weight, slopes[t], mean);
    }
    total = block_sum<256>(total, room);
    mean = block_sum<256>(mean, room) / total;
    for (int64_t t = threadIdx.x; t < T; t += 256) {
      float dz = 0, share = -1;
      if (t < length && valid.unmasked(b, t)) {
        const Gate g = gate_of(zs[t], shift);
        share = g.weight / total;
        if (gathers) dz = share * (slopes[t] - mean) * g.rest;
        if (dalpha) dz = fmaf(dalpha[b * T + t] * g.gate, g.rest, dz);
      }
      zs[t] = dz;
      slopes[t] = share;
    }
  }
}

struct Gradients {
  const float *x, *q, *dc, *dz, *share;  // dc may be null
  float *dx, *parts;                     // parts [pieces][D + 1]: dq, dbeta; either may be null
  int64_t rows, D, piece, pieces;        // rows = B T, in pieces of `piece`
  Divider T, columns;                    // column pieces of 32 N
};

template <int N>
AFFUSE_GLOBAL(32 * kWarps, 8) frame_gradients(Gradients a) {
  const int64_t tasks = a.pieces * a.columns.divisor;
  for (int64_t task = int64_t(blockIdx.x) * kWarps + warp(); task < tasks; task += int64_t(gridDim.x) * kWarps) {
    const Parts at = a.columns.split(task);
    const int64_t from = at.quotient * a.piece, end = from + a.piece < a.rows ? from + a.piece : a.rows;
    const int64_t d = (at.rest * 32 + lane()) * N;
    if (d >= a.D) continue;
    const Pack<N> q = get<N>(a.q + d);
    Pack<N> sum = fill<N>(0.0f), g = fill<N>(0.0f);
    float bias = 0;
    const Parts first = a.T.split(from);
    int64_t b = first.quotient, t = first.rest;
    if (a.dc) g = get<N>(a.dc + b * a.D + d);
#pragma unroll 4
    for (int64_t r = from; r < end; ++r) {
      const float dz = a.dz[r], share = a.share[r];
      const bool there = !(share < 0.0f);
      if (a.dx) {
        const Pack<N> slope = fma(g, share, q * dz);
        put(a.dx + r * a.D + d, there ? slope : fill<N>(0.0f));
      }
      if (a.parts && there) {
        sum = fma(get<N>(a.x + r * a.D + d), dz, sum);
        bias += dz;
      }
      if (++t == a.T.divisor && r + 1 < end) {
        t = 0, ++b;
        if (a.dc) g = get<N>(a.dc + b * a.D + d);
      }
    }
    if (!a.parts) continue;
    float* const to = a.parts + at.quotient * (a.D + 1);
#pragma unroll
    for (int i = 0; i < N; ++i) to[d + i] = sum.v[i];
    if (d == 0) to[a.D] = bias;
  }
}

int64_t rows_of_piece(int64_t rows) { return rows > 64 * 1024 ? (rows + 1023) / 1024 : 64; }

void backward(const OpCall& call, Queue& queue) {
  const Tensor& x = call.in[kRatioX];
  const int64_t B = x.dim[0], T = x.dim[1], D = x.dim[2], n = B * T;
  const float *q = call.in[kRatioQ].f32(), *dc = call.in[kRatioDc].f32();
  float *dx = call.out[kRatioDx].f32(), *dq = call.out[kRatioDq].f32(), *dbeta = call.out[kRatioDbeta].f32();
  float *const z = static_cast<float*>(call.workspace), *const slope = z + n, *const parts = slope + n;
  const bool wide = D % 4 == 0 && aligned(x.data) && aligned(q) && aligned(dc) && aligned(dx);
  const int64_t piece = rows_of_piece(n), pieces = (n + piece - 1) / piece, most = int64_t(queue.processors) * 16;
  if (n > 0) {
    const Valid valid = valid_of(call);
    rows(queue, "ratio_attention.backward scores", n, D, wide,
         Scores{q, call.in[kRatioBeta].f32(), x.f32(), dc, valid, divider(T, n + 32), z, slope});
    AFFUSE_LAUNCH(sample_slopes, queue, Grid{B < most ? B : most}, 256, SharedBytes().take<float>(8).bytes, valid, B,
                  dc != nullptr, call.in[kRatioDalpha].f32(), z, slope);
    const int64_t columns = (D + (wide ? 127 : 31)) / (wide ? 128 : 32), tasks = pieces * columns;
    const Gradients a{x.f32(), q, dc, z, slope, dx, dq || dbeta ? parts : nullptr, n, D, piece, pieces,
                      divider(T, n), divider(columns, tasks)};
    const int64_t blocks = (tasks + kWarps - 1) / kWarps;
    const Grid grid{blocks < most ? blocks : most};
    launch("ratio_attention.backward", wide ? frame_gradients<4> : frame_gradients<1>, queue, grid, 32 * kWarps, 0, a);
  }
  if (dq || dbeta) column_sums(queue, "ratio_attention.backward sums", {parts, pieces, D + 1, {dq, dbeta}, D});
}
size_t backward_workspace(const OpShape& s, int) {
  const TensorDesc& x = s.in[kRatioX];
  const int64_t n = x.dim[0] * x.dim[1], piece = rows_of_piece(n);
  return size_t(2 * n + (n + piece - 1) / piece * (x.dim[2] + 1)) * sizeof(float);
}

}  // namespace

AFFUSE_DEVICE_OP(kRatioAttention, "ratio_attention", &forward, &workspace)
AFFUSE_DEVICE_OP(kRatioAttentionBackward, "ratio_attention.backward", &backward, &backward_workspace)

}  // namespace affuse::cuda
