// Rules, checks and costs of weighted_sum; the mathematics is in weighted_sum.h.
#include "weighted_sum.h"

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
  const long long B = x.dim[0], J = x.dim[1], D = x.dim[2];
  if (D < 1) return status.fail("ERR_AFFUSE_SHAPE", "expected x [B,J,D] with D >= 1, got [%lld,%lld,%lld]", B, J, D);
  if (w.dim[0] != B || w.dim[1] != J)
    return status.fail("ERR_AFFUSE_SHAPE", "expected w [%lld,%lld] for x [%lld,%lld,%lld], got [%lld,%lld]", B, J, B, J, D,
                       (long long)w.dim[0], (long long)w.dim[1]);
  out[0] = {x.dtype, 2, {B, D}};
}

void infer_backward(const OpShape& s, TensorDesc* out, Status& status) {
  TensorDesc y;
  infer(s, &y, status);
  if (!status.ok()) return;
  const TensorDesc& dy = s.in[kWeightedSumDy];
  if (!dy.given()) return status.fail("ERR_AFFUSE_MISSING", "expected dy, the gradient of weighted_sum's output, got none");
  if (dy.dim[0] != y.dim[0] || dy.dim[1] != y.dim[1])
    return status.fail("ERR_AFFUSE_SHAPE", "expected dy [%lld,%lld] as y, got [%lld,%lld]", (long long)y.dim[0],
                       (long long)y.dim[1], (long long)dy.dim[0], (long long)dy.dim[1]);
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
    .inputs = kForwardInputs,
    .input_count = 2,
    .outputs = kForwardOutputs,
    .output_count = 1,
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
    .inputs = kBackwardInputs,
    .input_count = 3,
    .outputs = kBackwardOutputs,
    .output_count = 2,
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
