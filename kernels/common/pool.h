// The loops of max_pool2d and avg_pool2d, for files compiled once per ISA level (cpu.cc).
//
// A Policy gives a window's value:  Vec start(); Vec meet(Vec so_far, Vec element); Vec finish(Vec).
#pragma once
#include "deal.h"
#include "maps.h"
#include "stream.h"

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

constexpr int64_t kColumns = 1024;  // of a plane's row at a time, >= size
constexpr int64_t kDealt = 2 * kColumns + 4 * kLanes;

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
  // In planes: down the columns first, then along what that gave, dealt into phases: windows side by side are a vector.
  const int64_t step = (kColumns - size) / stride + 1;  // windows at a time
  parallel(*call.workers, p.y.B * C, [&](int64_t plane, int) {
    float column[kColumns + kLanes], dealt[kDealt];
    const int64_t own = p.width(plane / C);
    for (int64_t h = 0; h < p.y.H; ++h) {
      const float* x = x0 + (plane * p.x.H + h * stride) * p.x.W;
      float* y = y0 + (plane * p.y.H + h) * p.y.W;
      for (int64_t w0 = 0; w0 < own; w0 += step) {
        const int64_t count = own - w0 < step ? own - w0 : step, wide = (count - 1) * stride + size;
        for_lanes(wide, [&](int64_t c, int n) {
          const float* from = x + w0 * stride + c;
          prefetch(from + kRowAhead);
          Vec v = policy.start();
          for (int64_t i = 0; i < size; ++i) v = policy.meet(v, get(from + i * p.x.W, n));
          store(column + c, v);
        });
        const int64_t pitch = stride == 1 ? 0 : (wide + stride - 1) / stride + (stride == 2 ? 2 * kLanes : 0);
        if (stride > 1) deal_row(column, wide, stride, pitch, dealt);
        const float* const phases = stride > 1 ? dealt : column;
        for_lanes(count, [&](int64_t w, int n) {
          Vec v = policy.start();
          for (int64_t j = 0, phase = 0, at = w; j < size; ++j) {
            v = policy.meet(v, get(phases + phase * pitch + at, n));
            if (++phase == stride) phase = 0, ++at;
          }
          put(y + w0 + w, policy.finish(v), n);
        });
      }
      clear(y + own, p.y.W - own);
    }
  });
}

// The backward of usual windows in a plane, its rows dealt into phases. Rows of x are dealt when the first window reaches
// them, those of dx put together when the last one has. A row of windows is looked at first, kLanes of them at a time, and
// then each row of dx fetches its share: an element's sum is in row-major order of the windows, as it is window by window.
//
// A Chooser gives  Vec chosen(x, at, w, size): which element of the windows from w on takes the gradient, element (i, j)
// of them being x[i][at[j] + w];  and  Vec add(Vec sum, Vec chosen, Vec dy, int number): with what element i * size + j
// gets.
struct Dealt {
  static constexpr int kMost = 8;              // size and stride
  static constexpr int64_t kFloats = 1 << 12;  // of x's rows, and of dx's
  static bool suits(const Pool& p) {
    const int64_t size = p.a.size, stride = p.a.stride;
    return size <= kMost && stride <= kMost && size * (p.x.W + stride + 2 * kLanes * stride) <= kFloats;
  }
};
template <class Chooser>
AFFUSE_INLINE void dealt_backward(const Pool& p, int64_t size, int64_t stride, int64_t own, const float* x, const float* dy,
                                  float* dx, const Chooser& chooser) {
  const int64_t W = p.x.W;
  const int64_t pitch = (W + stride - 1) / stride + 2 * kLanes, slot = stride * pitch;
  // In front of window 0 and behind the last one: windows without a gradient.
  constexpr int64_t kEdge = Dealt::kMost, kWindows = Dealt::kFloats + 2 * kLanes + kEdge;
  float room_x[Dealt::kFloats], room_dx[Dealt::kFloats], chosen[kWindows], gradient[kWindows];
  const int64_t cleared = kEdge + own + size + kLanes;
  clear(room_x, size * slot), clear(chosen, cleared), clear(gradient, cleared);
  const float* rows[Dealt::kMost];
  int64_t at[Dealt::kMost];
  for (int64_t j = 0; j < size; ++j) at[j] = j % stride * pitch + j / stride;
  const int64_t read = own > 0 ? (own - 1) * stride + size : 0;  // the columns beyond are not to be read
  int64_t begun = 0, done = 0;                                   // rows of x and dx, row r in slot r % size
  const auto finish = [&](int64_t end) {
    for (; done < end; ++done)
      if (done < begun) undeal_row(room_dx + done % size * slot, W, stride, pitch, dx + done * W);
      else clear(dx + done * W, W);
  };
  for (int64_t h = 0; h < p.y.H; ++h) {
    const int64_t top = h * stride;
    finish(top);
    if (begun < top) begun = top;
    for (; begun < top + size; ++begun) {
      if (Chooser::reads_x) deal_row(x + begun * W, read, stride, pitch, room_x + begun % size * slot);
      clear(room_dx + begun % size * slot, slot);
    }
    for (int64_t i = 0; i < size; ++i) rows[i] = room_x + (top + i) % size * slot;
    for_lanes(own, [&](int64_t w, int n) {
      store(chosen + kEdge + w, chooser.chosen(rows, at, w, size));
      store(gradient + kEdge + w, get(dy + h * p.y.W + w, n));
    });
    for (int64_t i = 0; i < size; ++i)
      for (int64_t phase = 0; phase < stride && phase < size; ++phase) {
        float* const d = room_dx + (top + i) % size * slot + phase * pitch;
        const int64_t last = (size - 1 - phase) / stride;  // element q of the phase lies in the windows q - last … q
        for (int64_t q = 0; q < own + last; q += kLanes) {
          Vec sum = load(d + q);
          for (int64_t back = last; back >= 0; --back) {
            const int64_t w = kEdge + q - back;
            sum = chooser.add(sum, load(chosen + w), load(gradient + w), int(i * size + phase + back * stride));
          }
          store(d + q, sum);
        }
      }
  }
  finish(p.x.H);
}

// Hands each window with its gradient to body(x, dx, dy, n): pointers to the window's first element, n lanes of channels
// (0: one element of a plane). A task owns its channels of an item; windows come in row-major order. Rows of dx are
// cleared when the first window reaches them, so that they are still in the cache when the others do. Usual windows of
// planes go to the chooser instead.
template <class F, class Chooser>
AFFUSE_INLINE void pool_backward(const OpCall& call, const Pool& p, F&& body, const Chooser& chooser) {
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
  const bool dealt = Dealt::suits(p);
  parallel(*call.workers, p.x.B * C, [&](int64_t plane, int) {
    const int64_t own = p.width(plane / C);
    if (dealt) {
      const float* dy = dy0 + plane * p.y.H * p.y.W;
      const auto go = [&](int64_t size, int64_t step) AFFUSE_INLINE_BODY {
        dealt_backward(p, size, step, own, x0 + plane * area, dy, dx0 + plane * area, chooser);
      };
      if (p.a.size == 3 && stride == 2) go(3, 2);  // unrolled
      else if (p.a.size == 2 && stride == 2) go(2, 2);
      else go(p.a.size, stride);
      return;
    }
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
