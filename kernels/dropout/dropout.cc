#include "dropout.h"

#include "../common/shape.h"

namespace affuse {
namespace {

const TensorRule kInputs[] = {{"x", "[...]", DType::f32, false, "any shape"}};
const TensorRule kOutputs[] = {{"y", "[...]", DType::f32, false, "x/(1-p) where kept, 0 where dropped"}};
const TensorRule kBackwardInputs[] = {
    {"x", "[...]", DType::f32, true, "never read"},
    {"dy", "[...]", DType::f32, false, ""},
};
const TensorRule kBackwardOutputs[] = {{"dx", "[...]", DType::f32, false, ""}};
const AttrRule kAttrs[] = {
    {"p", AttrKind::real, 0.5, 0, 0x1.fffffffffffffp-1, nullptr, "probability of dropping, in [0,1)"},
    {"seed", AttrKind::seed, 0, -1e300, 1e300, nullptr, "64-bit Philox key"},
    {"instance", AttrKind::integer, 0, 0, 4294967295.0, nullptr, "which dropout of the model this is"},
    {"step", AttrKind::integer, 0, 0, 4294967295.0, nullptr, "training step"},
};

double flops(const OpShape& s) { return double(s.in[0].count()); }
double backward_flops(const OpShape& s) { return double(s.in[1].count()); }

void infer(const OpShape& s, TensorDesc* out, Status&) { out[0] = like(s.in[0]); }

void infer_backward(const OpShape& s, TensorDesc* out, Status& status) {
  expect_shape(status, "x", s.in[0], s.in[1], "the shape of dy");
  out[0] = like(s.in[1]);
}

}  // namespace

const OpDef kDropout = {
    .name = "dropout",
    .summary = "y = x/(1-p) where the element's Philox word >= round(p*2^32), else 0 (spec 0)",
    AFFUSE_FIELDS(inputs, input_count, kInputs),
    AFFUSE_FIELDS(outputs, output_count, kOutputs),
    AFFUSE_FIELDS(attrs, attr_count, kAttrs),
    .backward = "dropout.backward",
    .flops = "N",
    .bytes = "8*N",
    .flop_count = flops,
    .infer = infer,
    .reference = dropout_reference,
    .cpu = AFFUSE_KERNEL_TABLE(dropout_forward),
};

const OpDef kDropoutBackward = {
    .name = "dropout.backward",
    .summary = "dx = dy/(1-p) where kept, else 0, with the forward's mask made again",
    AFFUSE_FIELDS(inputs, input_count, kBackwardInputs),
    AFFUSE_FIELDS(outputs, output_count, kBackwardOutputs),
    AFFUSE_FIELDS(attrs, attr_count, kAttrs),
    .flops = "N",
    .bytes = "8*N",
    .flop_count = backward_flops,
    .infer = infer_backward,
    .reference = dropout_backward_reference,
    .cpu = AFFUSE_KERNEL_TABLE(dropout_backward),
};

}  // namespace affuse
