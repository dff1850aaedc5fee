#include "masked_mse.h"

#include "../common/shape.h"

namespace affuse {
namespace {

const TensorRule kInputs[] = {
    {"prediction", "[...]", DType::f32, false, "any shape"},
    {"target", "[...]", DType::f32, false, "the shape of prediction; NaN: missing"},
};
const TensorRule kOutputs[] = {
    {"loss", "[1]", DType::f32, false, "mean over the targets that are there; 0 without any"},
    {"count", "[1]", DType::i32, true, "how many targets are there"},
};
const TensorRule kBackwardInputs[] = {kInputs[0], kInputs[1], {"dloss", "[1]", DType::f32, false, ""}};
const TensorRule kBackwardOutputs[] = {
    {"dprediction", "[...]", DType::f32, false, "0 where the target is missing"},
    {"dtarget", "[...]", DType::f32, false, "-dprediction"},
};

double flops(const OpShape& s) { return 3.0 * double(s.in[0].count()); }

void infer(const OpShape& s, TensorDesc* out, Status& status) {
  expect_shape(status, "target", s.in[1], s.in[0], "the shape of prediction");
  out[0] = tensor_desc(s.in[0].dtype, {1});
  out[1] = tensor_desc(DType::i32, {1});
}

void infer_backward(const OpShape& s, TensorDesc* out, Status& status) {
  infer(s, out, status);
  expect_shape(status, "dloss", s.in[2], out[0], "the loss");
  out[0] = like(s.in[0]);
  out[1] = like(s.in[1]);
}

size_t workspace(const OpShape& s, int) {
  return size_t((s.in[0].count() + kMaskedMseChunk - 1) / kMaskedMseChunk) * sizeof(MaskedMsePartial);
}

}  // namespace

const OpDef kMaskedMse = {
    .name = "masked_mse",
    .summary = "loss = mean of (prediction - target)^2 over targets that are not NaN; 0 without any (spec 1.5)",
    AFFUSE_FIELDS(inputs, input_count, kInputs),
    AFFUSE_FIELDS(outputs, output_count, kOutputs),
    .attrs = nullptr,
    .attr_count = 0,
    .backward = "masked_mse.backward",
    .flops = "3*N",
    .bytes = "8*N + 4",
    .flop_count = flops,
    .infer = infer,
    .workspace = workspace,
    .reference = masked_mse_reference,
    .cpu = AFFUSE_KERNEL_TABLE(masked_mse_forward),
};

const OpDef kMaskedMseBackward = {
    .name = "masked_mse.backward",
    .summary = "dprediction = dloss 2 (prediction - target)/n where the target is there, else 0; dtarget = -dprediction",
    AFFUSE_FIELDS(inputs, input_count, kBackwardInputs),
    AFFUSE_FIELDS(outputs, output_count, kBackwardOutputs),
    .attrs = nullptr,
    .attr_count = 0,
    .flops = "3*N",
    .bytes = "16*N + 4",
    .flop_count = flops,
    .infer = infer_backward,
    .workspace = workspace,
    .reference = masked_mse_backward_reference,
    .cpu = AFFUSE_KERNEL_TABLE(masked_mse_backward),
};

}  // namespace affuse
