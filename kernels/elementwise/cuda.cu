// add, mul, scale on a device. Gradients of a broadcast operand are sums over a's elements that meet one of b's: one warp
// for an element where the summed elements are neighbours in memory, else one thread for each of 32 neighbouring columns;
// always in the same order.
#include "../common/cuda/reduce.h"
#include "../common/cuda/stream.h"
#include "broadcast.h"

namespace affuse::cuda {
namespace {

struct Sum {
  template <int N>
  static AFFUSE_DEVICE Pack<N> of(const Pack<N>& a, const Pack<N>& b) { return a + b; }
};
struct Product {
  template <int N>
  static AFFUSE_DEVICE Pack<N> of(const Pack<N>& a, const Pack<N>& b) { return a * b; }
};

// Offset in b of a's element i.
AFFUSE_DEVICE int64_t meets(const Broadcast& p, int64_t i) {
  int64_t at = 0;
#pragma unroll
  for (int d = kMaxRank - 1; d >= 0; --d) {  // indexes known to the compiler keep p out of local memory
    if (d >= p.rank) continue;
    at += i % p.size[d] * p.stride_b[d];
    i /= p.size[d];
  }
  return at;
}

template <class Kind>
struct Binary {
  const float *a, *b;
  float* y;
  Broadcast p;
  bool whole, one;  // b is met element by element; one of b's meets the N neighbours
  template <int N>
  AFFUSE_DEVICE void operator()(int64_t i) const {
    const int64_t j = whole ? i : meets(p, i);
    put(y + i, Kind::of(get<N>(a + i), one ? fill<N>(b[j]) : get<N>(b + j)));
  }
};
struct Scaled {
  const float* x;
  float* y;
  float factor;
  template <int N>
  AFFUSE_DEVICE void operator()(int64_t i) const { put(y + i, get<N>(x + i) * factor); }
};
template <class Kind>
void binary(Queue& queue, const char* name, const TensorDesc& a, const TensorDesc& b, const float* x, const float* w,
            float* y) {
  const Broadcast p = broadcast_of(a, b);
  const bool wide = aligned(x) && aligned(w) && aligned(y) && (p.rank == 1 || p.size[p.rank - 1] % 4 == 0);
  const bool one = p.shared[p.rank - 1];
  each(queue, name, a.count(), wide, Binary<Kind>{x, w, y, p, p.rank == 1 && !one, one});
}

// Offset in a of position k among the dimensions of one kind, all but the last.
AFFUSE_DEVICE int64_t offset_in_a(const Broadcast& p, int64_t k, bool shared) {
  int64_t at = 0, stride = 1;
#pragma unroll
  for (int d = kMaxRank - 1; d >= 0; --d) {
    if (d >= p.rank) continue;
    if (d < p.rank - 1 && p.shared[d] == shared) at += k % p.size[d] * stride, k /= p.size[d];
    stride *= p.size[d];
  }
  return at;
}

struct Reduction {
  Broadcast p;
  int64_t kept, summed, inner;  // outer positions of either kind; the last dimension
  const float *x, *factor;      // terms x * factor; factor null: x
  float* db;
  AFFUSE_DEVICE float term(int64_t i) const { return factor ? x[i] * factor[i] : x[i]; }
};

// The last dimension is summed: one block for each kept position.
AFFUSE_GLOBAL(256, 4) reduce_rows(Reduction r) {
  Shared shared;
  float* const room = shared.take<float>(8);
  for (int64_t k = blockIdx.x; k < r.kept; k += gridDim.x) {
    const int64_t base = offset_in_a(r.p, k, false);
    float total = 0;
    for (int64_t s = 0; s < r.summed; ++s) {
      const int64_t at = base + offset_in_a(r.p, s, true);
      for (int64_t i = threadIdx.x; i < r.inner; i += 256) total += r.term(at + i);
    }
    total = block_sum<256>(total, room);
    if (threadIdx.x == 0) r.db[k] = total;
  }
}

// The last dimension is kept: 32 columns by 8 runs of the summed positions, added up in order.
AFFUSE_GLOBAL(256, 4) reduce_columns(Reduction r) {
  Shared shared;
  float* const room = shared.take<float>(8 * 32);
  const int64_t pieces = (r.inner + 31) / 32;
  for (int64_t task = blockIdx.x; task < r.kept * pieces; task += gridDim.x) {
    const int64_t k = task / pieces, column = task % pieces * 32 + lane();
    float total = 0;
    if (column < r.inner) {
      const int64_t base = offset_in_a(r.p, k, false) + column;
      for (int64_t s = warp(); s < r.summed; s += 8) total += r.term(base + offset_in_a(r.p, s, true));
    }
    room[threadIdx.x] = total;
    barrier();
    if (warp() == 0 && column < r.inner) {
      for (unsigned w = 1; w < 8; ++w) total += room[w * 32 + lane()];
      r.db[k * r.inner + column] = total;
    }
    barrier();
  }
}

void reduce_to_b(Queue& queue, const TensorDesc& a, const TensorDesc& b, const float* x, const float* factor, float* db) {
  Reduction r{broadcast_of(a, b), 1, 1, 1, x, factor, db};
  if (a.count() == 0) return each(queue, "zero", b.count(), aligned(db), Filled{db, 0.0f});
  for (int d = 0; d + 1 < r.p.rank; ++d) (r.p.shared[d] ? r.summed : r.kept) *= r.p.size[d];
  r.inner = r.p.size[r.p.rank - 1];
  const int64_t most = int64_t(queue.processors) * 16;
  const bool rows = r.p.shared[r.p.rank - 1];
  const int64_t blocks = rows ? r.kept : r.kept * ((r.inner + 31) / 32);
  const Grid grid{blocks < most ? blocks : most};
  if (rows) AFFUSE_LAUNCH(reduce_rows, queue, grid, 256, SharedBytes().take<float>(8).bytes, r);
  else AFFUSE_LAUNCH(reduce_columns, queue, grid, 256, SharedBytes().take<float>(8 * 32).bytes, r);
}

void add(const OpCall& call, Queue& queue) {
  binary<Sum>(queue, "add", call.in[0], call.in[1], call.in[0].f32(), call.in[1].f32(), call.out[0].f32());
}
void add_backward(const OpCall& call, Queue& queue) {
  const float* dy = call.in[2].f32();
  if (call.out[0].data) copy(queue, "add.backward da", call.out[0].count(), dy, call.out[0].f32());
  if (!call.out[1].data) return;
  if (call.in[0].count() == call.in[1].count()) copy(queue, "add.backward db", call.out[1].count(), dy, call.out[1].f32());
  else reduce_to_b(queue, call.in[0], call.in[1], dy, nullptr, call.out[1].f32());
}
void mul(const OpCall& call, Queue& queue) {
  binary<Product>(queue, "mul", call.in[0], call.in[1], call.in[0].f32(), call.in[1].f32(), call.out[0].f32());
}
void mul_backward(const OpCall& call, Queue& queue) {
  const float *a = call.in[0].f32(), *b = call.in[1].f32(), *dy = call.in[2].f32();
  if (call.out[0].data) binary<Product>(queue, "mul.backward da", call.in[0], call.in[1], dy, b, call.out[0].f32());
  if (!call.out[1].data) return;
  if (call.in[0].count() == call.in[1].count())
    binary<Product>(queue, "mul.backward db", call.in[0], call.in[0], dy, a, call.out[1].f32());
  else reduce_to_b(queue, call.in[0], call.in[1], dy, a, call.out[1].f32());
}
void scaled(Queue& queue, const char* name, const Tensor& x, const Tensor& y, double factor) {
  each(queue, name, x.count(), aligned(x.data) && aligned(y.data), Scaled{x.f32(), y.f32(), float(factor)});
}
void scale(const OpCall& call, Queue& queue) { scaled(queue, "scale", call.in[0], call.out[0], call.attr[0].f); }
void scale_backward(const OpCall& call, Queue& queue) {
  scaled(queue, "scale.backward", call.in[1], call.out[0], call.attr[0].f);
}

}  // namespace

AFFUSE_DEVICE_OP(kAdd, "add", &add)
AFFUSE_DEVICE_OP(kAddBackward, "add.backward", &add_backward)
AFFUSE_DEVICE_OP(kMul, "mul", &mul)
AFFUSE_DEVICE_OP(kMulBackward, "mul.backward", &mul_backward)
AFFUSE_DEVICE_OP(kScale, "scale", &scale)
AFFUSE_DEVICE_OP(kScaleBackward, "scale.backward", &scale_backward)

}  // namespace affuse::cuda
