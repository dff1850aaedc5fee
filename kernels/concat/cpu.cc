#include "../common/stream.h"
#include "concat.h"

namespace affuse::AFFUSE_ISA {
namespace {

// One task per block of rows of y.
template <class F>
void each_segment(const OpCall& call, F&& body) {
  TensorDesc in[kConcatInputs];
  for (int i = 0; i < kConcatInputs; ++i) in[i] = call.in[i];
  const ConcatPlan p = concat_plan(in, call.attr[0].i);
  if (p.total == 0) return;
  const int64_t rows = p.total >= 16384 ? 1 : 16384 / p.total;
  parallel(*call.workers, (p.outer + rows - 1) / rows, [&](int64_t task, int) {
    const int64_t end = (task + 1) * rows < p.outer ? (task + 1) * rows : p.outer;
    for (int64_t o = task * rows; o < end; ++o)  // y in the order of addresses
      for (int i = 0; i < kConcatInputs; ++i)
        if (p.width[i]) body(i, o * p.width[i], o * p.total + p.at[i], p.width[i]);
  });
}

}  // namespace

void concat_forward(const OpCall& call) {
  each_segment(call, [&](int i, int64_t x, int64_t y, int64_t count) {
    copy_stream(count, call.in[i].f32() + x, call.out[0].f32() + y);
  });
}

void concat_backward(const OpCall& call) {
  each_segment(call, [&](int i, int64_t x, int64_t y, int64_t count) {
    if (call.out[i].data) copy_stream(count, call.in[kConcatInputs].f32() + y, call.out[i].f32() + x);
  });
}

}  // namespace affuse::AFFUSE_ISA
