// A second form of packed rows: in lines instead of transposed, so that packing is a copy.
//
// A block of kLanes steps of K holds, row after row, kLanes consecutive elements of each; a tile of `rows` rows and kc steps
// is ceil(kc / kLanes) such blocks, lines_floats(rows, kc) floats. The micro kernel broadcasts from it as it does from
// transposed rows (the lines of a block lie side by side, unlike the rows in memory, which share a set of L1), and a
// weighted sum of rows needs no transposing back. Every element is the same chain of multiply-adds as tile_multiply()'s.
#pragma once
#include "gemm.h"

#if defined(AFFUSE_ISA)
namespace affuse::AFFUSE_ISA::gemm {

static constexpr int64_t lines_floats(int64_t rows, int64_t kc) { return rows * round_up(kc, kLanes); }

// As tile_multiply, with rows in lines.
void lines_multiply(int rows, int vecs, int64_t kc, const float* a, const float* b, float* acc, bool resume,
                    const float* next = nullptr, int64_t next_step = 0);

// Row `r` of a tile of `rows` rows: kc elements of `from`. What fills the last block is 0.
AFFUSE_INLINE void copy_lines(const float* from, int64_t kc, int rows, int r, float* tile) {
  float* to = tile + r * kLanes;
  int64_t k = 0;
  for (; k + kLanes <= kc; k += kLanes, to += rows * kLanes) store(to, load(from + k));
  if (k < kc) store(to, load(from + k, int(kc - k)));
}

// The operand format of run() for a row loader that packs lines. K is a multiple of kLanes.
struct Lines : Float32 {
  static constexpr bool kInLines = true;
  static AFFUSE_INLINE void multiply(int height, int vecs, int64_t kc, const float* a, const float* b, float* acc,
                                     bool resume, const float* next, int64_t next_step) {
    lines_multiply(height, vecs, kc, a, b, acc, resume, next, next_step);
  }
};

}  // namespace affuse::AFFUSE_ISA::gemm
#endif
