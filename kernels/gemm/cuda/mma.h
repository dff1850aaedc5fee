// The matrix core on a device, bf16 operands: rounded once into memory (operands.h), multiplied by mma.sync m16n8k16 with
// float32 sums. Both operands lie along K, kHalves to a line of a stage, zeros beyond K.
//
// Eight warps, WY by WX; a warp has MT x NT fragments of 16 x 8. A stage's line is 64 bytes in four places of 16, dealt so
// that the eight rows that load_matrix reads together lie in different banks: place p of line s stands at p ^ (s / 2 % 4).
#pragma once
#include "tile.h"

namespace affuse::cuda::gemm {

constexpr int kHalves = 32;      // bf16 of K per stage
constexpr int kMmaStages = 4;

// Lines of bf16, two to a word, along K.
struct Rounded {
  const uint32_t* p;
  int64_t lines;
  int words;  // of a line: a multiple of kHalves / 2
};

template <int LINES>
class Feed16 {
 public:
  static constexpr int kFloats = LINES * kHalves / 2;  // words
  AFFUSE_DEVICE Feed16(const Rounded& x, int64_t first) {
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int64_t line = first + chunk(i) / 4;
      from_[i] = chunk(i) < kChunks && line < x.lines ? x.p + line * x.words + chunk(i) % 4 * 4 : nullptr;
    }
  }
  AFFUSE_DEVICE void copy(uint32_t* stage, int word) const {
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int s = chunk(i) / 4, p = chunk(i) % 4;
      if (kChunks % kThreads != 0 && chunk(i) >= kChunks) break;
      copy_async<16>(stage + s * 16 + (p ^ s / 2 % 4) * 4, from_[i] + word, from_[i] ? 16 : 0);
    }
  }

 private:
  static constexpr int kChunks = LINES * 4, kEach = (kChunks + kThreads - 1) / kThreads;
  AFFUSE_DEVICE static int chunk(int i) { return int(threadIdx.x) + i * kThreads; }
  const uint32_t* from_[kEach];
};

template <int WY_, int WX_, int MT_, int NT_>
struct Warps {
  static constexpr int WY = WY_, WX = WX_, MT = MT_, NT = NT_;
  static constexpr int kRows = WY * MT * 16, kColumns = WX * NT * 8;
  static_assert(WY * WX * 32 == kThreads);
  AFFUSE_DEVICE static int x() { return int(warp()) % WX; }
  AFFUSE_DEVICE static int y() { return int(warp()) / WX; }
};

// Sum e of fragment (m, n) is row 16 m + lane/4 + 8 (e/2), column 8 n + 2 (lane%4) + e%2 of the warp's tile.
template <class W>
AFFUSE_DEVICE void multiply16(const uint32_t* a, const uint32_t* b, float (&c)[W::MT][W::NT][4]) {
  const int l = int(lane());
  const auto at = [](const uint32_t* lines, int s, int p) { return lines + s * 16 + (p ^ s / 2 % 4) * 4; };
#pragma unroll
  for (int k = 0; k < kHalves / 16; ++k) {
    uint32_t rows[W::MT][4];
#pragma unroll
    for (int m = 0; m < W::MT; ++m) load_matrix(rows[m], at(a, (W::y() * W::MT + m) * 16 + l % 16, 2 * k + l / 16));
#pragma unroll
    for (int n = 0; n < W::NT; n += 2) {
      const int second = n + 1 < W::NT ? l / 16 : 0;  // an odd last one is read twice
      uint32_t both[4];
      load_matrix(both, at(b, (W::x() * W::NT + n + second) * 8 + l % 8, 2 * k + l / 8 % 2));
      const uint32_t columns[2][2] = {{both[0], both[1]}, {both[2], both[3]}};
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        if (n + h >= W::NT) break;
#pragma unroll
        for (int m = 0; m < W::MT; ++m) mma<Bf16Pairs>(c[m][n + h < W::NT ? n + h : n], rows[m], columns[h]);
      }
    }
  }
}

}  // namespace affuse::cuda::gemm
