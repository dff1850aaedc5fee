// Reductions within a warp and within a block, always in the same order.
#pragma once
#include "verbs.h"

namespace affuse::cuda {

template <class T>
AFFUSE_DEVICE T warp_sum(T v) {
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

// The sum over a block of THREADS, in every thread. room: THREADS/32 Ts of shared memory, which may be used again at once.
template <int THREADS, class T>
AFFUSE_DEVICE T block_sum(T v, T* room) {
  v = warp_sum(v);
  if (lane() == 0) room[warp()] = v;
  barrier();
  T total = room[0];
#pragma unroll
  for (int w = 1; w < THREADS / 32; ++w) total += room[w];
  barrier();
  return total;
}
// The largest value over a block, likewise. NaN may be passed over.
template <int THREADS>
AFFUSE_DEVICE float block_max(float v, float* room) {
  v = warp_max(v);
  if (lane() == 0) room[warp()] = v;
  barrier();
  float most = room[0];
#pragma unroll
  for (int w = 1; w < THREADS / 32; ++w) most = room[w] > most ? room[w] : most;
  barrier();
  return most;
}

}  // namespace affuse::cuda
