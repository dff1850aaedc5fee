#include "prelu.h"

#include "../common/shape.h"

namespace affuse {
namespace {

const TensorRule kInputs[] = {
    {"x", "[...]", DType::f32, false, "any shape"},
    {"slope", "[1]", DType::f32, false, "factor for x <= 0"},
};
const TensorRule kOutputs[] = {{"y", "[...]", DType::f32, false, ""}};
const TensorRule kBackwardInputs[] = {kInputs[0], kInputs[1], {"dy", "[...]", DType::f32, false, ""}};
const TensorRule kBackwardOutputs[] = {
    {"dx", "[...]", DType::f32, false, ""},
    {"dslope", "[1]", DType::f32, false, ""},
};

double flops(const OpShape& s) { return double(s.in[0].count()); }
double backward_flops(const OpShape& s) { return 3.0 * double(s.in[0].count()); }

void infer(const OpShape& s, TensorDesc* out, Status& status) {
  expect_shape(status, "slope", s.in[1], tensor_desc(s.in[1].dtype, {1}), "one slope for all elements");
  out[0] = like(s.in[0]);
}

void infer_backward(const OpShape& s, TensorDesc* out, Status& status) {
  infer(s, out, status);
  expect_shape(status, "dy", s.in[2], s.in[0], "the shape of x");
  out[1] = like(s.in[1]);
}

size_t backward_workspace(const OpShape& s, int) {
  return size_t((s.in[0].count() + kPreluChunk - 1) / kPreluChunk) * sizeof(double);
}

}  // namespace

const OpDef kPrelu = {
    .name = "prelu",
    .summary = "y = x where x > 0, else slope x (spec 1.4)",
    AFFUSE_FIELDS(inputs, input_count, kInputs),
    AFFUSE_FIELDS(outputs, output_count, kOutputs),
    .attrs = nullptr,
    .attr_count = 0,
    .backward = "prelu.backward",
    .flops = "N",
    .bytes = "8*N + 4",
    .flop_count = flops,
    .infer = infer,
    .reference = prelu_reference,
    .cpu = AFFUSE_KERNEL_TABLE(prelu_forward),
};

const OpDef kPreluBackward = {
    .name = "prelu.backward",
    .summary = "dx = dy where x > 0, else slope dy; dslope = sum over x <= 0 of dy x",
    AFFUSE_FIELDS(inputs, input_count, kBackwardInputs),
    AFFUSE_FIELDS(outputs, output_count, kBackwardOutputs),
    .attrs = nullptr,
    .attr_count = 0,
    .flops = "3*N",
    .bytes = "12*N + 8",
    .flop_count = backward_flops,
    .infer = infer_backward,
    .workspace = backward_workspace,
    .reference = prelu_backward_reference,
    .cpu = AFFUSE_KERNEL_TABLE(prelu_backward),
};

}  // namespace affuse
