#include "softmax_cross_entropy.h"

#include "../common/shape.h"

namespace affuse {
namespace {

using In = CrossEntropyIn;

const TensorRule kInputs[] = {
    {"logits", "[B,C]", DType::f32, false, "C >= 1 classes"},
    {"labels", "[B]", DType::i32, false, "class index, -1: missing"},
    {"classWeights", "[C]", DType::f32, true, "not negative; absent: all 1"},
};
const TensorRule kOutputs[] = {
    {"loss", "[1]", DType::f32, false, "weighted mean over the labelled samples; 0 without any"},
    {"posteriors", "[B,C]", DType::f32, false, "softmax of the logits, also for unlabelled samples"},
    {"count", "[1]", DType::i32, true, "labelled samples of non-zero weight"},
};
const TensorRule kBackwardInputs[] = {
    kInputs[0],
    kInputs[1],
    kInputs[2],
    {"posteriors", "[B,C]", DType::f32, true, "saved by the forward; absent: computed again"},
    {"dloss", "[1]", DType::f32, true, ""},
    {"dposteriors", "[B,C]", DType::f32, true, ""},
};
const TensorRule kBackwardOutputs[] = {
    {"dlogits", "[B,C]", DType::f32, false, ""},
    {"dclassWeights", "[C]", DType::f32, false, ""},
};
const AttrRule kAttrs[] = {
    {"labelSmoothing", AttrKind::real, 0, 0, 1, nullptr, "share of the target that is spread over all classes"},
};

double flops(const OpShape& s) { return 6.0 * double(s.in[In::logits].count()); }
double backward_flops(const OpShape& s) { return 5.0 * double(s.in[In::logits].count()); }

void infer(const OpShape& s, TensorDesc* out, Status& status) {
  const TensorDesc& logits = s.in[In::logits];
  expect_positive(status, "logits", "C", logits, logits.dim[1]);
  expect_shape(status, "labels", s.in[In::labels], tensor_desc(DType::i32, {logits.dim[0]}), "one per row of logits");
  expect_shape(status, "classWeights", s.in[In::class_weights], tensor_desc(logits.dtype, {logits.dim[1]}),
               "one per column of logits");
  out[0] = tensor_desc(logits.dtype, {1});
  out[1] = like(logits);
  out[2] = tensor_desc(DType::i32, {1});
}

void infer_backward(const OpShape& s, TensorDesc* out, Status& status) {
  TensorDesc forward[3];
  infer(s, forward, status);
  expect_shape(status, "posteriors", s.in[In::posteriors], forward[1], "the shape of logits");
  expect_shape(status, "dloss", s.in[In::dloss], forward[0], "the loss");
  expect_shape(status, "dposteriors", s.in[In::dposteriors], forward[1], "the shape of logits");
  if (!s.in[In::dloss].given() && !s.in[In::dposteriors].given())
    status.fail("ERR_AFFUSE_MISSING", "expected at least one of dloss and dposteriors, got neither");
  out[0] = like(s.in[In::logits]);
  out[1] = like(s.in[In::class_weights]);
}

void validate(const OpCall& call, Status& status) {
  const int64_t C = call.in[In::logits].dim[1];
  const int32_t* labels = call.in[In::labels].i32();
  for (int64_t b = 0; b < call.in[In::labels].count(); ++b)
    if (labels[b] < -1 || labels[b] >= C)
      return status.fail("ERR_AFFUSE_LABEL", "expected labels[%lld] in [-1,%lld) (-1: missing), got %d", (long long)b,
                         (long long)C, int(labels[b]));
}

// Per sample its share of the loss; in the backward two floats (largest logit, sum of exponentials).
size_t workspace(const OpShape& s, int) { return size_t(s.in[In::logits].dim[0]) * sizeof(double); }

}  // namespace

const OpDef kSoftmaxCrossEntropy = {
    .name = "softmax_cross_entropy",
    .summary = "loss = weighted mean over labelled samples of -log softmax(logits)[label], smoothed (spec 1.5)",
    AFFUSE_FIELDS(inputs, input_count, kInputs),
    AFFUSE_FIELDS(outputs, output_count, kOutputs),
    AFFUSE_FIELDS(attrs, attr_count, kAttrs),
    .backward = "softmax_cross_entropy.backward",
    .flops = "6*B*C",
    .bytes = "4*(2*B*C + B)",
    .flop_count = flops,
    .infer = infer,
    .validate = validate,
    .workspace = workspace,
    .reference = softmax_cross_entropy_reference,
    .cpu = AFFUSE_KERNEL_TABLE(softmax_cross_entropy_forward),
};

const OpDef kSoftmaxCrossEntropyBackward = {
    .name = "softmax_cross_entropy.backward",
    .summary = "dlogits = dloss/W [(1-eps) w_y (p - onehot) + eps/C (p sum w - w)] + softmax backward of dposteriors",
    AFFUSE_FIELDS(inputs, input_count, kBackwardInputs),
    AFFUSE_FIELDS(outputs, output_count, kBackwardOutputs),
    AFFUSE_FIELDS(attrs, attr_count, kAttrs),
    .flops = "5*B*C",
    .bytes = "4*(3*B*C + B)",
    .flop_count = backward_flops,
    .infer = infer_backward,
    .validate = validate,
    .workspace = workspace,
    .reference = softmax_cross_entropy_backward_reference,
    .cpu = AFFUSE_KERNEL_TABLE(softmax_cross_entropy_backward),
};

}  // namespace affuse
