#include <cmath>

#include "masked_mse.h"

namespace affuse {

void masked_mse_reference(const OpCall& call) {
  const double *prediction = call.in[0].f64(), *target = call.in[1].f64();
  double sum = 0;
  int64_t n = 0;
  for (int64_t i = 0; i < call.in[0].count(); ++i) {
    if (std::isnan(target[i])) continue;
    sum += (prediction[i] - target[i]) * (prediction[i] - target[i]);
    ++n;
  }
  if (call.out[0].data) call.out[0].f64()[0] = n ? sum / double(n) : 0;
  if (call.out[1].data) call.out[1].i32()[0] = int32_t(n);
}

void masked_mse_backward_reference(const OpCall& call) {
  const double *prediction = call.in[0].f64(), *target = call.in[1].f64(), dloss = call.in[2].f64()[0];
  double *dprediction = call.out[0].f64(), *dtarget = call.out[1].f64();
  int64_t n = 0;
  for (int64_t i = 0; i < call.in[0].count(); ++i) n += !std::isnan(target[i]);
  for (int64_t i = 0; i < call.in[0].count(); ++i) {
    const double d = std::isnan(target[i]) ? 0 : dloss * 2 * (prediction[i] - target[i]) / double(n);
    if (dprediction) dprediction[i] = d;
    if (dtarget) dtarget[i] = -d;
  }
}

}  // namespace affuse
