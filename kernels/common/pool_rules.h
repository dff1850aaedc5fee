// Tensors, attributes, shapes and cost of pooling over square windows: max_pool2d and avg_pool2d differ in the value of a
// window alone. Not for cpu.cc.
#pragma once
#include "map_rules.h"

namespace affuse {

constexpr TensorRule kPoolInputs[] = {
    {"x", kMapShape, DType::f32, false, "H >= size, W >= size"},
    kWidthsRule,
};
constexpr TensorRule kPoolOutputs[] = {
    {"y", "[B,C,OH,OW]", DType::f32, false, "OH = floor((H - size) / stride) + 1, OW likewise"},
    kYWidthsRule,
};
constexpr TensorRule kPoolBackwardInputs[] = {
    kPoolInputs[0],
    kPoolInputs[1],
    {"dy", "[B,C,OH,OW]", DType::f32, false, ""},
};
constexpr TensorRule kPoolBackwardOutputs[] = {
    {"dx", kMapShape, DType::f32, false, ""},
};
constexpr AttrRule kPoolAttrs[] = {
    {"size", AttrKind::integer, 2, 1, 1024, nullptr, "side of the square window"},
    {"stride", AttrKind::integer, 0, 0, 1024, nullptr, "distance of windows; 0: size"},
    kLayoutRule,
};

inline Maps pool_output(const OpShape& s) { return pooled(maps_of(s.in[0], s.attr[2].i), pool_attrs(s.attr)); }

inline double pool_flops(const OpShape& s) {
  const Maps y = pool_output(s);
  return double(s.attr[0].i) * double(s.attr[0].i) * double(y.B * y.C * y.H * y.W);
}

inline void pool_infer(const OpShape& s, TensorDesc* out, Status& status) {
  const Maps m = maps_of(s.in[0], s.attr[2].i);
  check_map_shapes(m, s.in[0], s.in[1], status);
  check_window(m, s.in[0], s.attr[0].i, s.attr[0].i, 0, status);
  out[0] = map_desc(pool_output(s));
  if (s.in[1].given()) out[1] = like(s.in[1]);
}

inline void pool_infer_backward(const OpShape& s, TensorDesc* out, Status& status) {
  TensorDesc forward[2];
  pool_infer(s, forward, status);
  expect_shape(status, "dy", s.in[2], forward[0], "the shape of y");
  out[0] = like(s.in[0]);
}

inline void pool_validate(const OpCall& c, Status& status) {
  check_width_values(maps_of(c.in[0], c.attr[2].i), c.in[1], status);
}

}  // namespace affuse
