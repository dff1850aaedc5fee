// afg on a device. Forward: cuda/gather.h. Backward: cuda/backward.h. Which frames there are: cuda/frames.h.
#include "afg.h"

#include "cuda/backward.h"
#include "cuda/gather.h"

namespace affuse::cuda {
namespace {

OpShape shape_of(const OpCall& call, TensorDesc* in, TensorDesc* out, int inputs, int outputs) {
  for (int i = 0; i < inputs; ++i) in[i] = call.in[i];
  for (int i = 0; i < outputs; ++i) out[i] = call.out[i];
  return {in, out, call.attr};
}

size_t forward_workspace(const OpShape& s, int) {
  afg::Carver carver{nullptr};
  afg::gather_of(OpCall{}, carver, s, s.out[kAfgOutC].given());
  return carver.used;
}

void forward(const OpCall& call, Queue& queue) {
  TensorDesc in[kAfgMask + 1], out[kAfgOutK + 1];
  const OpShape shape = shape_of(call, in, out, kAfgMask + 1, kAfgOutK + 1);
  afg::Carver carver{static_cast<char*>(call.workspace)};
  afg::Gather g = afg::gather_of(call, carver, shape, out[kAfgOutC].given());
  g.c = call.out[kAfgOutC].f32();
  g.alpha = call.out[kAfgOutAlpha].f32();
  g.k = call.out[kAfgOutK].f32();
  afg::list_frames(queue, g.list);
  afg::gather(queue, g, true);
}

size_t backward_workspace(const OpShape& s, int processors) {
  afg::Carver carver{nullptr};
  afg::backward_of(OpCall{}, carver, s, processors);
  return carver.used;
}

void backward(const OpCall& call, Queue& queue) {
  TensorDesc in[kAfgDalpha + 1], out[kAfgDq + 1];
  const OpShape shape = shape_of(call, in, out, kAfgDalpha + 1, kAfgDq + 1);
  afg::Carver carver{static_cast<char*>(call.workspace)};
  afg::run_backward(queue, afg::backward_of(call, carver, shape, queue.processors));
}

}  // namespace

AFFUSE_DEVICE_OP(kAfg, "afg", &forward, &forward_workspace)
AFFUSE_DEVICE_OP(kAfgBackward, "afg.backward", &backward, &backward_workspace)

}  // namespace affuse::cuda
