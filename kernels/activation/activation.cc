#include "activation.h"

#include "../common/shape.h"

namespace affuse {
namespace {

const TensorRule kInputs[] = {{"x", "[...]", DType::f32, false, "any shape"}};
const TensorRule kOutputs[] = {{"y", "[...]", DType::f32, false, ""}};
const TensorRule kBackwardInputs[] = {
    kInputs[0],
    {"y", "[...]", DType::f32, true, "saved by the forward, used by tanh and sigmoid; absent: computed again"},
    {"dy", "[...]", DType::f32, false, ""},
};
const TensorRule kBackwardOutputs[] = {{"dx", "[...]", DType::f32, false, ""}};
const AttrRule kAttrs[] = {
    {"activation", AttrKind::choice, ActivationKind::relu, 0, 0, "none|relu|gelu|tanh|sigmoid",
     "gelu is the exact one, through erf"},
};

double flops(const OpShape& s) { return double(s.in[0].count()); }
double backward_flops(const OpShape& s) { return 3.0 * double(s.in[0].count()); }

void infer(const OpShape& s, TensorDesc* out, Status&) { out[0] = like(s.in[0]); }

void infer_backward(const OpShape& s, TensorDesc* out, Status& status) {
  expect_shape(status, "y", s.in[1], s.in[0], "the shape of x");
  expect_shape(status, "dy", s.in[2], s.in[0], "the shape of x");
  out[0] = like(s.in[0]);
}

}  // namespace

const OpDef kActivation = {
    .name = "activation",
    .summary = "y = f(x), f = identity, relu, exact gelu, tanh or sigmoid (spec 1.6)",
    AFFUSE_FIELDS(inputs, input_count, kInputs),
    AFFUSE_FIELDS(outputs, output_count, kOutputs),
    AFFUSE_FIELDS(attrs, attr_count, kAttrs),
    .backward = "activation.backward",
    .flops = "N",
    .bytes = "8*N",
    .flop_count = flops,
    .infer = infer,
    .reference = activation_reference,
    .cpu = AFFUSE_KERNEL_TABLE(activation_forward),
};

const OpDef kActivationBackward = {
    .name = "activation.backward",
    .summary = "dx = dy f'(x)",
    AFFUSE_FIELDS(inputs, input_count, kBackwardInputs),
    AFFUSE_FIELDS(outputs, output_count, kBackwardOutputs),
    AFFUSE_FIELDS(attrs, attr_count, kAttrs),
    .flops = "3*N",
    .bytes = "12*N",
    .flop_count = backward_flops,
    .infer = infer_backward,
    .reference = activation_backward_reference,
    .cpu = AFFUSE_KERNEL_TABLE(activation_backward),
};

}  // namespace affuse
