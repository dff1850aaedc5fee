// Dropout on a device: a thread makes the four words of one Philox block and passes on the four elements that they decide
// about. The generator's hundred integer instructions for 32 bytes still leave memory to decide.
#include "../common/cuda/philox.h"
#include "dropout.h"

namespace affuse::cuda {
namespace {

// A dropped NaN becomes 0.
AFFUSE_DEVICE float passed(float x, float factor) { return factor == 0.0f ? 0.0f : x * factor; }

struct Passed {  // element i is a multiple of 4, or a single one at the end
  DropoutMask mask;
  const float* x;
  float* y;
  template <int N>
  AFFUSE_DEVICE void operator()(int64_t i) const {
    const Pack<4> factors = dropout_factors(mask, i / 4);
    const Pack<N> v = get<N>(x + i);
    if constexpr (N == 4) {
      put(y + i, map2(v, factors, passed));
    } else {
      float factor = factors.v[0];
#pragma unroll
      for (int j = 1; j < 4; ++j) factor = i % 4 == j ? factors.v[j] : factor;
      y[i] = passed(v.v[0], factor);
    }
  }
};

// Memory that allows no 16-byte accesses: `group` counts fours.
struct PassedGroups {
  DropoutMask mask;
  const float* x;
  float* y;
  int64_t count;
  template <int N>
  AFFUSE_DEVICE void operator()(int64_t group) const {
    const Pack<4> factors = dropout_factors(mask, group);
#pragma unroll
    for (int j = 0; j < 4; ++j)
      if (4 * group + j < count) y[4 * group + j] = passed(x[4 * group + j], factors.v[j]);
  }
};

void apply(const OpCall& call, Queue& queue, const char* name, const Tensor& from, const Tensor& to) {
  const DropoutMask mask = dropout_mask(call.attr[0].f, call.attr[1].u, call.attr[3].i, call.attr[2].i);
  const float* x = from.f32();
  float* y = to.f32();
  const int64_t n = to.count();
  if (aligned(x) && aligned(y)) each_of<4, kStreamBlocks>(queue, name, n, Passed{mask, x, y});
  else each_of<1, kStreamBlocks>(queue, name, (n + 3) / 4, PassedGroups{mask, x, y, n});
}

void forward(const OpCall& call, Queue& queue) { apply(call, queue, "dropout", call.in[0], call.out[0]); }
void backward(const OpCall& call, Queue& queue) { apply(call, queue, "dropout.backward", call.in[1], call.out[0]); }

}  // namespace

AFFUSE_DEVICE_OP(kDropout, "dropout", &forward)
AFFUSE_DEVICE_OP(kDropoutBackward, "dropout.backward", &backward)

}  // namespace affuse::cuda
