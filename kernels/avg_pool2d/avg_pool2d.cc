#include "avg_pool2d.h"

#include "../common/pool_rules.h"

namespace affuse {

const OpDef kAvgPool2d = {
    .name = "avg_pool2d",
    .summary = "y = mean of each size x size window (spec 1.6)",
    AFFUSE_FIELDS(inputs, input_count, kPoolInputs),
    AFFUSE_FIELDS(outputs, output_count, kPoolOutputs),
    AFFUSE_FIELDS(attrs, attr_count, kPoolAttrs),
    .backward = "avg_pool2d.backward",
    .flops = "size^2*B*C*OH*OW",
    .bytes = "4*(B*C*H*W + B*C*OH*OW)",
    .flop_count = pool_flops,
    .infer = pool_infer,
    .validate = pool_validate,
    .reference = avg_pool2d_reference,
    .cpu = AFFUSE_KERNEL_TABLE(avg_pool2d_forward),
};

const OpDef kAvgPool2dBackward = {
    .name = "avg_pool2d.backward",
    .summary = "dx = sum over the windows that hold it of dy / size^2",
    AFFUSE_FIELDS(inputs, input_count, kPoolBackwardInputs),
    AFFUSE_FIELDS(outputs, output_count, kPoolBackwardOutputs),
    AFFUSE_FIELDS(attrs, attr_count, kPoolAttrs),
    .flops = "size^2*B*C*OH*OW",
    .bytes = "4*(B*C*H*W + B*C*OH*OW)",
    .flop_count = pool_flops,
    .infer = pool_infer_backward,
    .validate = pool_validate,
    .reference = avg_pool2d_backward_reference,
    .cpu = AFFUSE_KERNEL_TABLE(avg_pool2d_backward),
};

}  // namespace affuse
