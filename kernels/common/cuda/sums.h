// Sums over all elements of a buffer, in an order that the number of elements alone decides: one block adds a part of it
// (every thread its own elements, chunk after chunk, then a tree of float64), and one block adds the parts. Nothing
// returns to the host.
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
constexpr int64_t kSumChunk = 8192;  // elements that a block adds in F::Sum; up to here one launch does it
// Elements of a block: more of them in long buffers, so that it seldom stops to reduce, as long as a thousand blocks are
// left.
inline int64_t sum_part_of(int64_t n) {
  const int64_t chunks = n / (kSumChunk * 1024);
  return kSumChunk * (chunks < 1 ? 1 : chunks < 8 ? chunks : 8);
}
inline int64_t sum_parts_of(int64_t n) { return n > kSumChunk ? (n + sum_part_of(n) - 1) / sum_part_of(n) : 1; }

template <class F>
size_t long_sums_workspace(int64_t n) {
  return n > kSumChunk ? size_t(sum_parts_of(n)) * F::kSums * sizeof(double) : 0;
}

// partial [parts][kSums]; null: there is one part, and this is all.
template <int N, class F>
AFFUSE_GLOBAL(kSumThreads, 4) sum_parts(F f, int64_t n, int64_t part, int64_t parts, double* partial) {
  Shared shared;
  double* const room = shared.take<double>(kSumThreads / 32);
  for (int64_t index = blockIdx.x; index < parts; index += gridDim.x) {
    const int64_t first = index * part, last = n - first < part ? n : first + part;
    double total[F::kSums] = {};
    for (int64_t from = first; from < last; from += kSumChunk) {
      typename F::Sum s[F::kSums] = {};
      const int64_t end = last - from < kSumChunk ? last : from + kSumChunk;
#pragma unroll 2
      for (int64_t i = from + int64_t(threadIdx.x) * N; i < end; i += kSumThreads * N) {
        if (N == 1 || i + N <= end) {
          f.template add<N>(i, s);
        } else {
          for (int64_t k = i; k < end; ++k) f.template add<1>(k, s);
        }
      }
#pragma unroll
      for (int k = 0; k < F::kSums; ++k) total[k] += double(s[k]);
    }
#pragma unroll
    for (int k = 0; k < F::kSums; ++k) total[k] = block_sum<kSumThreads>(total[k], room);
    if (threadIdx.x != 0) continue;
    if (!partial) f.finish(total);
#pragma unroll
    for (int k = 0; k < F::kSums; ++k)
      if (partial) partial[index * F::kSums + k] = total[k];
  }
}

template <class F>
AFFUSE_GLOBAL(kSumThreads, 1) sum_finish(F f, int64_t parts, const double* partial) {
  Shared shared;
  double* const room = shared.take<double>(kSumThreads / 32);
  double total[F::kSums] = {};
  for (int64_t index = threadIdx.x; index < parts; index += kSumThreads)
#pragma unroll
    for (int k = 0; k < F::kSums; ++k) total[k] += partial[index * F::kSums + k];
#pragma unroll
  for (int k = 0; k < F::kSums; ++k) total[k] = block_sum<kSumThreads>(total[k], room);
  if (threadIdx.x == 0) f.finish(total);
}

template <int N, class F>
void long_sums_of(Queue& queue, const char* name, int64_t n, const F& f, void* workspace) {
  const int64_t part = sum_part_of(n), parts = sum_parts_of(n), most = int64_t(queue.processors) * 16;
  double* const partial = parts > 1 ? static_cast<double*>(workspace) : nullptr;
  const size_t shared = SharedBytes().take<double>(kSumThreads / 32).bytes;
  const Grid grid{parts < most ? parts : most};
  launch(name, sum_parts<N, F>, queue, grid, kSumThreads, shared, f, n, part, parts, partial);
  if (parts > 1) launch(name, sum_finish<F>, queue, Grid{}, kSumThreads, shared, f, parts, partial);
}
template <class F>
void long_sums(Queue& queue, const char* name, int64_t n, bool wide, const F& f, void* workspace) {
  if (wide) long_sums_of<4>(queue, name, n, f, workspace);
  else long_sums_of<1>(queue, name, n, f, workspace);
}

}  // namespace affuse::cuda
