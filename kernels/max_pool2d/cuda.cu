// max_pool2d on a device: a thread for a window, and for an element of x going back (common/cuda/pool.h).
//
// Backward in two kernels: the first writes for every window the number of its largest element into the workspace, one byte
// where windows have at most 256 elements; the second collects dy where an element finds its own number. So x is read once,
// however far windows overlap.
#include "max_pool2d.h"

#include "../common/cuda/pool.h"

namespace affuse::cuda {
namespace {

// A NaN is larger than everything, and of several the last one counts.
AFFUSE_DEVICE bool displaces(float v, float largest) { return v > largest || v != v; }

struct Largest {
  AFFUSE_DEVICE float first() const { return -__builtin_inff(); }
  AFFUSE_DEVICE float meet(float m, float v) const { return displaces(v, m) ? v : m; }
  AFFUSE_DEVICE float finish(float m) const { return m; }
};

constexpr int kSmallWindow = 16;  // the most whose elements a byte counts

struct alignas(4) FourBytes {
  uint8_t v[4];
};
template <class Number>
struct Numbers {  // N of them
  Number* p;
  template <int N>
  AFFUSE_DEVICE void put(int64_t i, const int (&best)[N]) const {
    if constexpr (N == 4 && sizeof(Number) == 1) {
      *reinterpret_cast<FourBytes*>(p + i) = {{uint8_t(best[0]), uint8_t(best[1]), uint8_t(best[2]), uint8_t(best[3])}};
    } else {
#pragma unroll
      for (int k = 0; k < N; ++k) p[i + k] = Number(best[k]);
    }
  }
  template <int N>
  AFFUSE_DEVICE void get(int64_t i, int (&best)[N]) const {
    if constexpr (N == 4 && sizeof(Number) == 1) {
      const FourBytes four = *reinterpret_cast<const FourBytes*>(p + i);
#pragma unroll
      for (int k = 0; k < 4; ++k) best[k] = four.v[k];
    } else {
#pragma unroll
      for (int k = 0; k < N; ++k) best[k] = int(p[i + k]);
    }
  }
};

template <class Number, bool LAST, int SIZE>
struct Places {
  Pool p;
  const float* x;
  Numbers<Number> numbers;
  template <int N>
  AFFUSE_DEVICE void operator()(int64_t i) const {
    const Pool::Place at = p.window<LAST>(i);
    if (p.widths && !p.own(at.b, at.w)) return;
    float largest[N];
    int best[N];
#pragma unroll
    for (int k = 0; k < N; ++k) largest[k] = -__builtin_inff(), best[k] = 0;
    over_window<SIZE, N>(x + p.first<LAST>(at), p.size, p.right<LAST>(), p.x.W * p.right<LAST>(),
                         [&](const Pack<N>& e, int number) {
#pragma unroll
                           for (int k = 0; k < N; ++k)
                             if (displaces(e.v[k], largest[k])) largest[k] = e.v[k], best[k] = number;
                         });
    numbers.put(i, best);
  }
};

template <class Number>
struct Taken {
  const float* dy;
  Numbers<Number> numbers;
  template <int N>
  AFFUSE_DEVICE void add(Pack<N>& sum, int64_t window, int number) const {
    int best[N];
    numbers.get(window, best);
    const Pack<N> g = get<N>(dy + window);
#pragma unroll
    for (int k = 0; k < N; ++k)
      if (best[k] == number) sum.v[k] += g.v[k];
  }
};

template <class Number>
void backward_with(const OpCall& call, Queue& queue) {
  const Pool p = pool_of(call);
  const float *x = call.in[0].f32(), *dy = call.in[2].f32();
  const Numbers<Number> numbers{static_cast<Number*>(call.workspace)};
  const auto places = [&](auto size) {
    constexpr int kSize = decltype(size)::value;
    const int64_t n = call.in[2].count();
    if (p.x.last)
      each<kPoolBlocks>(queue, "max_pool2d places", n, pools_wide(p, x, nullptr),
                        Places<Number, true, kSize>{p, x, numbers});
    else each_of<1, kPoolBlocks>(queue, "max_pool2d places", n, Places<Number, false, kSize>{p, x, numbers});
  };
  if constexpr (sizeof(Number) == 1) with_size(p.size, places);
  else places(std::integral_constant<int, 0>());  // a large window
  pool_backward(queue, "max_pool2d.backward", call, p, Taken<Number>{dy, numbers});
}

void forward(const OpCall& call, Queue& queue) { pool_forward(queue, "max_pool2d", call, Largest{}); }

void backward(const OpCall& call, Queue& queue) {
  if (!call.out[0].data) return;
  if (call.attr[0].i <= kSmallWindow) backward_with<uint8_t>(call, queue);
  else backward_with<int32_t>(call, queue);
}

size_t backward_workspace(const OpShape& s, int) {
  return size_t(s.in[2].count()) * (s.attr[0].i <= kSmallWindow ? 1 : sizeof(int32_t));
}

}  // namespace

AFFUSE_DEVICE_OP(kMaxPool2d, "max_pool2d", &forward)
AFFUSE_DEVICE_OP(kMaxPool2dBackward, "max_pool2d.backward", &backward, &backward_workspace)

}  // namespace affuse::cuda
