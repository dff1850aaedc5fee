#include "../common/stream.h"
#include "grad_norm.h"

namespace affuse::AFFUSE_ISA {
namespace {

// Half as many numbers as Vec holds: vectors wider than the registers are taken apart lane by lane.
constexpr int64_t kPlaceAhead = 256;  // floats
constexpr int kHalf = kLanes / 2;
typedef float Narrow __attribute__((vector_size(sizeof(Vec) / 2)));
typedef double Wide __attribute__((vector_size(sizeof(Vec))));

AFFUSE_INLINE Wide widen(const float* p) {
  Narrow x;
  __builtin_memcpy(&x, p, sizeof(x));
  return __builtin_convertvector(x, Wide);
}

// At four places at once: more requests to memory are under way than along one row of addresses (stream.h).
double sum_of_squares(const float* g, int64_t n) {
  constexpr int kPlaces = 4, kEach = 2;
  Wide sums[kPlaces][kEach] = {};
  const int64_t part = n / (kPlaces * kEach * kHalf) * (kEach * kHalf);
  for (int64_t i = 0; i < part; i += kEach * kHalf) {
    for (int p = 0; p < kPlaces; ++p) {
      const float* from = g + p * part + i;
      ask_to_read(from + kPlaceAhead, kEach * kHalf);
      for (int k = 0; k < kEach; ++k) {
        const Wide x = widen(from + k * kHalf);
        sums[p][k] += x * x;
      }
    }
  }
  Wide all = {};
  for (int p = 0; p < kPlaces; ++p) all += sums[p][0] + sums[p][1];
  double total = 0;
  for (int k = 0; k < kHalf; ++k) total += all[k];
  for (int64_t i = kPlaces * part; i < n; ++i) total += double(g[i]) * double(g[i]);
  return total;
}

}  // namespace

void grad_norm_forward(const OpCall& call) {
  const int64_t N = call.in[0].count(), tasks = (N + kGradNormChunk - 1) / kGradNormChunk;
  const float* g = call.in[0].f32();
  double* partial = static_cast<double*>(call.workspace);
  parallel(*call.workers, tasks, [&](int64_t task, int) {
    const int64_t from = task * kGradNormChunk;
    partial[task] = sum_of_squares(g + from, N - from < kGradNormChunk ? N - from : kGradNormChunk);
  });
  double sum = 0;
  for (int64_t t = 0; t < tasks; ++t) sum += partial[t];
  call.out[0].f32()[0] = float(__builtin_sqrt(sum));
}

void clip_by_norm_forward(const OpCall& call) {
  const int64_t N = call.in[0].count();
  const float* g = call.in[0].f32();
  float* y = call.out[0].f32();
  const double norm = double(call.in[1].f32()[0]), most = call.attr[0].f;
  const Vec factor = set1(norm <= most ? 1.0f : float(most / norm));
  parallel(*call.workers, (N + kGradNormChunk - 1) / kGradNormChunk, [&](int64_t task, int) {
    const int64_t from = task * kGradNormChunk, count = N - from < kGradNormChunk ? N - from : kGradNormChunk;
    for_stream(count, g + from, nullptr, y + from,
               [&](int64_t i, auto n) AFFUSE_INLINE_BODY { put(y + from + i, get(g + from + i, n) * factor, n); });
  });
}

}  // namespace affuse::AFFUSE_ISA
