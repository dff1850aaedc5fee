#include "../common/philox.h"
#include "dropout.h"

namespace affuse {
namespace {

void apply(const OpCall& c, const Tensor& x, const Tensor& y) {
  const DropoutMask mask = dropout_mask(c.attr[0].f, c.attr[1].u, c.attr[3].i, c.attr[2].i);
  for (int64_t e = 0; e < x.count(); ++e) y.f64()[e] = dropout_keeps(mask, uint64_t(e)) ? x.f64()[e] * mask.scale : 0.0;
}

}  // namespace

void dropout_reference(const OpCall& c) { apply(c, c.in[0], c.out[0]); }
void dropout_backward_reference(const OpCall& c) { apply(c, c.in[1], c.out[0]); }

}  // namespace affuse
