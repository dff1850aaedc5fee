#include "max_pool2d.h"

#include "../common/map_rules.h"

namespace affuse {
namespace {

const TensorRule kInputs[] = {
    {"x", kMapShape, DType::f32, false, "H >= size, W >= size"},
    kWidthsRule,
};
const TensorRule kOutputs[] = {
    {"y", "[B,C,OH,OW]", DType::f32, false, "OH = floor((H - size) / stride) + 1, OW likewise"},
    kYWidthsRule,
};
const TensorRule kBackwardInputs[] = {
    kInputs[0],
    kInputs[1],
    {"dy", "[B,C,OH,OW]", DType::f32, false, ""},
};
const TensorRule kBackwardOutputs[] = {
    {"dx", kMapShape, DType::f32, false, ""},
};
const AttrRule kAttrs[] = {
    {"size", AttrKind::integer, 2, 1, 1024, nullptr, "side of the square window"},
    {"stride", AttrKind::integer, 0, 0, 1024, nullptr, "distance of windows; 0: size"},
    kLayoutRule,
};

Maps output(const OpShape& s) { return pooled(maps_of(s.in[0], s.attr[2].i), pool_attrs(s.attr)); }

double flops(const OpShape& s) {
  const Maps y = output(s);
  return double(s.attr[0].i) * double(s.attr[0].i) * double(y.B * y.C * y.H * y.W);
}

void infer(const OpShape& s, TensorDesc* out, Status& status) {
  const Maps m = maps_of(s.in[0], s.attr[2].i);
  check_map_shapes(m, s.in[0], s.in[1], status);
  check_window(m, s.in[0], s.attr[0].i, s.attr[0].i, 0, status);
  out[0] = map_desc(output(s));
  if (s.in[1].given()) out[1] = like(s.in[1]);
}

void infer_backward(const OpShape& s, TensorDesc* out, Status& status) {
  TensorDesc forward[2];
  infer(s, forward, status);
  expect_shape(status, "dy", s.in[2], forward[0], "the shape of y");
  out[0] = like(s.in[0]);
}

void validate(const OpCall& c, Status& status) { check_width_values(maps_of(c.in[0], c.attr[2].i), c.in[1], status); }

}  // namespace

const OpDef kMaxPool2d = {
    .name = "max_pool2d",
    .summary = "y = largest of each size x size window (spec 2.2)",
    AFFUSE_FIELDS(inputs, input_count, kInputs),
    AFFUSE_FIELDS(outputs, output_count, kOutputs),
    AFFUSE_FIELDS(attrs, attr_count, kAttrs),
    .backward = "max_pool2d.backward",
    .flops = "size^2*B*C*OH*OW",
    .bytes = "4*(B*C*H*W + B*C*OH*OW)",
    .flop_count = flops,
    .infer = infer,
    .validate = validate,
    .reference = max_pool2d_reference,
    .cpu = AFFUSE_KERNEL_TABLE(max_pool2d_forward),
};

const OpDef kMaxPool2dBackward = {
    .name = "max_pool2d.backward",
    .summary = "dx = dy at the first largest element of each window",
    AFFUSE_FIELDS(inputs, input_count, kBackwardInputs),
    AFFUSE_FIELDS(outputs, output_count, kBackwardOutputs),
    AFFUSE_FIELDS(attrs, attr_count, kAttrs),
    .flops = "size^2*B*C*OH*OW",
    .bytes = "4*(2*B*C*H*W + B*C*OH*OW)",
    .flop_count = flops,
    .infer = infer_backward,
    .validate = validate,
    .reference = max_pool2d_backward_reference,
    .cpu = AFFUSE_KERNEL_TABLE(max_pool2d_backward),
};

}  // namespace affuse
