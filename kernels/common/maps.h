// Maps: batches of images that convolution, pooling and LRN share.
//
// layout nchw: x [B,C,H,W]; nhwc (channel-last): x [B,H,W,C]. The mathematics is the same, only the order in memory
// differs.
//
// widths, int32 [B], says how many columns of each item are its own: columns w >= widths[b] are padding. They are never
// read (NaN is allowed there), count as the zeros beyond an edge do, and get gradient 0. An output column belongs to an
// item if the item alone, cut to its width, would have it; every other one is 0, and the gradient that arrives there is
// ignored. So an item inside a padded batch gives exactly what it gives alone.
#pragma once
#include "op.h"

namespace affuse {

struct MapLayout {  // values of the attribute
  enum : int { nchw, nhwc };
};

struct Maps {
  int64_t B, C, H, W;
  bool last;  // channel-last
  AFFUSE_INLINE int64_t at(int64_t b, int64_t c, int64_t h, int64_t w) const {
    return last ? ((b * H + h) * W + w) * C + c : ((b * C + c) * H + h) * W + w;
  }
};

// static, not inline: kernel files of different ISA levels include this, and a merged copy could be the wrong one.
[[maybe_unused]] static Maps maps_of(const TensorDesc& x, int64_t layout) {
  if (layout == MapLayout::nhwc) return {x.dim[0], x.dim[3], x.dim[1], x.dim[2], true};
  return {x.dim[0], x.dim[1], x.dim[2], x.dim[3], false};
}

[[maybe_unused]] static Maps resized(Maps m, int64_t C, int64_t H, int64_t W) { return {m.B, C, H, W, m.last}; }

// How many windows of `size` at distance `stride` lie in n elements with `pad` zeros on either side; none if there are
// no elements.
[[maybe_unused]] static int64_t window_count(int64_t n, int64_t size, int64_t stride, int64_t pad) {
  return n <= 0 || n + 2 * pad < size ? 0 : (n + 2 * pad - size) / stride + 1;
}

[[maybe_unused]] static int64_t own_width(const int32_t* widths, int64_t b, int64_t W) { return widths ? widths[b] : W; }

// Attributes of the pooling operators; stride 0 means size.
struct PoolAttrs {
  int64_t size, stride;
  bool last;
};
[[maybe_unused]] static PoolAttrs pool_attrs(const Attr* a) {
  return {a[0].i, a[1].i ? a[1].i : a[0].i, a[2].i == MapLayout::nhwc};
}
[[maybe_unused]] static Maps pooled(const Maps& m, const PoolAttrs& a) {
  return resized(m, m.C, window_count(m.H, a.size, a.stride, 0), window_count(m.W, a.size, a.stride, 0));
}

// yWidths of an operator whose windows are (size, stride, pad).
[[maybe_unused]] static void write_widths(const Tensor& out, const Tensor& widths, int64_t size, int64_t stride,
                                          int64_t pad) {
  if (!out.data) return;
  for (int64_t b = 0; b < out.dim[0]; ++b) out.i32()[b] = int32_t(window_count(widths.i32()[b], size, stride, pad));
}

}  // namespace affuse
