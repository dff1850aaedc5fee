#include "conv2d.h"

#include "../common/map_rules.h"

namespace affuse {
namespace {

const TensorRule kInputs[] = {
    {"x", kMapShape, DType::f32, false, ""},
    {"W", "[O,C,kh,kw]", DType::f32, false, "weight, [out, in, height, width] in either layout"},
    {"b", "[O]", DType::f32, true, "bias; absent: 0"},
    kWidthsRule,
};
const TensorRule kOutputs[] = {
    {"y", "[B,O,OH,OW]", DType::f32, false, "OH = floor((H + 2 pad - kh) / stride) + 1, OW likewise"},
    kYWidthsRule,
};
const TensorRule kBackwardInputs[] = {
    kInputs[0],
    kInputs[1],
    kInputs[2],
    kInputs[3],
    {"y", "[B,O,OH,OW]", DType::f32, true, "saved by the forward; used by relu; absent: computed again"},
    {"dy", "[B,O,OH,OW]", DType::f32, false, ""},
};
const TensorRule kBackwardOutputs[] = {
    {"dx", kMapShape, DType::f32, false, ""},
    {"dW", "[O,C,kh,kw]", DType::f32, false, ""},
    {"db", "[O]", DType::f32, false, "made only if b is given"},
};
const AttrRule kAttrs[] = {
    {"stride", AttrKind::integer, 1, 1, 1024, nullptr, "distance of windows, both ways"},
    {"pad", AttrKind::integer, 0, 0, 1024, nullptr, "zeros on every side"},
    {"activation", AttrKind::choice, 0, 0, 0, "none|relu", ""},
    kLayoutRule,
    {"precision", AttrKind::choice, gemm::Precision::f32, 0, 0, gemm::kPrecisionChoices, gemm::kPrecisionDoc},
};

// Taps of `size` at all positions along one axis that meet one of n elements rather than the edge around them.
double taps_inside(int64_t n, int64_t out, int64_t size, int64_t stride, int64_t pad) {
  double taps = double(out) * double(size);
  for (int64_t at = 0; at < out && pad - at * stride > 0; ++at) taps -= double(gemm::min64(size, pad - at * stride));
  for (int64_t at = out - 1; at >= 0 && at * stride + size - pad - n > 0; --at)
    taps -= double(gemm::min64(size, at * stride + size - pad - n));
  return taps;
}
// Products with elements of x. Those with the zeros around it take no part: nobody has to make them.
double product(const OpShape& s) {
  const Conv c = conv_of(s.in[0], s.in[1], s.attr);
  return double(c.y.B) * double(c.O) * double(c.x.C) * taps_inside(c.x.H, c.y.H, c.kh, c.stride, c.pad) *
         taps_inside(c.x.W, c.y.W, c.kw, c.stride, c.pad);
}
double flops(const OpShape& s) { return 2 * product(s); }
double backward_flops(const OpShape& s) {
  double n = 0;
  if (!s.out || s.out[0].given()) n += 2 * product(s);
  if (!s.out || s.out[1].given()) n += 2 * product(s);
  if (!s.out || s.out[2].given()) n += double(s.in[5].count());
  return n;
}

void infer(const OpShape& s, TensorDesc* out, Status& status) {
  const TensorDesc &x = s.in[0], &W = s.in[1];
  const Conv c = conv_of(x, W, s.attr);
  check_map_shapes(c.x, x, s.in[3], status);
  expect_positive(status, "W", "O", W, W.dim[0]);
  expect_positive(status, "W", "kh", W, W.dim[2]);
  expect_positive(status, "W", "kw", W, W.dim[3]);
  expect_shape(status, "W", W, tensor_desc(DType::f32, {c.O, c.x.C, c.kh, c.kw}), "[O, the channels of x, kh, kw]");
  expect_shape(status, "b", s.in[2], tensor_desc(DType::f32, {c.O}), "the rows of W");
  check_window(c.x, x, c.kh, c.kw, c.pad, status);
  out[0] = map_desc(c.y);
  if (s.in[3].given()) out[1] = like(s.in[3]);
}

void infer_backward(const OpShape& s, TensorDesc* out, Status& status) {
  TensorDesc forward[2];
  infer(s, forward, status);
  for (int i = 4; i < 6; ++i) expect_shape(status, kBackwardInputs[i].name, s.in[i], forward[0], "the shape of y");
  for (int i = 0; i < 3; ++i)
    if (s.in[i].given()) out[i] = like(s.in[i]);
}

void validate(const OpCall& c, Status& status) { check_width_values(maps_of(c.in[0], c.attr[3].i), c.in[3], status); }

size_t workspace(const OpShape& s, int workers) {
  return size_t(conv_scratch(conv_of(s.in[0], s.in[1], s.attr), workers).total) * sizeof(float);
}
size_t backward_workspace(const OpShape& s, int workers) {
  const Conv c = conv_of(s.in[0], s.in[1], s.attr);
  return size_t(conv_backward_scratch(c, workers, s.out[0].given(), s.out[1].given(), s.in[3].given(),
                                      c.relu && !s.in[4].given())
                    .total) *
         sizeof(float);
}

size_t pack_bytes(const OpShape& s, int input) {
  const Conv c = conv_of(s.in[0], s.in[1], s.attr);
  return input == 1 ? size_t(conv_packed_floats(c, c.O, c.x.C * c.taps())) * sizeof(float) : 0;
}
bool bf16(const OpShape& s) { return conv_of(s.in[0], s.in[1], s.attr).bf16; }
const char* pack_key(const OpShape& s, int) { return bf16(s) ? "conv2d.y.bf16" : "conv2d.y"; }
// With a stride the layout depends on it: packed with every call then.
size_t backward_pack_bytes(const OpShape& s, int input) {
  if (input != 1 || s.attr[0].i != 1 || !s.out || !s.out[0].given()) return 0;
  return size_t(packed_dx_floats(conv_of(s.in[0], s.in[1], s.attr))) * sizeof(float);
}
const char* backward_pack_key(const OpShape& s, int) { return bf16(s) ? "conv2d.dx.bf16" : "conv2d.dx"; }

}  // namespace

const OpDef kConv2d = {
    .name = "conv2d",
    .summary = "y = f(x * W + b), cross-correlation over maps (spec 1.6, 2.2)",
    AFFUSE_FIELDS(inputs, input_count, kInputs),
    AFFUSE_FIELDS(outputs, output_count, kOutputs),
    AFFUSE_FIELDS(attrs, attr_count, kAttrs),
    .backward = "conv2d.backward",
    .flops = "2*B*O*C * (taps inside the map, over OH) * (over OW); without pad 2*B*OH*OW*O*C*kh*kw",
    .bytes = "4*(B*C*H*W + O*C*kh*kw + O + B*O*OH*OW)",
    .flop_count = flops,
    .infer = infer,
    .validate = validate,
    .workspace = workspace,
    .reference = conv2d_reference,
    .cpu = AFFUSE_KERNEL_TABLE(conv2d_forward),
    .pack_bytes = pack_bytes,
    .pack_key = pack_key,
    .pack = AFFUSE_KERNEL_TABLE(conv2d_pack),
};

const OpDef kConv2dBackward = {
    .name = "conv2d.backward",
    .summary = "g = dy f'(z): dx = g * W turned round, dW = x * g, db = sums of g",
    AFFUSE_FIELDS(inputs, input_count, kBackwardInputs),
    AFFUSE_FIELDS(outputs, output_count, kBackwardOutputs),
    AFFUSE_FIELDS(attrs, attr_count, kAttrs),
    .flops = "4*B*O*C * (taps inside the map, over OH) * (over OW) + B*OH*OW*O",
    .bytes = "4*(2*B*C*H*W + 2*O*C*kh*kw + 2*O + 2*B*O*OH*OW)",
    .flop_count = backward_flops,
    .infer = infer_backward,
    .validate = validate,
    .workspace = backward_workspace,
    .reference = conv2d_backward_reference,
    .cpu = AFFUSE_KERNEL_TABLE(conv2d_backward),
    .pack_bytes = backward_pack_bytes,
    .pack_key = backward_pack_key,
    .pack = AFFUSE_KERNEL_TABLE(conv2d_backward_pack),
};

}  // namespace affuse
