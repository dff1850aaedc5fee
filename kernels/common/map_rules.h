// Rules and checks that operators over maps share (see maps.h). Not for cpu.cc.
#pragma once
#include "maps.h"
#include "shape.h"

namespace affuse {

constexpr const char* kMapShape = "[B,C,H,W]";
constexpr TensorRule kWidthsRule = {"widths", "[B]", DType::i32, true,
                                    "columns of each item that are its own, in [0, W]; absent: all"};
constexpr TensorRule kYWidthsRule = {"yWidths", "[B]", DType::i32, true,
                                     "columns of y that are each item's own; only with widths"};
constexpr AttrRule kLayoutRule = {"layout", AttrKind::choice, MapLayout::nchw, 0, 0, "nchw|nhwc",
                                  "nhwc: every map is [B,H,W,C] in memory (channel-last), the faster one"};

inline TensorDesc map_desc(const Maps& m) {
  return m.last ? tensor_desc(DType::f32, {m.B, m.H, m.W, m.C}) : tensor_desc(DType::f32, {m.B, m.C, m.H, m.W});
}

inline void check_map_shapes(const Maps& m, const TensorDesc& x, const TensorDesc& widths, Status& status) {
  expect_positive(status, "x", "C", x, m.C);
  expect_positive(status, "x", "H", x, m.H);
  expect_positive(status, "x", "W", x, m.W);
  expect_shape(status, "widths", widths, tensor_desc(DType::i32, {m.B}), "one per item of x");
}

// ERR_AFFUSE_SHAPE unless at least one window fits.
inline void check_window(const Maps& m, const TensorDesc& x, int64_t kh, int64_t kw, int64_t pad, Status& status) {
  if (m.H + 2 * pad >= kh && m.W + 2 * pad >= kw) return;
  if (pad == 0)
    return status.fail("ERR_AFFUSE_SHAPE", "expected x with H >= %lld and W >= %lld (the window), got %s", (long long)kh,
                       (long long)kw, ShapeText(x).text);
  status.fail("ERR_AFFUSE_SHAPE",
              "expected x with H + 2 pad >= %lld and W + 2 pad >= %lld (the window; pad is %lld), got %s",
              (long long)kh, (long long)kw, (long long)pad, ShapeText(x).text);
}

// validate: every width lies in [0, W].
inline void check_width_values(const Maps& m, const Tensor& widths, Status& status) {
  const auto* n = static_cast<const int32_t*>(widths.data);
  if (!n) return;
  for (int64_t b = 0; b < m.B; ++b)
    if (n[b] < 0 || n[b] > m.W)
      return status.fail("ERR_AFFUSE_LENGTH", "expected widths[%lld] in [0,%lld], got %d", (long long)b, (long long)m.W,
                         n[b]);
}

}  // namespace affuse
