// weighted_sum in plain float64, as the formulas of weighted_sum.h read.
#include "weighted_sum.h"

namespace affuse {

void weighted_sum_reference(const OpCall& call) {
  const Tensor &x = call.in[kWeightedSumX], &w = call.in[kWeightedSumW], &y = call.out[0];
  if (!y.given()) return;
  const int64_t B = x.dim[0], J = x.dim[1], D = x.dim[2];
  for (int64_t b = 0; b < B; ++b)
    for (int64_t d = 0; d < D; ++d) {
      double sum = 0;
      for (int64_t j = 0; j < J; ++j) sum += w.f64()[b * J + j] * x.f64()[(b * J + j) * D + d];
      y.f64()[b * D + d] = sum;
    }
}

void weighted_sum_backward_reference(const OpCall& call) {
  const Tensor &x = call.in[kWeightedSumX], &w = call.in[kWeightedSumW], &dy = call.in[kWeightedSumDy];
  const Tensor &dx = call.out[kWeightedSumDx], &dw = call.out[kWeightedSumDw];
  const int64_t B = x.dim[0], J = x.dim[1], D = x.dim[2];
  for (int64_t b = 0; b < B; ++b)
    for (int64_t j = 0; j < J; ++j) {
      double dot = 0;
      for (int64_t d = 0; d < D; ++d) {
        dot += dy.f64()[b * D + d] * x.f64()[(b * J + j) * D + d];
        if (dx.given()) dx.f64()[(b * J + j) * D + d] = w.f64()[b * J + j] * dy.f64()[b * D + d];
      }
      if (dw.given()) dw.f64()[b * J + j] = dot;
    }
}

}  // namespace affuse
