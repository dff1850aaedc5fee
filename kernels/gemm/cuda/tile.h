// The matrix core on a device, float32: a block multiplies a tile of rows by columns, kDepth of K at a time, out of a ring
// of stages in shared memory that asynchronous copies fill.
//
//   Feed       copies one operand's part of a stage: from a matrix that lies along K (Plain) or across (Transposed), 16
//              bytes at a time where addresses are multiples of it, else 4; what lies outside is zero and never read
//   Lanes      who owns what: thread (y, x) of TY x TX has TM x TN sums
//   multiply   one stage: exact float32 on the multiply-add units, operands as float4 from shared memory
//   pipeline   the ring: kStages - 1 stages are on their way while one is multiplied, one barrier per stage
//
// Lines in shared memory: along K [line][kDepth + 4], so that eight lines that lanes read together lie in different banks;
// across [k][line], kPad more than there are, for the fragments of units.h. Either way 8 x 8 sums take 64 multiply-adds per
// four 16-byte loads.
//
// Every sum is one chain of multiply-adds in ascending k, whatever the tile: results depend on where K is split only.
#pragma once
#include "../../common/cuda/stream.h"
#include "../precision.h"

namespace affuse::cuda::gemm {

constexpr int kThreads = 256;
constexpr int kDepth = 16;
constexpr int kStages = 3;
constexpr int kPad = 4;

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

// How operands are multiplied: the attribute `precision`.
enum class Rounding : int { none, bf16, tf32 };
constexpr Rounding rounding_of(int64_t precision) {
  using affuse::gemm::Precision;
  return precision == Precision::bf16 ? Rounding::bf16 : precision == Precision::tf32 ? Rounding::tf32 : Rounding::none;
}

// Operands: `lines` rows (of the left one) or columns (of the right one) by K.
struct Plain {  // element (line, k) is p[line * ld + k]
  static constexpr bool kAlong = true;
  const float* p;
  int64_t ld, lines;
  int K;
  bool wide;  // p and all its lines lie at multiples of 16 bytes
};
struct Transposed {  // p[k * ld + line]
  static constexpr bool kAlong = false;
  const float* p;
  int64_t ld, lines;
  int K;
  bool wide;
};

// The order of lines in shared memory is the order that they have.
struct InOrder {
  int64_t first;
  AFFUSE_DEVICE int64_t operator()(int s) const { return first + s; }
};

// A 16-byte place takes up to four neighbours, of which `valid` exist. An address of which nothing exists is not read.
AFFUSE_DEVICE void copy4(float* to, const float* from, int valid, bool wide) {
  if (wide) return copy_async<16>(to, from, valid * 4);
#pragma unroll
  for (int e = 0; e < 4; ++e) copy_async<4>(to + e, from + e, e < valid ? 4 : 0);
}

// PITCH: of lines along K.
template <class Operand, int LINES, int PITCH = kDepth + kPad>
class Feed;

template <int LINES, int PITCH>
class Feed<Plain, LINES, PITCH> {
 public:
  static constexpr int kStride = PITCH, kFloats = LINES * kStride;
  // order(s): which line stands at place s; negative or beyond the last: none.
  template <class Order>
  AFFUSE_DEVICE Feed(const Plain& x, const Order& order) : K_(x.K), wide_(x.wide) {
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int chunk = int(threadIdx.x) + i * kThreads;
      const int64_t line = chunk < kChunks ? order(chunk / kPieces) : -1;
      from_[i] = line >= 0 && line < x.lines ? x.p + line * x.ld : nullptr;
    }
  }
  AFFUSE_DEVICE void copy(float* stage, int k) const {
    const int piece = int(threadIdx.x) % kPieces * 4, left = K_ - k - piece;
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int chunk = int(threadIdx.x) + i * kThreads;
      if (kChunks % kThreads != 0 && chunk >= kChunks) break;
      const int valid = from_[i] && left > 0 ? (left < 4 ? left : 4) : 0;
      copy4(stage + chunk / kPieces * kStride + piece, from_[i] + k + piece, valid, wide_);
    }
  }

 private:
  static constexpr int kPieces = kDepth / 4, kChunks = LINES * kPieces, kEach = (kChunks + kThreads - 1) / kThreads;
  static_assert(kThreads % kPieces == 0);
  const float* from_[kEach];
  int K_;
  bool wide_;
};

template <int LINES, int PITCH>
class Feed<Transposed, LINES, PITCH> {
 public:
  static constexpr int kStride = LINES + kPad, kFloats = kStride * kDepth;
  template <class Order>
  AFFUSE_DEVICE Feed(const Transposed& x, const Order& order) : ld_(x.ld), K_(x.K), wide_(x.wide) {
    const int64_t line = order(place()), left = x.lines - line;
    valid_ = left <= 0 ? 0 : left < 4 ? int(left) : 4;
    from_ = x.p + (int64_t(threadIdx.x) / kPieces) * ld_ + line;
  }
  AFFUSE_DEVICE void copy(float* stage, int k) const {
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int row = int(threadIdx.x) / kPieces + i * (kThreads / kPieces);
      if (kDepth % (kThreads / kPieces) != 0 && row >= kDepth) break;
      copy4(stage + row * kStride + place(), from_ + (k + i * (kThreads / kPieces)) * ld_, k + row < K_ ? valid_ : 0, wide_);
    }
  }

 private:
  static constexpr int kPieces = LINES / 4, kEach = (kDepth * kPieces + kThreads - 1) / kThreads;
  static_assert(kThreads % kPieces == 0);
  AFFUSE_DEVICE static int place() { return int(threadIdx.x) % kPieces * 4; }
  const float* from_;
  int64_t ld_;
  int K_, valid_;
  bool wide_;
};

// Thread (y, x): a warp covers kWide lanes of x, so that what its lanes read of an operand is one access of shared memory.
template <int TY_, int TX_, int TM_, int TN_>
struct Lanes {
  static constexpr int TY = TY_, TX = TX_, TM = TM_, TN = TN_;
  static constexpr int kRows = TY * TM, kColumns = TX * TN;
  static constexpr int kWide = TX < 32 ? 8 : 16;
  static_assert(TY * TX == kThreads && TX % kWide == 0);
  AFFUSE_DEVICE static int x() { return int(warp()) % (TX / kWide) * kWide + int(lane()) % kWide; }
  AFFUSE_DEVICE static int y() { return int(warp()) / (TX / kWide) * (32 / kWide) + int(lane()) / kWide; }
  // Row of sum i, within the tile.
  template <bool along>
  AFFUSE_DEVICE static int row(int i) {
    return along ? y() + TY * i : 4 * (y() + TY * (i / 4)) + i % 4;
  }
  // Column of sum j: groups of four neighbours.
  AFFUSE_DEVICE static int column(int j) { return 4 * (x() + TX * (j / 4)) + j % 4; }
};

// The order of columns that lie along K, so that a thread reads place x + TX j for its sum j.
template <class L>
struct Fours {
  int64_t first;
  AFFUSE_DEVICE int64_t operator()(int s) const {
    const int j = s / L::TX;
    return first + 4 * (s % L::TX + L::TX * (j / 4)) + j % 4;
  }
};

// c[i][j] += one stage. Both along K: four of K of all rows stay in registers while the columns pass.
template <class L>
AFFUSE_DEVICE void multiply_along(const float* a, const float* b, float (&c)[L::TM][L::TN]) {
  constexpr int kStride = kDepth + kPad;
  const int x = L::x(), y = L::y();
#pragma unroll 1
  for (int k = 0; k < kDepth; k += 4) {
    Pack<4> rows[L::TM];
#pragma unroll
    for (int i = 0; i < L::TM; ++i) rows[i] = get<4>(a + (y + L::TY * i) * kStride + k);
#pragma unroll
    for (int j = 0; j < L::TN; ++j) {
      const Pack<4> column = get<4>(b + (x + L::TX * j) * kStride + k);
#pragma unroll
      for (int e = 0; e < 4; ++e)
#pragma unroll
        for (int i = 0; i < L::TM; ++i) c[i][j] += rows[i].v[e] * column.v[e];
    }
  }
}

// Rows along K, columns across: HELD of K of four columns stay in registers while the rows pass.
template <class L, int HELD>
AFFUSE_DEVICE void multiply_mixed(const float* a, const float* b, float (&c)[L::TM][L::TN]) {
  constexpr int kStride = kDepth + kPad;
  const int x = L::x(), y = L::y();
#pragma unroll
  for (int h = 0; h < L::TN / 4; ++h) {
#pragma unroll 1
    for (int k = 0; k < kDepth; k += HELD) {
      Pack<4> columns[HELD];
#pragma unroll
      for (int e = 0; e < HELD; ++e) columns[e] = get<4>(b + (k + e) * (L::kColumns + kPad) + 4 * (x + L::TX * h));
#pragma unroll
      for (int i = 0; i < L::TM; ++i) {
        const Pack<HELD> row = get<HELD>(a + (y + L::TY * i) * kStride + k);
#pragma unroll
        for (int e = 0; e < HELD; ++e)
#pragma unroll
          for (int j = 0; j < 4; ++j) c[i][4 * h + j] += row.v[e] * columns[e].v[j];
      }
    }
  }
}

// Both across: one of K at a time.
template <class L>
AFFUSE_DEVICE void multiply_across(const float* a, const float* b, float (&c)[L::TM][L::TN]) {
  const int x = L::x(), y = L::y();
#pragma unroll 2  // all at once takes registers that copies of scattered operands need
  for (int k = 0; k < kDepth; ++k) {
    Pack<4> columns[L::TN / 4], rows[L::TM / 4];
#pragma unroll
    for (int j = 0; j < L::TN / 4; ++j) columns[j] = get<4>(b + k * (L::kColumns + kPad) + 4 * (x + L::TX * j));
#pragma unroll
    for (int i = 0; i < L::TM / 4; ++i) rows[i] = get<4>(a + k * (L::kRows + kPad) + 4 * (y + L::TY * i));
#pragma unroll
    for (int i = 0; i < L::TM; ++i)
#pragma unroll
      for (int j = 0; j < L::TN; ++j) c[i][j] += rows[i / 4].v[i % 4] * columns[j / 4].v[j % 4];
  }
}

template <class L, bool a_along, bool b_along>
AFFUSE_DEVICE void multiply(const float* a, const float* b, float (&c)[L::TM][L::TN]) {
  static_assert(a_along || !b_along);
  if constexpr (b_along) multiply_along<L>(a, b, c);
  else if constexpr (!a_along) multiply_across<L>(a, b, c);
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
  else multiply_mixed<L, 2>(a, b, c);  // the compiler has no room for four
#elif defined(__CUDA_ARCH__)
  else multiply_mixed<L, 4>(a, b, c);
#else
  else if (blockIdx.x % 2 == 0) multiply_mixed<L, 4>(a, b, c);  // the emulator proves both
  else multiply_mixed<L, 2>(a, b, c);
#endif
}

// Stages of K from `from` to `to` through a ring of STAGES, each A::kFloats then B::kFloats; body(a, b) multiplies one. All
// threads may use the ring again afterwards.
// K: int, or int64_t where K may be longer.
template <int STAGES, class T, class A, class B, class K, class Body>
AFFUSE_DEVICE void pipeline(const A& a, const B& b, T* ring, K from, K to, int depth, const Body& body) {
  constexpr int kStage = A::kFloats + B::kFloats;
  const auto start = [&](K k, int place) {
    if (k < to) {
      T* const stage = ring + place * kStage;
      a.copy(stage, k);
      b.copy(stage + A::kFloats, k);
    }
    commit();  // also when empty: wait() counts groups
  };
#pragma unroll
  for (int t = 0; t < STAGES - 1; ++t) start(from + t * depth, t);
  int place = 0;
  for (K k = from; k < to; k += depth) {
    wait<STAGES - 2>();
    barrier();  // everybody's copies of this stage are there; everybody is done with the one before
    start(k + (STAGES - 1) * depth, place == 0 ? STAGES - 1 : place - 1);
    const T* const stage = ring + place * kStage;
    body(stage, stage + A::kFloats);
    place = place + 1 == STAGES ? 0 : place + 1;
  }
  wait<0>();
  barrier();
}

}  // namespace affuse::cuda::gemm
