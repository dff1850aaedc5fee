#include "../common/math.h"
#include "../common/stream.h"
#include "activation.h"

namespace affuse::AFFUSE_ISA {
namespace {

constexpr int64_t kChunk = 16384;  // elements per task

// Calls body(i, n) for all elements; `from` is read and `to` written at them.
template <class F>
AFFUSE_INLINE void each_vector(const OpCall& call, const float* from, float* to, F&& body) {
  const int64_t N = call.in[0].count();
  parallel(*call.workers, (N + kChunk - 1) / kChunk, [&](int64_t task, int) {
    const int64_t first = task * kChunk, count = N - first < kChunk ? N - first : kChunk;
    for_stream(count, from + first, nullptr, to + first,
               [&](int64_t i, auto n) AFFUSE_INLINE_BODY { body(first + i, n); });
  });
}

}  // namespace

void activation_forward(const OpCall& call) {
  const float* x = call.in[0].f32();
  float* y = call.out[0].f32();
  switch (int(call.attr[0].i)) {
    case ActivationKind::relu:
      return each_vector(call, x, y, [&](int64_t i, auto n) AFFUSE_INLINE_BODY {
        put(y + i, max(zero(), get(x + i, n)), n);
      });
    case ActivationKind::gelu:
      return each_vector(call, x, y, [&](int64_t i, auto n) AFFUSE_INLINE_BODY { put(y + i, gelu(get(x + i, n)), n); });
    case ActivationKind::tanh:
      return each_vector(call, x, y, [&](int64_t i, auto n) AFFUSE_INLINE_BODY { put(y + i, tanh(get(x + i, n)), n); });
    case ActivationKind::sigmoid:
      return each_vector(call, x, y, [&](int64_t i, auto n) AFFUSE_INLINE_BODY { put(y + i, sigmoid(get(x + i, n)), n); });
    default:
      return each_vector(call, x, y, [&](int64_t i, auto n) AFFUSE_INLINE_BODY { put(y + i, get(x + i, n), n); });
  }
}

void activation_backward(const OpCall& call) {
  const float *x = call.in[0].f32(), *y = call.in[1].f32(), *dy = call.in[2].f32();
  float* dx = call.out[0].f32();
  const Vec one = set1(1.0f);
  switch (int(call.attr[0].i)) {
    case ActivationKind::relu:
      return each_vector(call, dy, dx, [&](int64_t i, auto n) AFFUSE_INLINE_BODY {
        put(dx + i, keep(lt(zero(), get(x + i, n)), get(dy + i, n)), n);
      });
    case ActivationKind::gelu:
      return each_vector(call, dy, dx, [&](int64_t i, auto n) AFFUSE_INLINE_BODY {
        put(dx + i, get(dy + i, n) * gelu_grad(get(x + i, n)), n);
      });
    case ActivationKind::tanh:
      return each_vector(call, dy, dx, [&](int64_t i, auto n) AFFUSE_INLINE_BODY {
        const auto t = y ? get(y + i, n) : tanh(get(x + i, n));
        put(dx + i, get(dy + i, n) * fnma(t, t, one), n);
      });
    case ActivationKind::sigmoid:
      return each_vector(call, dy, dx, [&](int64_t i, auto n) AFFUSE_INLINE_BODY {
        const auto s = y ? get(y + i, n) : sigmoid(get(x + i, n));
        put(dx + i, get(dy + i, n) * (s * (one - s)), n);
      });
    default:
      return each_vector(call, dy, dx, [&](int64_t i, auto n) AFFUSE_INLINE_BODY { put(dx + i, get(dy + i, n), n); });
  }
}

}  // namespace affuse::AFFUSE_ISA
