#include "grad_norm.h"

#include "../common/shape.h"

namespace affuse {
namespace {

const TensorRule kInputs[] = {{"g", "[...]", DType::f32, false, "all gradients in one buffer"}};
const TensorRule kOutputs[] = {{"norm", "[1]", DType::f32, false, "2-norm"}};
const TensorRule kClipInputs[] = {kInputs[0], {"norm", "[1]", DType::f32, false, "from grad_norm"}};
const TensorRule kClipOutputs[] = {{"g", "[...]", DType::f32, false, "g min(1, maxNorm/norm); may alias the input"}};
const AttrRule kClipAttrs[] = {{"maxNorm", AttrKind::real, 1, 0, 1e30, nullptr, "largest norm that passes unchanged"}};

double norm_flops(const OpShape& s) { return 2.0 * double(s.in[0].count()); }
double clip_flops(const OpShape& s) { return double(s.in[0].count()); }

void infer(const OpShape& s, TensorDesc* out, Status&) { out[0] = tensor_desc(s.in[0].dtype, {1}); }

void infer_clip(const OpShape& s, TensorDesc* out, Status& status) {
  expect_shape(status, "norm", s.in[1], tensor_desc(s.in[0].dtype, {1}), "one number");
  out[0] = like(s.in[0]);
}

size_t workspace(const OpShape& s, int) {
  return size_t((s.in[0].count() + kGradNormChunk - 1) / kGradNormChunk) * sizeof(double);
}

}  // namespace

const OpDef kGradNorm = {
    .name = "grad_norm",
    .summary = "norm = sqrt(sum g^2), summed in a fixed order (spec 1.6)",
    AFFUSE_FIELDS(inputs, input_count, kInputs),
    AFFUSE_FIELDS(outputs, output_count, kOutputs),
    .attrs = nullptr,
    .attr_count = 0,
    .flops = "2*N",
    .bytes = "4*N + 4",
    .flop_count = norm_flops,
    .infer = infer,
    .workspace = workspace,
    .reference = grad_norm_reference,
    .cpu = AFFUSE_KERNEL_TABLE(grad_norm_forward),
};

const OpDef kClipByNorm = {
    .name = "clip_by_norm",
    .summary = "g = g min(1, maxNorm/norm) (spec 1.6)",
    AFFUSE_FIELDS(inputs, input_count, kClipInputs),
    AFFUSE_FIELDS(outputs, output_count, kClipOutputs),
    AFFUSE_FIELDS(attrs, attr_count, kClipAttrs),
    .flops = "N",
    .bytes = "8*N + 4",
    .flop_count = clip_flops,
    .infer = infer_clip,
    .reference = clip_by_norm_reference,
    .cpu = AFFUSE_KERNEL_TABLE(clip_by_norm_forward),
};

}  // namespace affuse
