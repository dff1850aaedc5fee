// How b's elements meet a's: the arithmetic of broadcasting, shared by the CPU's and the device's kernels.
#pragma once
#include "../common/op.h"

namespace affuse {

// a's dimensions with neighbours of the same kind merged and ones left out: `shared` ones are those b is broadcast along.
struct Broadcast {
  int rank = 0;
  int64_t size[kMaxRank], stride_b[kMaxRank];  // stride_b is 0 along shared dimensions
  bool shared[kMaxRank];
};

static inline Broadcast broadcast_of(const TensorDesc& a, const TensorDesc& b) {
  Broadcast p;
  for (int d = 0; d < a.rank; ++d) {
    const int e = d - (a.rank - b.rank);
    if (a.dim[d] == 1) continue;
    const bool shared = e < 0 || b.dim[e] == 1;
    if (p.rank && p.shared[p.rank - 1] == shared) p.size[p.rank - 1] *= a.dim[d];
    else p.size[p.rank] = a.dim[d], p.shared[p.rank++] = shared;
  }
  if (!p.rank) p.size[0] = 1, p.shared[0] = false, p.rank = 1;
  int64_t stride = 1;
  for (int d = p.rank - 1; d >= 0; --d) {
    p.stride_b[d] = p.shared[d] ? 0 : stride;
    if (!p.shared[d]) stride *= p.size[d];
  }
  return p;
}

}  // namespace affuse
