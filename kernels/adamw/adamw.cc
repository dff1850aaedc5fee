#include "adamw.h"

#include "../common/shape.h"

namespace affuse {
namespace {

const TensorRule kInputs[] = {
    {"p", "[...]", DType::f32, false, "parameters"},
    {"g", "[...]", DType::f32, false, "gradient"},
    {"m", "[...]", DType::f32, false, "first moment, 0 before step 1"},
    {"v", "[...]", DType::f32, false, "second moment, 0 before step 1"},
};
const TensorRule kOutputs[] = {
    {"p", "[...]", DType::f32, false, "may alias the input"},
    {"m", "[...]", DType::f32, false, "may alias the input"},
    {"v", "[...]", DType::f32, false, "may alias the input"},
};
const AttrRule kAdamwAttrs[] = {
    {"lr", AttrKind::real, 1e-3, 0, 1e30, nullptr, "learning rate"},
    {"beta1", AttrKind::real, 0.9, 0, 0x1.fffffffffffffp-1, nullptr, "in [0,1)"},
    {"beta2", AttrKind::real, 0.999, 0, 0x1.fffffffffffffp-1, nullptr, "in [0,1)"},
    {"eps", AttrKind::real, 1e-8, 1e-30, 1, nullptr, "added to the root of the second moment"},
    {"weightDecay", AttrKind::real, 1e-2, 0, 1e30, nullptr, "decoupled"},
    {"step", AttrKind::integer, 1, 1, 9007199254740991.0, nullptr, "number of this step, from 1"},
};
const AttrRule kAdamAttrs[] = {
    kAdamwAttrs[AdamAttr::lr],
    kAdamwAttrs[AdamAttr::beta1],
    kAdamwAttrs[AdamAttr::beta2],
    kAdamwAttrs[AdamAttr::eps],
    {"weightDecay", AttrKind::real, 0, 0, 1e30, nullptr, "coupled (L2 penalty)"},
    kAdamwAttrs[AdamAttr::step],
};

double flops(const OpShape& s) { return 14.0 * double(s.in[0].count()); }

void infer(const OpShape& s, TensorDesc* out, Status& status) {
  for (int i = 1; i < 4; ++i) expect_shape(status, kInputs[i].name, s.in[i], s.in[0], "the shape of p");
  out[0] = out[1] = out[2] = like(s.in[0]);
}

}  // namespace

const OpDef kAdam = {
    .name = "adam",
    .summary = "one step of Adam with coupled weight decay, as torch.optim.Adam (spec 1.6)",
    AFFUSE_FIELDS(inputs, input_count, kInputs),
    AFFUSE_FIELDS(outputs, output_count, kOutputs),
    AFFUSE_FIELDS(attrs, attr_count, kAdamAttrs),
    .flops = "14*N",
    .bytes = "28*N",
    .flop_count = flops,
    .infer = infer,
    .reference = adam_reference,
    .cpu = AFFUSE_KERNEL_TABLE(adam_update),
};

const OpDef kAdamw = {
    .name = "adamw",
    .summary = "one step of AdamW with decoupled weight decay, as torch.optim.AdamW (spec 1.6)",
    AFFUSE_FIELDS(inputs, input_count, kInputs),
    AFFUSE_FIELDS(outputs, output_count, kOutputs),
    AFFUSE_FIELDS(attrs, attr_count, kAdamwAttrs),
    .flops = "14*N",
    .bytes = "28*N",
    .flop_count = flops,
    .infer = infer,
    .reference = adamw_reference,
    .cpu = AFFUSE_KERNEL_TABLE(adamw_update),
};

}  // namespace affuse
