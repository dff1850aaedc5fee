// Dropout on a device: the CPU's masks, because it is the CPU's function that makes them.
#pragma once
#include "../philox.h"
#include "stream.h"

namespace affuse::cuda {

// Elements 4 group … 4 group + 3 of the tensor: 1/(1-p) where the mask keeps them, else 0.
AFFUSE_DEVICE Pack<4> dropout_factors(const DropoutMask& m, int64_t group) {
  const uint32_t counter[4] = {uint32_t(uint64_t(group)), uint32_t(uint64_t(group) >> 32), m.step, m.instance};
  uint32_t words[4] = {};
  philox4x32_10(counter, m.seed, words);
  const float scale = float(m.scale);
  Pack<4> factors;
#pragma unroll
  for (int j = 0; j < 4; ++j) factors.v[j] = words[j] >= m.threshold ? scale : 0.0f;
  return factors;
}

}  // namespace affuse::cuda
