#include "lrn.h"

#include "../common/map_rules.h"

namespace affuse {
namespace {

const TensorRule kInputs[] = {
    {"x", kMapShape, DType::f32, false, "activations a"},
    kWidthsRule,
};
const TensorRule kOutputs[] = {
    {"y", kMapShape, DType::f32, false, ""},
};
const TensorRule kBackwardInputs[] = {
    kInputs[0],
    kInputs[1],
    {"dy", kMapShape, DType::f32, false, ""},
};
const TensorRule kBackwardOutputs[] = {
    {"dx", kMapShape, DType::f32, false, ""},
};
const AttrRule kAttrs[] = {
    {"size", AttrKind::integer, 5, 1, 1024, nullptr, "n, channels in a window"},
    {"alpha", AttrKind::real, 1e-4, 0, 1e6, nullptr, "weight of the sum of squares"},
    {"beta", AttrKind::real, 0.75, 0, 8, nullptr, "exponent"},
    {"k", AttrKind::real, 2, 1e-3, 1e6, nullptr, "offset, kappa in the specification"},
    {"alphaOverN", AttrKind::boolean, 0, 0, 0, nullptr, "alpha is divided by n, as PyTorch and Caffe do"},
    kLayoutRule,
};

double forward_flops(const OpShape& s) { return double(2 * s.attr[0].i + 6) * double(s.in[0].count()); }
double backward_flops(const OpShape& s) { return double(4 * s.attr[0].i + 14) * double(s.in[0].count()); }

void infer(const OpShape& s, TensorDesc* out, Status& status) {
  check_map_shapes(maps_of(s.in[0], s.attr[5].i), s.in[0], s.in[1], status);
  out[0] = like(s.in[0]);
}

void infer_backward(const OpShape& s, TensorDesc* out, Status& status) {
  infer(s, out, status);
  expect_shape(status, "dy", s.in[2], s.in[0], "the shape of x");
}

void validate(const OpCall& c, Status& status) { check_width_values(maps_of(c.in[0], c.attr[5].i), c.in[1], status); }

size_t workspace(const OpShape& s, int workers) {
  const Maps m = maps_of(s.in[0], s.attr[5].i);
  return size_t(workers) * size_t(lrn_scratch(m.C, s.attr[0].i, m.last)) * sizeof(float);
}

}  // namespace

const OpDef kLrn = {
    .name = "lrn",
    .summary = "y_c = a_c (k + alpha sum over n channels of a^2)^-beta (spec 1.6)",
    AFFUSE_FIELDS(inputs, input_count, kInputs),
    AFFUSE_FIELDS(outputs, output_count, kOutputs),
    AFFUSE_FIELDS(attrs, attr_count, kAttrs),
    .backward = "lrn.backward",
    .flops = "(2*size + 6)*B*C*H*W",
    .bytes = "8*B*C*H*W",
    .flop_count = forward_flops,
    .infer = infer,
    .validate = validate,
    .workspace = workspace,
    .reference = lrn_reference,
    .cpu = AFFUSE_KERNEL_TABLE(lrn_forward),
};

const OpDef kLrnBackward = {
    .name = "lrn.backward",
    .summary = "dx_c = dy_c d_c^-beta - 2 alpha beta a_c sum of dy a d^(-beta-1) over the windows that hold c",
    AFFUSE_FIELDS(inputs, input_count, kBackwardInputs),
    AFFUSE_FIELDS(outputs, output_count, kBackwardOutputs),
    AFFUSE_FIELDS(attrs, attr_count, kAttrs),
    .flops = "(4*size + 14)*B*C*H*W",
    .bytes = "12*B*C*H*W",
    .flop_count = backward_flops,
    .infer = infer_backward,
    .validate = validate,
    .workspace = workspace,
    .reference = lrn_backward_reference,
    .cpu = AFFUSE_KERNEL_TABLE(lrn_backward),
};

}  // namespace affuse
