#include "softmax.h"

#include "../common/shape.h"

namespace affuse {
namespace {

const TensorRule kInputs[] = {{"x", "[...,C]", DType::f32, false, "softmax over the last dimension, C >= 1"}};
const TensorRule kOutputs[] = {{"y", "[...,C]", DType::f32, false, "rows sum to 1"}};
const TensorRule kBackwardInputs[] = {
    kInputs[0],
    {"y", "[...,C]", DType::f32, true, "saved by the forward; absent: computed again"},
    {"dy", "[...,C]", DType::f32, false, ""},
};
const TensorRule kBackwardOutputs[] = {{"dx", "[...,C]", DType::f32, false, ""}};

double flops(const OpShape& s) { return 5.0 * double(s.in[0].count()); }
double backward_flops(const OpShape& s) { return 4.0 * double(s.in[0].count()); }

void infer(const OpShape& s, TensorDesc* out, Status& status) {
  const TensorDesc& x = s.in[0];
  expect_positive(status, "x", "C", x, x.dim[x.rank - 1]);
  out[0] = like(x);
}

void infer_backward(const OpShape& s, TensorDesc* out, Status& status) {
  infer(s, out, status);
  expect_shape(status, "y", s.in[1], s.in[0], "the shape of x");
  expect_shape(status, "dy", s.in[2], s.in[0], "the shape of x");
}

}  // namespace

const OpDef kSoftmax = {
    .name = "softmax",
    .summary = "y = exp(x - max) / sum exp(x - max) over the last dimension (spec 1.6)",
    AFFUSE_FIELDS(inputs, input_count, kInputs),
    AFFUSE_FIELDS(outputs, output_count, kOutputs),
    .attrs = nullptr,
    .attr_count = 0,
    .backward = "softmax.backward",
    .flops = "5*N",
    .bytes = "8*N",
    .flop_count = flops,
    .infer = infer,
    .reference = softmax_reference,
    .cpu = AFFUSE_KERNEL_TABLE(softmax_forward),
};

const OpDef kSoftmaxBackward = {
    .name = "softmax.backward",
    .summary = "dx = y (dy - sum dy y)",
    AFFUSE_FIELDS(inputs, input_count, kBackwardInputs),
    AFFUSE_FIELDS(outputs, output_count, kBackwardOutputs),
    .attrs = nullptr,
    .attr_count = 0,
    .flops = "4*N",
    .bytes = "12*N",
    .flop_count = backward_flops,
    .infer = infer_backward,
    .reference = softmax_backward_reference,
    .cpu = AFFUSE_KERNEL_TABLE(softmax_backward),
};

}  // namespace affuse
