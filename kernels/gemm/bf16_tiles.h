// Micro kernels for pairs of bf16 with an instruction of their own (AVX-512-BF16's vdpbf16ps). The avx512 level asks for
// them here at run time, so that no other file has to be compiled once more for one instruction.
#pragma once
#include <stdint.h>

namespace affuse::gemm {

// acc[r][c] (+)= sum over pairs i of a[i][r] . b[i][c], both operands pairs of bf16 (bf16.h); the rest as tile_multiply.
using Bf16Multiply = void (*)(int64_t pairs, const float* a, const float* b, float* acc, bool resume, const float* next,
                              int64_t next_step);
struct Bf16Tiles {
  Bf16Multiply multiply[15][2];  // [rows][vectors - 1], rows 1…14
};

// Set once, before the first kernel runs or a workspace is measured, by whoever chooses the level; null: float32 is
// multiplied.
extern const Bf16Tiles* bf16_tiles;
extern const Bf16Tiles* const kNativeBf16Tiles;  // null where the compiler cannot make them

}  // namespace affuse::gemm
