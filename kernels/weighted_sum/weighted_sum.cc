// Rules, checks and costs of weighted_sum; the mathematics is in weighted_sum.h.
#include "weighted_sum.h"

#include "../common/shape.h"

namespace affuse {
namespace {

constexpr TensorRule kForwardInputs[] = {
    {"x", "[B,J,D]", DType::f32, false, "J vectors per sample"},
    {"w", "[B,J]", DType::f32, false, "their weights, any sign, not normalised"},
};
constexpr TensorRule kForwardOutputs[] = {{"y", "[B,D]", DType::f32, false, "sum over j of w times x"}};
constexpr TensorRule kBackwardInputs[] = {
    kForwardInputs[0],
    kForwardInputs[1],
    {"dy", "[B,D]", DType::f32, true, "gradient of y"},
};
constexpr TensorRule kBackwardOutputs[] = {
    {"dx", "[B,J,D]", DType::f32, false, "gradient of x"},
    {"dw", "[B,J]", DType::f32, false, "gradient of w"},
};

void infer(const OpShape& s, TensorDesc* out, Status& status) {
  const TensorDesc &x = s.in[kWeightedSumX], &w = s.in[kWeightedSumW];
  expect_positive(status, "x [B,J,D]", "D", x, x.dim[2]);
  expect_shape(status, "w", w, tensor_desc(w.dtype, {x.dim[0], x.dim[1]}), "one per vector of x");
  out[0] = tensor_desc(x.dtype, {x.dim[0], x.dim[2]});
}

void infer_backward(const OpShape& s, TensorDesc* out, Status& status) {
  TensorDesc y;
  infer(s, &y, status);
  const TensorDesc& dy = s.in[kWeightedSumDy];
  if (!dy.given()) status.fail("ERR_AFFUSE_MISSING", "expected dy, the gradient of weighted_sum's output y, got none");
  expect_shape(status, "dy", dy, y, "as the output y");
  out[kWeightedSumDx] = s.in[kWeightedSumX];
  out[kWeightedSumDw] = s.in[kWeightedSumW];
}

double flops(const OpShape& s) { return 2.0 * double(s.in[kWeightedSumX].count()); }

double flops_backward(const OpShape& s) {
  const bool dx = !s.out || s.out[kWeightedSumDx].given(), dw = !s.out || s.out[kWeightedSumDw].given();
  return double(s.in[kWeightedSumX].count()) * ((dx ? 1 : 0) + (dw ? 2 : 0));
}

}  // namespace

const OpDef kWeightedSum = {
    .name = "weighted_sum",
    .summary = "y_b = sum over j of w_bj x_bj (modality weighting, spec 2.1)",
    AFFUSE_FIELDS(inputs, input_count, kForwardInputs),
    AFFUSE_FIELDS(outputs, output_count, kForwardOutputs),
    .attrs = nullptr,
    .attr_count = 0,
    .backward = "weighted_sum.backward",
    .flops = "2*B*J*D",
    .bytes = "4*(B*J*D + B*J + B*D)",
    .flop_count = flops,
    .infer = infer,
    .validate = nullptr,
    .workspace = nullptr,
    .reference = weighted_sum_reference,
    .cpu = AFFUSE_KERNEL_TABLE(weighted_sum_forward),
    .pack_bytes = nullptr,
    .pack_key = nullptr,
    .pack = {},
};

const OpDef kWeightedSumBackward = {
    .name = "weighted_sum.backward",
    .summary = "dx_bj = w_bj dy_b, dw_bj = dy_b . x_bj",
    AFFUSE_FIELDS(inputs, input_count, kBackwardInputs),
    AFFUSE_FIELDS(outputs, output_count, kBackwardOutputs),
    .attrs = nullptr,
    .attr_count = 0,
    .backward = nullptr,
    .flops = "3*B*J*D",
    .bytes = "4*(2*B*J*D + 2*B*J + B*D)",
    .flop_count = flops_backward,
    .infer = infer_backward,
    .validate = nullptr,
    .workspace = nullptr,
    .reference = weighted_sum_backward_reference,
    .cpu = AFFUSE_KERNEL_TABLE(weighted_sum_backward),
    .pack_bytes = nullptr,
    .pack_key = nullptr,
    .pack = {},
};

}  // namespace affuse
