// The words that CUDA kernels here are written in. A .cu file includes this and nothing of CUDA: nvcc compiles the words to
// instructions (verbs_device.h, sm_80 and up), g++ to the emulator (verbs_emulated.h).
//
// Fourteen verbs, and no more words for what threads do to memory or to each other; a warp's are for all of its 32 lanes:
//
//    1 take<T>(n) of Shared          the block's next shared array; on the host SharedBytes().take<T>(n).bytes is what to ask
//                                    for
//    2 barrier()                     all threads of the block, in step, see each other's writes
//    3 warp_barrier()                likewise the lanes of a warp
//    4 shuffle(v, l)                 the value of lane l
//    5 shuffle_xor(v, m)             of lane() ^ m
//    6 load2(p)                      8 bytes at an address that is a multiple of 8
//    7 load4(p)                      16 of 16
//    8 store4(p, v)                  likewise
//    9 copy_async<N>(to, from, valid)  N = 4 or 16 bytes from global to shared memory; from `valid` bytes on zeros
//   10 commit()                      closes a group of copies
//   11 wait<N>()                     waits for all but the N youngest groups
//   12 load_matrix(r, p)             four 8x8 matrices of 16-bit elements: lane l gives the address of row l % 8 of matrix l / 8
//   13 mma(c, a, b)                  C 16x8 += A 16x16 B 16x8 of bf16 pairs, or A 16x8 B 8x8 of tf32; the fragments of
//                                    mma.sync.m16n8k16 and m16n8k8, row.col
//   14 atomic_add(p, v)              returns what was there. Of integers, whose sums know no order; no kernel here adds floats
//                                    so, because results must not depend on who comes first
//
// Where a thread is, as in CUDA (blocks are one-dimensional): threadIdx.x, blockIdx.x/y/z, gridDim.x/y/z, blockDim.x; lane()
// and warp() within the block. And arithmetic that C++ has no words for: to_bf16, to_tf32, bits_of, float_of, multiply_high.
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
