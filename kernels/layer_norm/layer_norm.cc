#include "layer_norm.h"

#include "../common/shape.h"

namespace affuse {
namespace {

const TensorRule kInputs[] = {
    {"x", "[...,C]", DType::f32, false, "normalised over the last dimension, C >= 1"},
    {"gamma", "[C]", DType::f32, false, "gain"},
    {"beta", "[C]", DType::f32, false, "offset"},
};
const TensorRule kOutputs[] = {
    {"y", "[...,C]", DType::f32, false, ""},
    {"mean", "[R]", DType::f32, true, "mean of each row, R = product of the leading dimensions"},
    {"rstd", "[R]", DType::f32, true, "1/sqrt(variance + eps) of each row"},
};
const TensorRule kBackwardInputs[] = {
    kInputs[0],
    kInputs[1],
    {"beta", "[C]", DType::f32, true, "never read"},
    {"mean", "[R]", DType::f32, true, "saved by the forward; absent: computed again"},
    {"rstd", "[R]", DType::f32, true, "saved by the forward; absent: computed again"},
    {"dy", "[...,C]", DType::f32, false, ""},
};
const TensorRule kBackwardOutputs[] = {
    {"dx", "[...,C]", DType::f32, false, ""},
    {"dgamma", "[C]", DType::f32, false, ""},
    {"dbeta", "[C]", DType::f32, false, ""},
};
const AttrRule kAttrs[] = {{"eps", AttrKind::real, 1e-5, 1e-12, 1, nullptr, "added to the variance"}};

double flops(const OpShape& s) { return 8.0 * double(s.in[0].count()); }
double backward_flops(const OpShape& s) { return 14.0 * double(s.in[0].count()); }

void check(const OpShape& s, Status& status) {
  const TensorDesc& x = s.in[0];
  expect_positive(status, "x", "C", x, x.dim[x.rank - 1]);
  const TensorDesc row = tensor_desc(x.dtype, {x.dim[x.rank - 1]});
  expect_shape(status, "gamma", s.in[1], row, "the last dimension of x");
  expect_shape(status, "beta", s.in[2], row, "the last dimension of x");
}

void infer(const OpShape& s, TensorDesc* out, Status& status) {
  check(s, status);
  out[0] = like(s.in[0]);
  out[1] = out[2] = tensor_desc(s.in[0].dtype, {row_count(s.in[0])});
}

void infer_backward(const OpShape& s, TensorDesc* out, Status& status) {
  check(s, status);
  const TensorDesc rows = tensor_desc(s.in[0].dtype, {row_count(s.in[0])});
  expect_shape(status, "mean", s.in[3], rows, "one per row of x");
  expect_shape(status, "rstd", s.in[4], rows, "one per row of x");
  expect_shape(status, "dy", s.in[5], s.in[0], "the shape of x");
  out[0] = like(s.in[0]);
  out[1] = out[2] = like(s.in[1]);
}

size_t backward_workspace(const OpShape& s, int) {
  const int64_t R = row_count(s.in[0]), C = s.in[1].dim[0], rows = layer_norm_chunk(R);
  return size_t((R + rows - 1) / rows * 2 * C) * sizeof(float);
}

}  // namespace

const OpDef kLayerNorm = {
    .name = "layer_norm",
    .summary = "y = gamma (x - mean)/sqrt(var + eps) + beta over the last dimension (spec 1.6)",
    AFFUSE_FIELDS(inputs, input_count, kInputs),
    AFFUSE_FIELDS(outputs, output_count, kOutputs),
    AFFUSE_FIELDS(attrs, attr_count, kAttrs),
    .backward = "layer_norm.backward",
    .flops = "8*R*C",
    .bytes = "4*(2*R*C + 2*C)",
    .flop_count = flops,
    .infer = infer,
    .reference = layer_norm_reference,
    .cpu = AFFUSE_KERNEL_TABLE(layer_norm_forward),
};

const OpDef kLayerNormBackward = {
    .name = "layer_norm.backward",
    .summary = "dx = rstd (d - mean(d) - xhat mean(d xhat)), d = dy gamma; dgamma = sum dy xhat; dbeta = sum dy",
    AFFUSE_FIELDS(inputs, input_count, kBackwardInputs),
    AFFUSE_FIELDS(outputs, output_count, kBackwardOutputs),
    AFFUSE_FIELDS(attrs, attr_count, kAttrs),
    .flops = "14*R*C",
    .bytes = "4*(3*R*C + 3*C)",
    .flop_count = backward_flops,
    .infer = infer_backward,
    .workspace = backward_workspace,
    .reference = layer_norm_backward_reference,
    .cpu = AFFUSE_KERNEL_TABLE(layer_norm_backward),
};

}  // namespace affuse
