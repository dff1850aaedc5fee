// Element-wise sum, product and scaling.
//
//   add    y = a + b          da = dy           db = sum of dy over b's broadcast positions
//   mul    y = a * b          da = dy * b       db = sum of dy * a over b's broadcast positions
//   scale  y = factor * x     dx = factor * dy
//
// a, y, dy, da: any shape. b's shape is aligned with a's last dimensions; each of its dimensions equals a's or is 1, and it
// may have fewer dimensions (missing leading ones count as 1). So [B,1] against [B,D] multiplies every row by a factor (a
// presence mask), [D] against [B,T,D] adds a bias. a is never broadcast: y has a's shape.
// Error (float32): y, da, dx one rounding; db within 2^-24 * (64 + K/64) * sum|terms| over K terms, in a fixed order.
// Singular points: none. NaN and infinity propagate.
// FLOPs: N; backward: add R, mul 2 N (N elements of a; R = N when b is broadcast, else 0).
// Bytes: add and mul 4 (2 N + M), backward 4 (3 N + 2 M), M elements of b; scale 8 N.
#pragma once
#include "../common/op.h"

namespace affuse {
extern const OpDef kAdd, kAddBackward, kMul, kMulBackward, kScale, kScaleBackward;
void add_reference(const OpCall&);
void add_backward_reference(const OpCall&);
void mul_reference(const OpCall&);
void mul_backward_reference(const OpCall&);
void scale_reference(const OpCall&);
void scale_backward_reference(const OpCall&);
AFFUSE_DECLARE_KERNEL(add_forward)
AFFUSE_DECLARE_KERNEL(add_backward)
AFFUSE_DECLARE_KERNEL(mul_forward)
AFFUSE_DECLARE_KERNEL(mul_backward)
AFFUSE_DECLARE_KERNEL(scale_forward)
AFFUSE_DECLARE_KERNEL(scale_backward)
}  // namespace affuse
