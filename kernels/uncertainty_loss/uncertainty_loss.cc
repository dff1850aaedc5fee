#include "uncertainty_loss.h"

#include "../common/shape.h"

namespace affuse {
namespace {

const TensorRule kInputs[] = {
    {"ce", "[1]", DType::f32, false, "cross-entropy"},
    {"mse", "[1]", DType::f32, false, "mean squared error"},
    {"s_e", "[1]", DType::f32, false, "log variance of the emotion task"},
    {"s_v", "[1]", DType::f32, false, "log variance of the valence task"},
    {"countE", "[1]", DType::i32, true, "labels of the emotion task in the batch; 0 leaves the task out"},
    {"countV", "[1]", DType::i32, true, "labels of the valence task in the batch; 0 leaves the task out"},
};
const TensorRule kOutputs[] = {{"loss", "[1]", DType::f32, false, "may be negative"}};
const TensorRule kBackwardInputs[] = {kInputs[0], kInputs[1], kInputs[2], kInputs[3],
                                      kInputs[4], kInputs[5], {"dloss", "[1]", DType::f32, false, ""}};
const TensorRule kBackwardOutputs[] = {
    {"dce", "[1]", DType::f32, false, ""},
    {"dmse", "[1]", DType::f32, false, ""},
    {"ds_e", "[1]", DType::f32, false, ""},
    {"ds_v", "[1]", DType::f32, false, ""},
};
const AttrRule kAttrs[] = {
    {"form", AttrKind::choice, UncertaintyForm::kendall, 0, 0, "kendall|half|log1p|sum", ""},
};

double flops(const OpShape&) { return 12; }

void infer(const OpShape& s, TensorDesc* out, Status& status) {
  const TensorDesc one = tensor_desc(s.in[0].dtype, {1});
  for (int i = 0; i < int(std::size(kInputs)); ++i) expect_shape(status, kInputs[i].name, s.in[i], one, "one number");
  out[0] = one;
}

void infer_backward(const OpShape& s, TensorDesc* out, Status& status) {
  infer(s, out, status);
  expect_shape(status, "dloss", s.in[UncertaintyIn::dloss], out[0], "one number");
  out[1] = out[2] = out[3] = out[0];
}

}  // namespace

const OpDef kUncertaintyLoss = {
    .name = "uncertainty_loss",
    .summary = "loss = e^-s_e ce + s_e/2 + e^-s_v mse/2 + s_v/2 (kendall), and the forms half, log1p, sum (spec 1.5)",
    AFFUSE_FIELDS(inputs, input_count, kInputs),
    AFFUSE_FIELDS(outputs, output_count, kOutputs),
    AFFUSE_FIELDS(attrs, attr_count, kAttrs),
    .backward = "uncertainty_loss.backward",
    .flops = "12",
    .bytes = "20",
    .flop_count = flops,
    .infer = infer,
    .reference = uncertainty_loss_reference,
    .cpu = AFFUSE_KERNEL_TABLE(uncertainty_loss_forward),
};

const OpDef kUncertaintyLossBackward = {
    .name = "uncertainty_loss.backward",
    .summary = "dce = e^-s_e, ds_e = 1/2 - e^-s_e ce (kendall), and likewise for mse, s_v and the other forms",
    AFFUSE_FIELDS(inputs, input_count, kBackwardInputs),
    AFFUSE_FIELDS(outputs, output_count, kBackwardOutputs),
    AFFUSE_FIELDS(attrs, attr_count, kAttrs),
    .flops = "12",
    .bytes = "36",
    .flop_count = flops,
    .infer = infer_backward,
    .reference = uncertainty_loss_backward_reference,
    .cpu = AFFUSE_KERNEL_TABLE(uncertainty_loss_backward),
};

}  // namespace affuse
