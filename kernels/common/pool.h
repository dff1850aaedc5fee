// The loops of max_pool2d and avg_pool2d, for files compiled once per ISA level (cpu.cc).
//
// A Policy gives a window's value:  Vec start(); Vec meet(Vec so_far, Vec element); Vec finish(Vec);  and the same on
// float.
#pragma once
#include "maps.h"
#include "reduce.h"

namespace affuse::AFFUSE_ISA {
namespace {

struct Pool {
  Maps x, y;
  PoolAttrs a;
  const int32_t* widths;
  explicit AFFUSE_INLINE Pool(const OpCall& call)
      : x(maps_of(call.in[0], call.attr[2].i)), y(), a(pool_attrs(call.attr)), widths(call.in[1].i32()) {
    y = pooled(x, a);
  }
  // Columns of y that are b's own.
  AFFUSE_INLINE int64_t width(int64_t b) const { return window_count(own_width(widths, b, x.W), a.size, a.stride, 0); }
};

AFFUSE_INLINE void clear(float* p, int64_t n) {
  for_lanes(n, [&](int64_t i, int k) { put(p + i, zero(), k); });
}

template <class Policy>
AFFUSE_INLINE void pool_forward(const OpCall& call, const Policy& policy) {
  const Pool p(call);
  write_widths(call.out[1], call.in[1], p.a.size, p.a.stride, 0);
  const float* x0 = call.in[0].f32();
  float* y0 = call.out[0].f32();
  if (!y0) return;
  const int64_t C = p.x.C, size = p.a.size, stride = p.a.stride;
  if (p.x.last) {
    parallel(*call.workers, p.y.B * p.y.H, [&](int64_t row, int) {
      const int64_t b = row / p.y.H, own = p.width(b);
      const float* x = x0 + (b * p.x.H + row % p.y.H * stride) * p.x.W * C;
      float* y = y0 + row * p.y.W * C;
      for (int64_t w = 0; w < own; ++w)
        for_lanes(C, [&](int64_t c, int n) {
          Vec v = policy.start();
          for (int64_t i = 0; i < size; ++i)
            for (int64_t j = 0; j < size; ++j) v = policy.meet(v, get(x + (i * p.x.W + w * stride + j) * C + c, n));
          put(y + w * C + c, policy.finish(v), n);
        });
      clear(y + own * C, (p.y.W - own) * C);
    });
    return;
  }
  // In planes: down the columns first, in vectors, then along what that gave.
  constexpr int64_t kColumns = 1024;  // >= size
  const int64_t step = (kColumns - size) / stride + 1;
  parallel(*call.workers, p.y.B * C, [&](int64_t plane, int) {
    float column[kColumns];
    const int64_t own = p.width(plane / C);
    for (int64_t h = 0; h < p.y.H; ++h) {
      const float* x = x0 + (plane * p.x.H + h * stride) * p.x.W;
      float* y = y0 + (plane * p.y.H + h) * p.y.W;
      for (int64_t w0 = 0; w0 < own; w0 += step) {
        const int64_t count = own - w0 < step ? own - w0 : step;
        for_lanes((count - 1) * stride + size, [&](int64_t c, int n) {
          Vec v = policy.start();
          for (int64_t i = 0; i < size; ++i) v = policy.meet(v, get(x + i * p.x.W + w0 * stride + c, n));
          put(column + c, v, n);
        });
        for (int64_t w = 0; w < count; ++w) {
          float v = policy.first();
          for (int64_t j = 0; j < size; ++j) v = policy.meet(v, column[w * stride + j]);
          y[w0 + w] = policy.finish(v);
        }
      }
      clear(y + own, p.y.W - own);
    }
  });
}

// Hands each window with its gradient to body(x, dx, dy, n): pointers to the window's first element, n lanes of channels
// (0: one element of a plane). A task owns its channels of an item; windows come in row-major order. Rows of dx are
// cleared when the first window reaches them, so that they are still in the cache when the others do.
template <class F>
AFFUSE_INLINE void pool_backward(const OpCall& call, const Pool& p, F&& body) {
  const float *x0 = call.in[0].f32(), *dy0 = call.in[2].f32();
  float* dx0 = call.out[0].f32();
  const int64_t C = p.x.C, stride = p.a.stride, area = p.x.H * p.x.W;
  const auto reached = [&](int64_t h) {  // rows of x that windows up to row h of y reach
    return h == p.y.H - 1 ? p.x.H : h * stride + p.a.size;
  };
  if (p.x.last) {
    constexpr int64_t kTasks = 8, kChannels = 64;  // few items: their channels are shared out too
    const int64_t most = (C + kChannels - 1) / kChannels, want = p.x.B ? (kTasks + p.x.B - 1) / p.x.B : 1;
    const int64_t wide = want < most ? ((most + want - 1) / want) * kChannels : kChannels, blocks = (C + wide - 1) / wide;
    parallel(*call.workers, p.x.B * blocks, [&](int64_t task, int) {
      const int64_t b = task / blocks, c0 = task % blocks * wide, own = p.width(b);
      const int64_t count = C - c0 < wide ? C - c0 : wide;
      const float *x = x0 + b * area * C + c0, *dy = dy0 + b * p.y.H * p.y.W * C + c0;
      float* dx = dx0 + b * area * C + c0;
      int64_t cleared = 0;
      for (int64_t h = 0; h < p.y.H; ++h) {
        for (const int64_t end = reached(h) * p.x.W; cleared < end; ++cleared) clear(dx + cleared * C, count);
        for (int64_t w = 0; w < own; ++w) {
          const int64_t at = (h * stride * p.x.W + w * stride) * C;
          for_lanes(count, [&](int64_t c, int n) { body(x + at + c, dx + at + c, dy + (h * p.y.W + w) * C + c, n); });
        }
      }
    });
    return;
  }
  parallel(*call.workers, p.x.B * C, [&](int64_t plane, int) {
    const int64_t own = p.width(plane / C);
    clear(dx0 + plane * area, area);
    for (int64_t h = 0; h < p.y.H; ++h)
      for (int64_t w = 0; w < own; ++w) {
        const int64_t at = plane * area + h * stride * p.x.W + w * stride;
        body(x0 + at, dx0 + at, dy0 + (plane * p.y.H + h) * p.y.W + w, 0);
      }
  });
}

}  // namespace
}  // namespace affuse::AFFUSE_ISA
