// avg_pool2d on a device: a thread for a window, and for an element of x going back (common/cuda/pool.h).
#include "avg_pool2d.h"

#include "../common/cuda/pool.h"

namespace affuse::cuda {
namespace {

struct Mean {
  float share;
  AFFUSE_DEVICE float first() const { return 0.0f; }
  AFFUSE_DEVICE float meet(float sum, float v) const { return sum + v; }
  AFFUSE_DEVICE float finish(float sum) const { return sum * share; }
};
struct Shares {
  const float* dy;
  float share;
  template <int N>
  AFFUSE_DEVICE void add(Pack<N>& sum, int64_t window, int) const { sum = sum + get<N>(dy + window) * share; }
};

float share_of(const OpCall& call) { return 1.0f / float(call.attr[0].i * call.attr[0].i); }

void forward(const OpCall& call, Queue& queue) { pool_forward(queue, "avg_pool2d", call, Mean{share_of(call)}); }

void backward(const OpCall& call, Queue& queue) {
  if (!call.out[0].data) return;
  pool_backward(queue, "avg_pool2d.backward", call, pool_of(call), Shares{call.in[2].f32(), share_of(call)});
}

}  // namespace

AFFUSE_DEVICE_OP(kAvgPool2d, "avg_pool2d", &forward)
AFFUSE_DEVICE_OP(kAvgPool2dBackward, "avg_pool2d.backward", &backward)

}  // namespace affuse::cuda
