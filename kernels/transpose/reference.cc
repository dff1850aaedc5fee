#include "transpose.h"

namespace affuse {
namespace {

void swapped(const Swap& s, const double* x, double* y) {
  for (int64_t o = 0; o < s.outer; ++o)
    for (int64_t p = 0; p < s.P; ++p)
      for (int64_t m = 0; m < s.middle; ++m)
        for (int64_t q = 0; q < s.Q; ++q)
          for (int64_t i = 0; i < s.inner; ++i)
            y[(((o * s.Q + q) * s.middle + m) * s.P + p) * s.inner + i] =
                x[(((o * s.P + p) * s.middle + m) * s.Q + q) * s.inner + i];
}

}  // namespace

void transpose_reference(const OpCall& call) {
  swapped(swap_of(call.in[0], call.attr), call.in[0].f64(), call.out[0].f64());
}
void transpose_backward_reference(const OpCall& call) {
  swapped(swap_of(call.in[1], call.attr), call.in[1].f64(), call.out[0].f64());
}

}  // namespace affuse
