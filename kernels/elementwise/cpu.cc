#include "../common/stream.h"
#include "broadcast.h"
#include "elementwise.h"

namespace affuse::AFFUSE_ISA {
namespace {

constexpr int64_t kChunk = 16384;  // elements per task, about

int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// Offset in b of outer position `o` (all merged dimensions but the last).
int64_t offset_b(const Broadcast& p, int64_t o) {
  int64_t at = 0;
  for (int d = p.rank - 2; d >= 0; --d) {
    at += o % p.size[d] * p.stride_b[d];
    o /= p.size[d];
  }
  return at;
}

// Calls body(i, j, n, step): elements [i, i+n) of a meet b[j], b[j + step], … with step 0 or 1.
template <class F>
void each_run(const OpCall& call, F&& body) {
  const Broadcast p = broadcast_of(call.in[0], call.in[1]);
  const int64_t N = call.in[0].count();
  if (N == 0) return;
  const int64_t inner = p.size[p.rank - 1], outer = N / inner, step = p.shared[p.rank - 1] ? 0 : 1;
  const int64_t rows = inner >= kChunk ? 1 : kChunk / inner, pieces = (inner + kChunk - 1) / kChunk;
  parallel(*call.workers, (outer + rows - 1) / rows * pieces, [&](int64_t task, int) {
    const int64_t first = task / pieces * rows, from = task % pieces * kChunk, n = least(inner - from, kChunk);
    for (int64_t o = first; o < least(outer, first + rows); ++o)
      body(o * inner + from, offset_b(p, o) + from * step, n, step);
  });
}

// db[j] = sum of term(i, n) over all elements i of a that meet b[j], in the order of i.
template <class F>
void reduce_to_b(const OpCall& call, float* db, F&& term) {
  const Broadcast p = broadcast_of(call.in[0], call.in[1]);
  const int64_t N = call.in[0].count(), M = call.in[1].count();
  if (N == 0) {
    for (int64_t j = 0; j < M; ++j) db[j] = 0.0f;
    return;
  }
  const int last = p.rank - 1;
  int64_t stride_a[kMaxRank], kept = 1, summed = 1;  // kept, summed: numbers of outer positions of either kind
  stride_a[last] = 1;
  for (int d = last - 1; d >= 0; --d) stride_a[d] = stride_a[d + 1] * p.size[d + 1];
  for (int d = 0; d < last; ++d) (p.shared[d] ? summed : kept) *= p.size[d];
  // Offset in a of outer position k of one kind.
  auto offset_a = [&](int64_t k, bool shared) {
    int64_t at = 0;
    for (int d = last - 1; d >= 0; --d)
      if (p.shared[d] == shared) at += k % p.size[d] * stride_a[d], k /= p.size[d];
    return at;
  };
  const int64_t inner = p.size[last];
  if (p.shared[last]) {  // one sum per kept position
    const int64_t per_task = inner * summed >= kChunk ? 1 : kChunk / (inner * summed);
    parallel(*call.workers, (kept + per_task - 1) / per_task, [&](int64_t task, int) {
      for (int64_t k = task * per_task; k < least(kept, (task + 1) * per_task); ++k) {
        const int64_t base = offset_a(k, false);
        double total = 0;
        for (int64_t s = 0; s < summed; ++s) {
          const int64_t at = base + offset_a(s, true);
          total += long_sum(inner, [&](int64_t i, int n) { return term(at + i, n); });
        }
        db[k] = float(total);
      }
    });
    return;
  }
  // Rows of kept columns, added up over the summed positions in blocks of 64 rows.
  constexpr int64_t kColumns = 128, kRows = 64;
  const int64_t pieces = (inner + kColumns - 1) / kColumns;
  parallel(*call.workers, kept * pieces, [&](int64_t task, int) {
    const int64_t k = task / pieces, from = task % pieces * kColumns, count = least(inner - from, kColumns);
    const int64_t base = offset_a(k, false) + from;
    float total[kColumns] = {}, block[kColumns];
    for (int64_t s0 = 0; s0 < summed; s0 += kRows) {
      for (float& x : block) x = 0.0f;
      for (int64_t s = s0; s < least(summed, s0 + kRows); ++s) {
        const int64_t at = base + offset_a(s, true);
        for_lanes(count, [&](int64_t i, int n) { store(block + i, load(block + i) + term(at + i, n)); });
      }
      for_lanes(kColumns, [&](int64_t i, int) { store(total + i, load(total + i) + load(block + i)); });
    }
    for (int64_t i = 0; i < count; ++i) db[k * inner + from + i] = total[i];
  });
}

void copy(const OpCall& call, const float* from, float* to) {
  const int64_t N = call.in[0].count();
  parallel(*call.workers, (N + kChunk - 1) / kChunk, [&](int64_t task, int) {
    const int64_t at = task * kChunk;
    copy_stream(least(N - at, kChunk), from + at, to + at);
  });
}

void scaled(const OpCall& call, const Tensor& from, float* to) {
  const int64_t N = from.count();
  const float* x = from.f32();
  const Vec factor = set1(float(call.attr[0].f));
  parallel(*call.workers, (N + kChunk - 1) / kChunk, [&](int64_t task, int) {
    const int64_t at = task * kChunk;
    for_stream(least(N - at, kChunk), x + at, nullptr, to + at,
               [&](int64_t i, auto n) AFFUSE_INLINE_BODY { put(to + at + i, get(x + at + i, n) * factor, n); });
  });
}

void product(const OpCall& call, const float* x, const float* b, float* y) {
  each_run(call, [&](int64_t i, int64_t j, int64_t count, int64_t step) {
    if (step == 0) {
      const Vec f = set1(b[j]);
      for_lanes(count, [&](int64_t k, int n) { put(y + i + k, get(x + i + k, n) * f, n); });
    } else {
      for_stream(count, x + i, b + j, y + i,
                 [&](int64_t k, auto n) AFFUSE_INLINE_BODY { put(y + i + k, get(x + i + k, n) * get(b + j + k, n), n); });
    }
  });
}

}  // namespace

void add_forward(const OpCall& call) {
  const float *a = call.in[0].f32(), *b = call.in[1].f32();
  float* y = call.out[0].f32();
  each_run(call, [&](int64_t i, int64_t j, int64_t count, int64_t step) {
    if (step == 0) {
      const Vec f = set1(b[j]);
      for_lanes(count, [&](int64_t k, int n) { put(y + i + k, get(a + i + k, n) + f, n); });
    } else {
      for_stream(count, a + i, b + j, y + i,
                 [&](int64_t k, auto n) AFFUSE_INLINE_BODY { put(y + i + k, get(a + i + k, n) + get(b + j + k, n), n); });
    }
  });
}

void add_backward(const OpCall& call) {
  const float* dy = call.in[2].f32();
  if (call.out[0].data) copy(call, dy, call.out[0].f32());
  if (!call.out[1].data) return;
  if (call.in[0].count() == call.in[1].count()) copy(call, dy, call.out[1].f32());
  else reduce_to_b(call, call.out[1].f32(), [&](int64_t i, int n) { return get(dy + i, n); });
}

void mul_forward(const OpCall& call) { product(call, call.in[0].f32(), call.in[1].f32(), call.out[0].f32()); }

void mul_backward(const OpCall& call) {
  const float *a = call.in[0].f32(), *dy = call.in[2].f32();
  if (call.out[0].data) product(call, dy, call.in[1].f32(), call.out[0].f32());
  if (!call.out[1].data) return;
  if (call.in[0].count() == call.in[1].count()) product(call, a, dy, call.out[1].f32());
  else
    reduce_to_b(call, call.out[1].f32(), [&](int64_t i, int n) { return get(dy + i, n) * get(a + i, n); });
}

void scale_forward(const OpCall& call) { scaled(call, call.in[0], call.out[0].f32()); }
void scale_backward(const OpCall& call) { scaled(call, call.in[1], call.out[0].f32()); }

}  // namespace affuse::AFFUSE_ISA
