// The widths that come out of a window's walk over maps (kernels/common/maps.h): convolution and pooling.
#pragma once
#include "stream.h"

namespace affuse::cuda {

// yWidths: the columns of y that are each item's own.
struct WindowWidths {
  const int32_t* widths;
  int32_t* out;
  int64_t size, stride, pad;
  template <int N>
  AFFUSE_DEVICE void operator()(int64_t b) const {
    const int64_t n = widths[b];
    out[b] = int32_t(n <= 0 || n + 2 * pad < size ? 0 : (n + 2 * pad - size) / stride + 1);
  }
};
inline void write_widths(Queue& queue, const Tensor& out, const Tensor& widths, int64_t size, int64_t stride, int64_t pad) {
  if (out.data) each_of<1, 4>(queue, "yWidths", out.dim[0], WindowWidths{widths.i32(), out.i32(), size, stride, pad});
}

}  // namespace affuse::cuda
