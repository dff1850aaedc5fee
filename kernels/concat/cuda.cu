// concat on a device: a thread takes one or four neighbours of a row of y, finds the input that they belong to among the
// eight and copies, whichever way. One launch.
#include "../common/cuda/divide.h"
#include "../common/cuda/stream.h"
#include "concat.h"

namespace affuse::cuda {
namespace {

template <bool joins>
struct Joined {
  ConcatPlan plan;
  Divider total;
  float* part[kConcatInputs];  // x_i, or dx_i; null: there is none, or nobody wants it
  float* whole;                // y, or dy
  template <int N>
  AFFUSE_DEVICE void operator()(int64_t i) const {
    const int64_t row = total.quotient(i), column = i - row * plan.total;
    float* p = nullptr;
#pragma unroll
    for (int k = 0; k < kConcatInputs; ++k) {
      const int64_t at = column - plan.at[k];
      if (at >= 0 && at < plan.width[k] && part[k]) p = part[k] + row * plan.width[k] + at;
    }
    if (joins) put(whole + i, get<N>(p));
    else if (p) put(p, get<N>(whole + i));
  }
};

template <bool joins>
void run(const OpCall& call, Queue& queue, const char* name, const Tensor* parts, const Tensor& whole) {
  TensorDesc in[kConcatInputs];
  for (int i = 0; i < kConcatInputs; ++i) in[i] = call.in[i];
  const ConcatPlan plan = concat_plan(in, call.attr[0].i);
  if (plan.total == 0) return;
  Joined<joins> f{plan, divider(plan.total, plan.outer * plan.total), {}, whole.f32()};
  bool wide = aligned(f.whole);
  for (int i = 0; i < kConcatInputs; ++i) {
    f.part[i] = parts[i].f32();
    wide = wide && aligned(f.part[i]) && plan.width[i] % 4 == 0;
  }
  each(queue, name, plan.outer * plan.total, wide, f);
}

void forward(const OpCall& call, Queue& queue) { run<true>(call, queue, "concat", call.in, call.out[0]); }
void backward(const OpCall& call, Queue& queue) {
  run<false>(call, queue, "concat.backward", call.out, call.in[kConcatInputs]);
}

}  // namespace

AFFUSE_DEVICE_OP(kConcat, "concat", &forward)
AFFUSE_DEVICE_OP(kConcatBackward, "concat.backward", &backward)

}  // namespace affuse::cuda
