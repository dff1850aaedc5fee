// Reductions within a warp and within a block, always in the same order.
#pragma once
#include "verbs.h"

namespace affuse::cuda {

AFFUSE_DEVICE float warp_sum(float v) {
#pragma unroll
  for (unsigned m = 16; m; m /= 2) v += shuffle_xor(v, m);
  return v;
}
AFFUSE_DEVICE float warp_max(float v) {
#pragma unroll
  for (unsigned m = 16; m; m /= 2) {
    const float other = shuffle_xor(v, m);
    v = other > v ? other : v;
  }
  return v;
}

// The sum over a block of THREADS, in every thread. room: THREADS/32 floats of shared memory, which may be used again at once.
template <int THREADS>
AFFUSE_DEVICE float block_sum(float v, float* room) {
  v = warp_sum(v);
  if (lane() == 0) room[warp()] = v;
  barrier();
  float total = room[0];
#pragma unroll
  for (int w = 1; w < THREADS / 32; ++w) total += room[w];
  barrier();
  return total;
}

}  // namespace affuse::cuda
