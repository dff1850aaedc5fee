// Pooling over square windows on a device: max_pool2d and avg_pool2d.
//
// A thread has one window (or four neighbouring channels of it, channel-last); going back, one element of x, whose
// gradient is collected from the windows that hold it, in row-major order: nothing is added up in memory. Neighbouring
// threads have neighbouring addresses in either layout; what windows share comes from the caches.
#pragma once
#include "../maps.h"
#include "divide.h"
#include "stream.h"
#include "widths.h"

namespace affuse::cuda {

constexpr int kPoolBlocks = 4;  // of a multiprocessor

struct Pool {
  Maps x, y;
  int32_t size, stride;
  const int32_t* widths;
  Divider y_width, y_height, x_width, x_height, channels, stride_of;

  AFFUSE_DEVICE int64_t width(int64_t b) const { return widths ? widths[b] : x.W; }
  // Whether column w of y is b's own.
  AFFUSE_DEVICE bool own(int64_t b, int64_t w) const { return w * stride + size <= width(b); }

  struct Place {  // plane: the item's offset and, where planes lie apart, the channel's, in planes
    int64_t b, plane, h, w, c;
  };
  template <bool LAST>
  AFFUSE_DEVICE Place place(int64_t i, const Divider& by_width, const Divider& by_height) const {
    int64_t c = 0;
    if (LAST) {
      const Parts p = channels.split(i);
      i = p.quotient, c = p.rest;
    }
    const Parts column = by_width.split(i), row = by_height.split(column.quotient);
    return {LAST ? row.quotient : channels.quotient(row.quotient), row.quotient, row.rest, column.rest, c};
  }
  template <bool LAST>
  AFFUSE_DEVICE Place window(int64_t i) const { return place<LAST>(i, y_width, y_height); }
  // Offset of the first element of a window; of its next column and next row.
  template <bool LAST>
  AFFUSE_DEVICE int64_t first(const Place& p) const {
    const int64_t at = (p.plane * x.H + p.h * stride) * x.W + p.w * stride;
    return LAST ? at * x.C + p.c : at;
  }
  template <bool LAST>
  AFFUSE_DEVICE int64_t right() const { return LAST ? x.C : 1; }
};

inline Pool pool_of(const OpCall& call) {
  const PoolAttrs a = pool_attrs(call.attr);
  const Maps x = maps_of(call.in[0], call.attr[2].i), y = pooled(x, a);
  const int64_t most = call.in[0].count();  // y has no more elements than x unless both are empty
  return {x, y, int32_t(a.size), int32_t(a.stride), call.in[1].i32(), divider(y.W, most), divider(y.H, most),
          divider(x.W, most), divider(x.H, most), divider(x.C, most), divider(a.stride, most)};
}

// body(element, its number) for the window's elements at x; SIZE 0: the size is known at run time only.
template <int SIZE, int N, class F>
AFFUSE_DEVICE void over_window(const float* x, int size, int64_t right, int64_t down, F&& body) {
  if constexpr (SIZE > 0) {
#pragma unroll(N == 4 ? 1 : SIZE)  // a row of four channels each is enough to have on the way
    for (int i = 0; i < SIZE; ++i)
#pragma unroll
      for (int j = 0; j < SIZE; ++j) body(get<N>(x + i * down + j * right), i * SIZE + j);
  } else {
    for (int i = 0; i < size; ++i, x += down)
      for (int j = 0; j < size; ++j) body(get<N>(x + j * right), i * size + j);
  }
}

// A policy's value for every window: first(), meet(so far, element), finish(value).
template <class Policy, bool LAST, int SIZE>
struct Pooled {
  Pool p;
  Policy policy;
  const float* x;
  float* y;
  template <int N>
  AFFUSE_DEVICE void operator()(int64_t i) const {
    const Pool::Place at = p.window<LAST>(i);
    if (p.widths && !p.own(at.b, at.w)) return put(y + i, fill<N>(0.0f));
    Pack<N> v = fill<N>(policy.first());
    const Policy f = policy;
    over_window<SIZE, N>(x + p.first<LAST>(at), p.size, p.right<LAST>(), p.x.W * p.right<LAST>(),
                         [&](const Pack<N>& e, int) { v = map2(v, e, [f](float a, float b) { return f.meet(a, b); }); });
    put(y + i, v.map([f](float a) { return f.finish(a); }));
  }
};

// body.add(sum, window's offset in y, number of the element in it) over the windows that hold an element of x.
template <class Body, bool LAST>
struct Unpooled {
  Pool p;
  Body body;
  float* dx;
  template <int N>
  AFFUSE_DEVICE void operator()(int64_t i) const {
    const Pool::Place at = p.place<LAST>(i, p.x_width, p.x_height);
    Pack<N> sum = fill<N>(0.0f);
    const int64_t width = p.width(at.b);
    const int64_t row0 = at.h < p.size ? 0 : p.stride_of.quotient(at.h - p.size) + 1;
    const int64_t column0 = at.w < p.size ? 0 : p.stride_of.quotient(at.w - p.size) + 1;
    int64_t row1 = p.stride_of.quotient(at.h), column1 = p.stride_of.quotient(at.w);
    if (row1 >= p.y.H) row1 = p.y.H - 1;
    for (int64_t h = row0; h <= row1; ++h)
#pragma unroll 2
      for (int64_t w = column0; w <= column1 && w * p.stride + p.size <= width; ++w) {
        const int64_t from = (at.plane * p.y.H + h) * p.y.W + w;
        const int number = (int(at.h) - int(h) * p.stride) * p.size + (int(at.w) - int(w) * p.stride);
        body.template add<N>(sum, LAST ? from * p.y.C + at.c : from, number);
      }
    put(dx + i, sum);
  }
};

// Four channels at a time where they lie beside each other.
inline bool pools_wide(const Pool& p, const void* a, const void* b) {
  return p.x.last && p.x.C % 4 == 0 && aligned(a) && aligned(b);
}

// body(std::integral_constant<int, SIZE>) with the usual sizes known to the compiler.
template <class F>
void with_size(int size, F&& body) {
  if (size == 2) body(std::integral_constant<int, 2>());
  else if (size == 3) body(std::integral_constant<int, 3>());
  else body(std::integral_constant<int, 0>());
}

template <class Policy>
void pool_forward(Queue& queue, const char* name, const OpCall& call, const Policy& policy) {
  const Pool p = pool_of(call);
  write_widths(queue, call.out[1], call.in[1], p.size, p.stride, 0);
  const float* x = call.in[0].f32();
  float* y = call.out[0].f32();
  if (!y) return;
  with_size(p.size, [&](auto size) {
    constexpr int kSize = decltype(size)::value;
    const int64_t n = call.out[0].count();
    if (p.x.last) each<kPoolBlocks>(queue, name, n, pools_wide(p, x, y), Pooled<Policy, true, kSize>{p, policy, x, y});
    else each_of<1, kPoolBlocks>(queue, name, n, Pooled<Policy, false, kSize>{p, policy, x, y});
  });
}

template <class Body>
void pool_backward(Queue& queue, const char* name, const OpCall& call, const Pool& p, const Body& body) {
  float* dx = call.out[0].f32();
  const int64_t n = call.out[0].count();
  if (p.x.last) each<kPoolBlocks>(queue, name, n, pools_wide(p, dx, call.in[2].data), Unpooled<Body, true>{p, body, dx});
  else each_of<1, kPoolBlocks>(queue, name, n, Unpooled<Body, false>{p, body, dx});
}

}  // namespace affuse::cuda
