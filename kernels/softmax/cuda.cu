// softmax on a device: a team of threads for a row (rows.h), which it reads once, from memory at least.
#include "row_cuda.h"
#include "softmax.h"

namespace affuse::cuda {
namespace {

struct Shares {
  const float* x;
  float* y;
  template <int LANES, int N, int K>
  AFFUSE_DEVICE void operator()(const Row<LANES, N, K>& row) const {
    Kept<N, K> v(x + row.at);
    const RowSum s = row_sum_of(row, v);
    const float scale = 1.0f / s.sum;
    row.each([&](int k, int64_t c) { put(y + row.at + c, share_of(v, s.max, scale, k, c)); });
  }
};

template <bool saved>
struct Gradients {
  const float *x, *y, *dy;
  float* dx;
  template <int LANES, int N, int K>
  AFFUSE_DEVICE void operator()(const Row<LANES, N, K>& row) const {
    Kept<N, K> v((saved ? y : x) + row.at), g(dy + row.at);
    RowSum s{0, 1};
    if constexpr (!saved) s = row_sum_of(row, v);
    const float scale = 1.0f / s.sum;
    const auto share = [&](int k, int64_t c) {
      if constexpr (saved) return v.again(k, c);
      else return share_of(v, s.max, scale, k, c);
    };
    float dot = 0;
    row.each([&](int k, int64_t c) {
      if constexpr (saved) v.first(k, c);
      dot = dot_of(g.first(k, c), share(k, c), dot);
    });
    dot = row.sum(dot);
    row.each([&](int k, int64_t c) {
      put(dx + row.at + c, map2(share(k, c), g.again(k, c), [dot](float p, float d) { return p * (d - dot); }));
    });
  }
};

void forward(const OpCall& call, Queue& queue) {
  const Tensor& x = call.in[0];
  const int64_t C = x.dim[x.rank - 1];
  float* y = call.out[0].f32();
  rows(queue, "softmax", x.count() / C, C, C % 4 == 0 && aligned(x.data) && aligned(y), Shares{x.f32(), y});
}

void backward(const OpCall& call, Queue& queue) {
  const float *x = call.in[0].f32(), *y = call.in[1].f32(), *dy = call.in[2].f32();
  float* dx = call.out[0].f32();
  const int64_t C = call.in[0].dim[call.in[0].rank - 1], R = call.in[0].count() / C;
  const bool wide = C % 4 == 0 && aligned(x) && aligned(y) && aligned(dy) && aligned(dx);
  if (y) rows(queue, "softmax.backward", R, C, wide, Gradients<true>{x, y, dy, dx});
  else rows(queue, "softmax.backward", R, C, wide, Gradients<false>{x, y, dy, dx});
}

}  // namespace

AFFUSE_DEVICE_OP(kSoftmax, "softmax", &forward)
AFFUSE_DEVICE_OP(kSoftmaxBackward, "softmax.backward", &backward)

}  // namespace affuse::cuda
