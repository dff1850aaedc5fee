// Inverted dropout with a recomputable mask (spec section 0).
//
//   y_e = x_e / (1-p)   if word_e >= round(p * 2^32), else 0
//   word_e: Philox4x32-10 word of element e, key = seed, counter = (floor(e/4), step, instance); see common/philox.h
//   dx_e = dy_e / (1-p) where kept, else 0: the mask is made again, nothing is saved
//
// x, y, dy, dx [...]: any shape, flat row-major index e. y may alias x, dx may alias dy.
// p = 0 is the identity. p so close to 1 that round(p * 2^32) = 2^32 drops everything.
// Error: the mask is exact; kept values carry the rounding of 1/(1-p) and of one product: |error| <= 2^-23 |y|.
// Singular points: none. NaN and infinity propagate where kept and vanish where dropped.
// FLOPs: N (one product per element; the generator's integer work is not counted). Bytes: 8 N.
#pragma once
#include "../common/op.h"

namespace affuse {
extern const OpDef kDropout, kDropoutBackward;
void dropout_reference(const OpCall&);
void dropout_backward_reference(const OpCall&);
AFFUSE_DECLARE_KERNEL(dropout_forward)
AFFUSE_DECLARE_KERNEL(dropout_backward)
}  // namespace affuse
