#include "max_pool2d.h"

#include "../common/pool_rules.h"

namespace affuse {

const OpDef kMaxPool2d = {
    .name = "max_pool2d",
    .summary = "y = largest of each size x size window (spec 2.2)",
    AFFUSE_FIELDS(inputs, input_count, kPoolInputs),
    AFFUSE_FIELDS(outputs, output_count, kPoolOutputs),
    AFFUSE_FIELDS(attrs, attr_count, kPoolAttrs),
    .backward = "max_pool2d.backward",
    .flops = "size^2*B*C*OH*OW",
    .bytes = "4*(B*C*H*W + B*C*OH*OW)",
    .flop_count = pool_flops,
    .infer = pool_infer,
    .validate = pool_validate,
    .reference = max_pool2d_reference,
    .cpu = AFFUSE_KERNEL_TABLE(max_pool2d_forward),
};

const OpDef kMaxPool2dBackward = {
    .name = "max_pool2d.backward",
    .summary = "dx = dy at the first largest element of each window",
    AFFUSE_FIELDS(inputs, input_count, kPoolBackwardInputs),
    AFFUSE_FIELDS(outputs, output_count, kPoolBackwardOutputs),
    AFFUSE_FIELDS(attrs, attr_count, kPoolAttrs),
    .flops = "size^2*B*C*OH*OW",
    .bytes = "4*(2*B*C*H*W + B*C*OH*OW)",
    .flop_count = pool_flops,
    .infer = pool_infer_backward,
    .validate = pool_validate,
    .reference = max_pool2d_backward_reference,
    .cpu = AFFUSE_KERNEL_TABLE(max_pool2d_backward),
};

}  // namespace affuse
