// Activations on a device: one functor for each kind, four elements at a time (stream.h). Memory decides even for gelu, some
// thirty instructions for eight bytes. Kind `none` is a copy.
#include "../common/cuda/activate.h"

namespace affuse::cuda {
namespace {

template <int KIND>
struct Value {
  const float* x;
  float* y;
  template <int N>
  AFFUSE_DEVICE void operator()(int64_t i) const {
    put(y + i, activate(KIND, get<N>(x + i)));
  }
};

template <int KIND>
struct Slope {
  const float *x, *y, *dy;  // y null: computed again
  float* dx;
  template <int N>
  AFFUSE_DEVICE void operator()(int64_t i) const {
    Pack<N> s;  // what slope_times() takes
    if constexpr (KIND == ActivationKind::relu || KIND == ActivationKind::gelu) s = get<N>(x + i);
    else s = y ? get<N>(y + i) : activate(KIND, get<N>(x + i));
    put(dx + i, map2(s, get<N>(dy + i), [](float v, float d) { return slope_times(KIND, v, d); }));
  }
};

template <int KIND>
void forward_as(const OpCall& call, Queue& queue) {
  const float* x = call.in[0].f32();
  float* y = call.out[0].f32();
  each(queue, "activation", call.in[0].count(), aligned(x) && aligned(y), Value<KIND>{x, y});
}
template <int KIND>
void backward_as(const OpCall& call, Queue& queue) {
  const float *x = call.in[0].f32(), *y = call.in[1].f32(), *dy = call.in[2].f32();
  float* dx = call.out[0].f32();
  const bool wide = aligned(x) && aligned(y) && aligned(dy) && aligned(dx);
  each(queue, "activation.backward", call.in[0].count(), wide, Slope<KIND>{x, y, dy, dx});
}

void forward(const OpCall& call, Queue& queue) {
  switch (int(call.attr[0].i)) {
    case ActivationKind::relu: return forward_as<ActivationKind::relu>(call, queue);
    case ActivationKind::gelu: return forward_as<ActivationKind::gelu>(call, queue);
    case ActivationKind::tanh: return forward_as<ActivationKind::tanh>(call, queue);
    case ActivationKind::sigmoid: return forward_as<ActivationKind::sigmoid>(call, queue);
    default: return copy(queue, "activation", call.in[0].count(), call.in[0].f32(), call.out[0].f32());
  }
}
void backward(const OpCall& call, Queue& queue) {
  switch (int(call.attr[0].i)) {
    case ActivationKind::relu: return backward_as<ActivationKind::relu>(call, queue);
    case ActivationKind::gelu: return backward_as<ActivationKind::gelu>(call, queue);
    case ActivationKind::tanh: return backward_as<ActivationKind::tanh>(call, queue);
    case ActivationKind::sigmoid: return backward_as<ActivationKind::sigmoid>(call, queue);
    default: return copy(queue, "activation.backward", call.in[0].count(), call.in[2].f32(), call.out[0].f32());
  }
}

}  // namespace

AFFUSE_DEVICE_OP(kActivation, "activation", &forward)
AFFUSE_DEVICE_OP(kActivationBackward, "activation.backward", &backward)

}  // namespace affuse::cuda
