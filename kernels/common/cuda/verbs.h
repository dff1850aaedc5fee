// The words that CUDA kernels here are written in. A .cu file includes this and nothing of CUDA: nvcc compiles the words to
// instructions (verbs_device.h, sm_80 and up), g++ to the emulator (verbs_emulated.h).
//
//   threadIdx.x, blockIdx.x/y/z, gridDim.x/y/z, blockDim.x    as in CUDA; blocks are one-dimensional
//   lane(), warp()                   within the block
//   Shared s; s.take<T>(n)           the block's next shared array; on the host SharedBytes().take<T>(n).bytes is what to
//                                    ask for
//   barrier()                        all threads of the block, in step, see each other's writes
//   warp_barrier()                   likewise the lanes of a warp
//   fence()                          writes before it are seen by other blocks before writes after it
//   shuffle_xor(v, m), shuffle(v, l) the value of lane() ^ m, of lane l; all 32 lanes call it
//   load4(p), store4(p, v)           16 bytes at an address that is a multiple of 16; load2(p) 8 of 8
//   copy_async<N>(to, from, valid)   N = 4 or 16 bytes from global to shared memory; from `valid` bytes on zeros
//   commit(), wait<N>()              closes a group of copies; waits for all but the N youngest groups
//   load_matrix(r, p)                four 8x8 matrices of 16-bit elements: lane l gives the address of row l % 8 of matrix
//                                    l / 8; load_matrix_transposed likewise
//   mma(c, a, b)                     C 16x8 += A 16x16 B 16x8 of bf16 pairs, or A 16x8 B 8x8 of tf32; the fragments of
//                                    mma.sync.m16n8k16 and m16n8k8, row.col
//   atomic_add(p, v)                 integers and floats; returns what was there
//
// Sources: the PTX ISA's chapters on mma, ldmatrix and cp.async.
#pragma once
#include <cstddef>
#include <cstdint>

#if defined(__CUDACC__)
#include "verbs_device.h"
#else
#include "verbs_emulated.h"
#endif

namespace affuse::cuda {

constexpr unsigned kWarp = 32;

struct SharedBytes {
  size_t bytes = 0;
  template <class T>
  constexpr SharedBytes& take(size_t n) {
    bytes += (n * sizeof(T) + 15) / 16 * 16;
    return *this;
  }
};

}  // namespace affuse::cuda
