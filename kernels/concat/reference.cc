#include "concat.h"

namespace affuse {
namespace {

ConcatPlan plan_of(const OpCall& call) {
  TensorDesc in[kConcatInputs];
  for (int i = 0; i < kConcatInputs; ++i) in[i] = call.in[i];
  return concat_plan(in, call.attr[0].i);
}

}  // namespace

void concat_reference(const OpCall& call) {
  const ConcatPlan p = plan_of(call);
  for (int i = 0; i < kConcatInputs; ++i)
    for (int64_t o = 0; o < p.outer; ++o)
      for (int64_t k = 0; k < p.width[i]; ++k)
        call.out[0].f64()[o * p.total + p.at[i] + k] = call.in[i].f64()[o * p.width[i] + k];
}

void concat_backward_reference(const OpCall& call) {
  const ConcatPlan p = plan_of(call);
  for (int i = 0; i < kConcatInputs; ++i)
    for (int64_t o = 0; call.out[i].data && o < p.outer; ++o)
      for (int64_t k = 0; k < p.width[i]; ++k)
        call.out[i].f64()[o * p.width[i] + k] = call.in[kConcatInputs].f64()[o * p.total + p.at[i] + k];
}

}  // namespace affuse
