// Two axes change places.
//
//   y[…, j, …, i, …] = x[…, i, …, j, …]          i at axis0, j at axis1; every other axis stays
//   dx = dy with the same axes swapped
//
// x of any shape of rank >= 2; axes count from 0, negative ones from the end; equal axes copy.
// Error: none, values are copied (NaN with its bits). FLOPs: 0. Bytes: 8 N, N elements.
#pragma once
#include "../common/op.h"

namespace affuse {
extern const OpDef kTranspose, kTransposeBackward;
void transpose_reference(const OpCall&);
void transpose_backward_reference(const OpCall&);
AFFUSE_DECLARE_KERNEL(transpose_forward)
AFFUSE_DECLARE_KERNEL(transpose_backward)

// x seen as [outer, P, middle, Q, inner] with P and Q changing places.
struct Swap {
  int64_t outer, P, middle, Q, inner;
};
// Of the forward's x: rank and axes as given.
[[maybe_unused]] static Swap swap_of(const TensorDesc& x, const Attr* attr) {
  int64_t a = attr[0].i < 0 ? attr[0].i + x.rank : attr[0].i, b = attr[1].i < 0 ? attr[1].i + x.rank : attr[1].i;
  if (a > b) {
    const int64_t c = a;
    a = b, b = c;
  }
  Swap s{1, 1, 1, 1, 1};
  for (int i = 0; i < x.rank; ++i) {
    if (i == a) s.P = x.dim[i];
    else if (i == b) s.Q = x.dim[i];
    else if (i < a) s.outer *= x.dim[i];
    else if (i < b) s.middle *= x.dim[i];
    else s.inner *= x.dim[i];
  }
  return s;
}
}  // namespace affuse
