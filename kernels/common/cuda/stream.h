// Element-wise kernels: one functor called for every element, four at a time with 16-byte accesses where memory allows it.
//
//   struct Scaled {
//     const float* x; float* y; float factor;
//     template <int N> AFFUSE_DEVICE void operator()(int64_t i) const {   // elements [i, i + N), N = 4 or 1
//       put(y + i, get<N>(x + i) * factor);
//     }
//   };
//   each(queue, "scale", n, aligned(x) && aligned(y), Scaled{x, y, factor});
//
// Memory decides: every block keeps several 16-byte loads in flight per thread, the grid is a few blocks per multiprocessor.
#pragma once
#include <cstdlib>

#include "launch.h"

namespace affuse::cuda {

// N neighbouring elements.
template <int N>
struct Pack {
  float v[N];
  template <class F>
  AFFUSE_DEVICE Pack map(F f) const {
    Pack out;
#pragma unroll
    for (int i = 0; i < N; ++i) out.v[i] = f(v[i]);
    return out;
  }
};
template <int N, class F>
AFFUSE_DEVICE Pack<N> map2(const Pack<N>& a, const Pack<N>& b, F f) {
  Pack<N> out;
#pragma unroll
  for (int i = 0; i < N; ++i) out.v[i] = f(a.v[i], b.v[i]);
  return out;
}
template <int N>
AFFUSE_DEVICE Pack<N> operator+(const Pack<N>& a, const Pack<N>& b) {
  return map2(a, b, [](float x, float y) { return x + y; });
}
template <int N>
AFFUSE_DEVICE Pack<N> operator*(const Pack<N>& a, const Pack<N>& b) {
  return map2(a, b, [](float x, float y) { return x * y; });
}
template <int N>
AFFUSE_DEVICE Pack<N> operator*(const Pack<N>& a, float b) {
  return a.map([b](float x) { return x * b; });
}
// a * b + c, rounded once.
template <int N>
AFFUSE_DEVICE Pack<N> fma(const Pack<N>& a, float b, const Pack<N>& c) {
  return map2(a, c, [b](float x, float z) { return fmaf(x, b, z); });
}
template <int N>
AFFUSE_DEVICE float sum_of(const Pack<N>& a) {
  static_assert(N == 1 || N == 4);
  if constexpr (N == 4) return (a.v[0] + a.v[1]) + (a.v[2] + a.v[3]);
  else return a.v[0];
}
template <int N>
AFFUSE_DEVICE float dot_of(const Pack<N>& a, const Pack<N>& b, float before) {
#pragma unroll
  for (int i = 0; i < N; ++i) before = fmaf(a.v[i], b.v[i], before);
  return before;
}
template <int N>
AFFUSE_DEVICE Pack<N> fill(float x) {
  Pack<N> out;
#pragma unroll
  for (int i = 0; i < N; ++i) out.v[i] = x;
  return out;
}

template <int N>
AFFUSE_DEVICE Pack<N> get(const float* p) {
  if constexpr (N == 4) {
    const float4 x = load4(p);
    return {{x.x, x.y, x.z, x.w}};
  } else if constexpr (N == 2) {
    const float2 x = load2(p);
    return {{x.x, x.y}};
  } else {
    static_assert(N == 1);
    return {{*p}};
  }
}
template <int N>
AFFUSE_DEVICE void put(float* p, const Pack<N>& x) {
  static_assert(N == 1 || N == 4);
  if constexpr (N == 4) store4(p, make_float4(x.v[0], x.v[1], x.v[2], x.v[3]));
  else *p = x.v[0];
}

// Whether 16-byte accesses are allowed from here on. AFFUSE_CUDA_UNALIGNED=1 denies them, because device memory of its own is
// aligned always: so that tests see the other ways. On a device it holds for the whole process.
inline bool aligned(const void* p) {
  const auto denied = [] {
    const char* const asked = getenv("AFFUSE_CUDA_UNALIGNED");
    return asked && *asked == '1';
  };
#if defined(__CUDACC__)
  static const bool never = denied();
  if (never) return false;
#else
  if (denied()) return false;
#endif
  return reinterpret_cast<uintptr_t>(p) % 16 == 0;
}

struct Filled {
  float* y;
  float value;
  template <int N>
  AFFUSE_DEVICE void operator()(int64_t i) const { put(y + i, fill<N>(value)); }
};

struct Copied {
  const float* x;
  float* y;
  template <int N>
  AFFUSE_DEVICE void operator()(int64_t i) const { put(y + i, get<N>(x + i)); }
};

constexpr int kStreamThreads = 256;
constexpr int kStreamBlocks = 8;  // of each multiprocessor: 2048 threads of 32 registers

template <int N, int BLOCKS, class F>
AFFUSE_GLOBAL(kStreamThreads, BLOCKS) each_kernel(F f, int64_t n) {
  const int64_t step = int64_t(gridDim.x) * kStreamThreads * N;
  for (int64_t i = (int64_t(blockIdx.x) * kStreamThreads + threadIdx.x) * N; i < n; i += step) {
    if (N == 1 || i + N <= n) {
      f.template operator()<N>(i);
    } else {
      for (; i < n; ++i) f.template operator()<1>(i);
      return;
    }
  }
}

// Blocks for a walk over n elements, N at a time by every thread.
template <int N, int BLOCKS = kStreamBlocks>
Grid stream_grid(const Queue& queue, int64_t n) {
  const int64_t per_block = int64_t(kStreamThreads) * N, most = int64_t(queue.processors) * BLOCKS * 4;
  const int64_t blocks = (n + per_block - 1) / per_block;
  return Grid{blocks < most ? blocks : most};
}
template <int N, int BLOCKS, class F>
void each_of(Queue& queue, const char* name, int64_t n, const F& f) {
  launch(name, each_kernel<N, BLOCKS, F>, queue, stream_grid<N, BLOCKS>(queue, n), kStreamThreads, 0, f, n);
}

// f for all i in [0, n). `wide`: groups of four elements from 0 on lie at multiples of 16 bytes. A functor that needs more
// than 32 registers names fewer BLOCKS.
template <int BLOCKS = kStreamBlocks, class F>
void each(Queue& queue, const char* name, int64_t n, bool wide, const F& f) {
  if (wide) each_of<4, BLOCKS>(queue, name, n, f);
  else each_of<1, BLOCKS>(queue, name, n, f);
}

template <int BLOCKS = kStreamBlocks>  // a template, so that only who calls it compiles it
void copy(Queue& queue, const char* name, int64_t n, const float* from, float* to) {
  each<BLOCKS>(queue, name, n, aligned(from) && aligned(to), Copied{from, to});
}

}  // namespace affuse::cuda
