// One row's softmax by a team of threads (common/cuda/rows.h); softmax and softmax_cross_entropy share it. Sums in float32,
// every thread its own elements and then a tree. NaN may be passed over in the maximum, but not in the sum.
#pragma once
#include "../common/cuda/rows.h"

namespace affuse::cuda {

struct RowSum {
  float max, sum;  // max_c x_c, sum_c exp(x_c - max)
};

// Reads the row into v, which with K > 0 holds exp(x - max) afterwards; look(column, x, max) sees every pack in between.
template <int LANES, int N, int K, class F>
AFFUSE_DEVICE RowSum row_sum_of(const Row<LANES, N, K>& row, Kept<N, K>& v, F look) {
  float most = -HUGE_VALF;
  row.each([&](int k, int64_t c) {
    const Pack<N> x = v.first(k, c);
#pragma unroll
    for (int i = 0; i < N; ++i) most = x.v[i] > most ? x.v[i] : most;
  });
  most = row.max(most);
  float total = 0;
  row.each([&](int k, int64_t c) {
    const Pack<N> x = v.again(k, c), e = x.map([most](float a) { return expf(a - most); });
    look(c, x, most);
    total += sum_of(e);
    if constexpr (K > 0) v.v[k] = e;
  });
  return {most, row.sum(total)};
}
template <int LANES, int N, int K>
AFFUSE_DEVICE RowSum row_sum_of(const Row<LANES, N, K>& row, Kept<N, K>& v) {
  return row_sum_of(row, v, [](int64_t, const Pack<N>&, float) {});
}

// softmax(x) at one of the packs of that v; scale = 1 / sum.
template <int N, int K>
AFFUSE_DEVICE Pack<N> share_of(const Kept<N, K>& v, float max, float scale, int k, int64_t c) {
  if constexpr (K > 0) return v.again(k, c) * scale;
  else return v.again(k, c).map([&](float x) { return expf(x - max) * scale; });
}

}  // namespace affuse::cuda
