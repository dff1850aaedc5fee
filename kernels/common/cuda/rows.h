// Kernels that work on rows: a team of 8 or 32 lanes of a warp takes a short row, a block a long one, and reduces over it
// in an order that the row's length alone decides. A row of up to 4096 elements (1024 where memory allows no 16-byte
// accesses) stays in registers from one pass over it to the next; a longer one is read again, from the caches.
//
//   struct Shares {
//     const float* x; float* y;
//     template <int LANES, int N, int K> AFFUSE_DEVICE void operator()(const Row<LANES, N, K>& row) const {
//       Kept<N, K> v{x + row.at};
//       float total = 0;
//       row.each([&](int k, int64_t c) { total += sum_of(v.first(k, c)); });
//       total = row.sum(total);
//       row.each([&](int k, int64_t c) { put(y + row.at + c, v.again(k, c) * (1 / total)); });
//     }
//   };
//   rows(queue, "shares", R, C, C % 4 == 0 && aligned(x) && aligned(y), Shares{x, y});
//
// All lanes of a warp, and all threads of a block, reach every sum() and max(), also those whose row is beyond the last:
// then `there` is false and each() calls nothing.
#pragma once
#include "reduce.h"
#include "stream.h"

namespace affuse::cuda {

constexpr int kRowThreads = 256;

// The team's part of a reduction: LANES neighbours of a warp, or the whole block with `room` for 8 doubles.
template <int LANES, class T>
AFFUSE_DEVICE T team_sum(T v, double* room) {
  if constexpr (LANES > 32) {
    return block_sum<LANES>(v, reinterpret_cast<T*>(room));
  } else {
#pragma unroll
    for (unsigned m = LANES / 2; m; m /= 2) v += shuffle_xor(v, m);
    return v;
  }
}
template <int LANES>
AFFUSE_DEVICE float team_max(float v, double* room) {
  if constexpr (LANES > 32) {
    return block_max<LANES>(v, reinterpret_cast<float*>(room));
  } else {
#pragma unroll
    for (unsigned m = LANES / 2; m; m /= 2) {
      const float other = shuffle_xor(v, m);
      v = other > v ? other : v;
    }
    return v;
  }
}

// One row of a team of LANES threads. A thread has K packs of N neighbours, or for K = 0 as many as there are.
template <int LANES, int N, int K>
struct Row {
  double* room;
  int64_t index, at;  // of the row; of its first element
  int64_t columns;
  bool there;
  bool first;  // thread of the team

  template <class F>
  AFFUSE_DEVICE void each(F f) const {  // f(k, column) for the packs that this thread has
    const int64_t end = there ? columns : 0;
    if constexpr (K > 0) {
#pragma unroll
      for (int k = 0; k < K; ++k) {
        const int c = (k * LANES + int(threadIdx.x % LANES)) * N;
        if (c < end) f(k, c);
      }
    } else {
#pragma unroll 2
      for (int64_t c = int64_t(threadIdx.x % LANES) * N; c < end; c += LANES * N) f(0, c);
    }
  }
  template <class T>
  AFFUSE_DEVICE T sum(T v) const { return team_sum<LANES>(v, room); }
  AFFUSE_DEVICE float max(float v) const { return team_max<LANES>(v, room); }
  // Whether it holds for any row that must keep in step with this one: for threads to leave a row's common way together.
  AFFUSE_DEVICE bool any(bool v) const { return team_max<LANES < 32 ? 32 : LANES>(v ? 1.0f : 0.0f, room) > 0.0f; }
};

// A row's elements as a team has them: in registers, or for K = 0 where they came from.
template <int N, int K>
struct Kept {
  const float* from;
  Pack<N> v[K ? K : 1];
  AFFUSE_DEVICE explicit Kept(const float* row) : from(row) {}
  AFFUSE_DEVICE Pack<N> first(int k, int64_t c) {
    v[K ? k : 0] = get<N>(from + c);
    return v[K ? k : 0];
  }
  AFFUSE_DEVICE Pack<N> again(int k, int64_t c) const {
    if constexpr (K > 0) return v[k];
    else return get<N>(from + c);
  }
};

template <int LANES, int N, int K, class F>
AFFUSE_GLOBAL(kRowThreads, 3) rows_kernel(F f, int64_t rows, int64_t columns) {
  constexpr int teams = kRowThreads / LANES;
  Shared shared;
  double* const room = shared.take<double>(kRowThreads / 32);
  for (int64_t first = int64_t(blockIdx.x) * teams; first < rows; first += int64_t(gridDim.x) * teams) {
    const int64_t r = first + int64_t(threadIdx.x / LANES);
    f(Row<LANES, N, K>{room, r, r * columns, columns, r < rows, threadIdx.x % LANES == 0});
  }
}

template <int LANES, int N, int K, class F>
void rows_as(Queue& queue, const char* name, int64_t rows, int64_t columns, const F& f) {
  constexpr int teams = kRowThreads / LANES;
  const int64_t blocks = (rows + teams - 1) / teams, most = int64_t(queue.processors) * 16;
  launch(name, rows_kernel<LANES, N, K, F>, queue, Grid{blocks < most ? blocks : most}, kRowThreads,
         SharedBytes().take<double>(kRowThreads / 32).bytes, f, rows, columns);
}
template <int N, class F>
void rows_of(Queue& queue, const char* name, int64_t rows, int64_t columns, const F& f) {
  const int64_t packs = (columns + N - 1) / N;
  if (packs <= 8) rows_as<8, N, 1>(queue, name, rows, columns, f);
  else if (packs <= 32) rows_as<32, N, 1>(queue, name, rows, columns, f);
  else if (packs <= 128) rows_as<32, N, 4>(queue, name, rows, columns, f);
  else if (packs <= 1024) rows_as<256, N, 4>(queue, name, rows, columns, f);
  else rows_as<256, N, 0>(queue, name, rows, columns, f);
}
// f for all rows of `columns` elements each. `wide`: fours of every row lie at multiples of 16 bytes.
template <class F>
void rows(Queue& queue, const char* name, int64_t rows, int64_t columns, bool wide, const F& f) {
  if (wide) rows_of<4>(queue, name, rows, columns, f);
  else rows_of<1>(queue, name, rows, columns, f);
}

}  // namespace affuse::cuda
