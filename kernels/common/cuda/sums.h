// Sums over all elements of a buffer, in an order that the number of elements alone decides: one block adds a chunk (every
// thread its own elements, then a tree of float64), and one block adds the chunks. Nothing returns to the host.
//
//   struct Squares {
//     using Sum = float;                    // of a thread's share of a chunk, at most kSumChunk/kSumThreads elements
//     static constexpr int kSums = 1;
//     template <int N> AFFUSE_DEVICE void add(int64_t i, Sum (&s)[kSums]) const { … }   // elements [i, i + N), N = 4 or 1
//     AFFUSE_DEVICE void finish(const double (&total)[kSums]) const { … }                // called once, by one thread
//   };
//   long_sums(queue, "squares", n, wide, Squares{…}, workspace);   // workspace: long_sums_workspace<Squares>(n) bytes
#pragma once
#include "reduce.h"
#include "stream.h"

namespace affuse::cuda {

constexpr int kSumThreads = 256;
constexpr int64_t kSumChunk = 8192;  // elements; up to here one launch does it

inline int64_t sum_chunks_of(int64_t n) { return n > kSumChunk ? (n + kSumChunk - 1) / kSumChunk : 1; }

template <class F>
size_t long_sums_workspace(int64_t n) {
  return n > kSumChunk ? size_t(sum_chunks_of(n)) * F::kSums * sizeof(double) : 0;
}

// partial [chunks][kSums]; null: there is one chunk, and this is all.
template <int N, class F>
AFFUSE_GLOBAL(kSumThreads, 4) sum_chunks(F f, int64_t n, int64_t chunks, double* partial) {
  Shared shared;
  double* const room = shared.take<double>(kSumThreads / 32);
  for (int64_t chunk = blockIdx.x; chunk < chunks; chunk += gridDim.x) {
    typename F::Sum s[F::kSums] = {};
    const int64_t from = chunk * kSumChunk, end = n - from < kSumChunk ? n : from + kSumChunk;
#pragma unroll 2
    for (int64_t i = from + int64_t(threadIdx.x) * N; i < end; i += kSumThreads * N) {
      if (N == 1 || i + N <= end) {
        f.template add<N>(i, s);
      } else {
        for (int64_t k = i; k < end; ++k) f.template add<1>(k, s);
      }
    }
    double total[F::kSums];
#pragma unroll
    for (int k = 0; k < F::kSums; ++k) total[k] = block_sum<kSumThreads>(double(s[k]), room);
    if (threadIdx.x != 0) continue;
    if (!partial) f.finish(total);
#pragma unroll
    for (int k = 0; k < F::kSums; ++k)
      if (partial) partial[chunk * F::kSums + k] = total[k];
  }
}

template <class F>
AFFUSE_GLOBAL(kSumThreads, 1) sum_finish(F f, int64_t chunks, const double* partial) {
  Shared shared;
  double* const room = shared.take<double>(kSumThreads / 32);
  double total[F::kSums] = {};
  for (int64_t chunk = threadIdx.x; chunk < chunks; chunk += kSumThreads)
#pragma unroll
    for (int k = 0; k < F::kSums; ++k) total[k] += partial[chunk * F::kSums + k];
#pragma unroll
  for (int k = 0; k < F::kSums; ++k) total[k] = block_sum<kSumThreads>(total[k], room);
  if (threadIdx.x == 0) f.finish(total);
}

template <class F>
void long_sums(Queue& queue, const char* name, int64_t n, bool wide, const F& f, void* workspace) {
  const int64_t chunks = sum_chunks_of(n), most = int64_t(queue.processors) * 16;
  double* const partial = chunks > 1 ? static_cast<double*>(workspace) : nullptr;
  const size_t shared = SharedBytes().take<double>(kSumThreads / 32).bytes;
  const Grid grid{chunks < most ? chunks : most};
  if (wide) launch(name, sum_chunks<4, F>, queue, grid, kSumThreads, shared, f, n, chunks, partial);
  else launch(name, sum_chunks<1, F>, queue, grid, kSumThreads, shared, f, n, chunks, partial);
  if (chunks > 1) launch(name, sum_finish<F>, queue, Grid{}, kSumThreads, shared, f, chunks, partial);
}

}  // namespace affuse::cuda
