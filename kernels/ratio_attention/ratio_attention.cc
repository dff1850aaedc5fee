// Rules, checks and costs of ratio_attention; the mathematics is in ratio_attention.h.
#include "ratio_attention.h"

#include "../common/frame_rules.h"

namespace affuse {
namespace {

constexpr TensorRule kForwardInputs[] = {
    {"x", "[B,T,D]", DType::f32, false, "frames; padding may hold anything, NaN included"},
    {"lengths", "[B]", DType::i32, true, "valid frames per sample, in [0,T]; absent: all T"},
    {"q", "[D]", DType::f32, false, "gate weights"},
    {"beta", "[1]", DType::f32, false, "gate bias"},
    {"mask", "[B,T]", DType::i32, true, "0: treat the frame exactly like padding"},
};
constexpr TensorRule kForwardOutputs[] = {
    {"c", "[B,D]", DType::f32, false, "gate-weighted mean of the valid frames"},
    {"alpha", "[B,T]", DType::f32, false, "the gates sigmoid(q.x + beta), not normalised; 0 on padding"},
};
constexpr TensorRule kBackwardInputs[] = {
    kForwardInputs[0],
    kForwardInputs[1],
    kForwardInputs[2],
    kForwardInputs[3],
    kForwardInputs[4],
    {"alpha", "[B,T]", DType::f32, true, "saved output; not needed"},
    {"c", "[B,D]", DType::f32, true, "saved output; not needed"},
    {"dc", "[B,D]", DType::f32, true, "gradient of c"},
    {"dalpha", "[B,T]", DType::f32, true, "gradient of alpha; its padding is not read"},
};
constexpr TensorRule kBackwardOutputs[] = {
    {"dx", "[B,T,D]", DType::f32, false, "gradient of x; exactly 0 on padding"},
    {"dq", "[D]", DType::f32, false, "gradient of q"},
    {"dbeta", "[1]", DType::f32, false, "gradient of beta"},
};

void infer(const OpShape& s, TensorDesc* out, Status& status) {
  const TensorDesc& x = s.in[kRatioX];
  check_frame_shapes(x, s.in[kRatioLengths], s.in[kRatioMask], status);
  expect_shape(status, "q", s.in[kRatioQ], tensor_desc(x.dtype, {x.dim[2]}), "one per column of x");
  expect_shape(status, "beta", s.in[kRatioBeta], tensor_desc(x.dtype, {1}), "a single number");
  out[kRatioOutC] = tensor_desc(x.dtype, {x.dim[0], x.dim[2]});
  out[kRatioOutAlpha] = tensor_desc(x.dtype, {x.dim[0], x.dim[1]});
}

void infer_backward(const OpShape& s, TensorDesc* out, Status& status) {
  TensorDesc forward[2];
  infer(s, forward, status);
  expect_shape(status, "alpha", s.in[kRatioAlpha], forward[kRatioOutAlpha], "as the output alpha");
  expect_shape(status, "c", s.in[kRatioC], forward[kRatioOutC], "as the output c");
  expect_shape(status, "dc", s.in[kRatioDc], forward[kRatioOutC], "as the output c");
  expect_shape(status, "dalpha", s.in[kRatioDalpha], forward[kRatioOutAlpha], "as the output alpha");
  if (!s.in[kRatioDc].given() && !s.in[kRatioDalpha].given())
    status.fail("ERR_AFFUSE_MISSING", "expected at least one of dc and dalpha, got neither");
  out[kRatioDx] = s.in[kRatioX];
  out[kRatioDq] = s.in[kRatioQ];
  out[kRatioDbeta] = s.in[kRatioBeta];
}

void validate(const OpCall& call, Status& status) {
  check_length_values(call.in[kRatioX], call.in[kRatioLengths], status);
}

double flops(const OpShape& s) { return 4.0 * double(s.in[kRatioX].count()); }

double flops_backward(const OpShape& s) {
  const bool dx = !s.out || s.out[kRatioDx].given(), dq = !s.out || s.out[kRatioDq].given();
  return double(s.in[kRatioX].count()) * (4 + (dx ? 4 : 0) + (dq ? 2 : 0));
}

constexpr size_t round_up(size_t bytes) { return (bytes + 63) / 64 * 64; }

}  // namespace

size_t ratio_attention_workspace(const OpShape& s, int workers) {
  if (s.in[kRatioX].dim[0] == 0) return 0;  // T may be anything then
  return size_t(workers) * round_up(size_t(s.in[kRatioX].dim[1]) * sizeof(int32_t));
}

size_t ratio_attention_backward_workspace(const OpShape& s, int workers) {
  const TensorDesc& x = s.in[kRatioX];
  const size_t B = size_t(x.dim[0]), T = size_t(x.dim[1]), D = size_t(x.dim[2]);
  if (B == 0) return 0;
  return size_t(workers) * 3 * round_up(T * sizeof(float)) + round_up(B * (D + 1) * sizeof(float));
}

const OpDef kRatioAttention = {
    .name = "ratio_attention",
    .summary = "alpha_t = sigmoid(q.x_t + beta), c = sum alpha_t x_t / sum alpha_t over valid t (spec 1.1)",
    AFFUSE_FIELDS(inputs, input_count, kForwardInputs),
    AFFUSE_FIELDS(outputs, output_count, kForwardOutputs),
    .attrs = nullptr,
    .attr_count = 0,
    .backward = "ratio_attention.backward",
    .flops = "4*B*T*D",
    .bytes = "4*(B*T*D + D + 1 + B*D + B*T)",
    .flop_count = flops,
    .infer = infer,
    .validate = validate,
    .workspace = ratio_attention_workspace,
    .reference = ratio_attention_reference,
    .cpu = AFFUSE_KERNEL_TABLE(ratio_attention_forward),
    .pack_bytes = nullptr,
    .pack_key = nullptr,
    .pack = {},
};

const OpDef kRatioAttentionBackward = {
    .name = "ratio_attention.backward",
    .summary = "gradients of ratio_attention for x, q and beta",
    AFFUSE_FIELDS(inputs, input_count, kBackwardInputs),
    AFFUSE_FIELDS(outputs, output_count, kBackwardOutputs),
    .attrs = nullptr,
    .attr_count = 0,
    .backward = nullptr,
    .flops = "10*B*T*D",
    .bytes = "4*(2*B*T*D + 2*D + 2 + B*D + B*T)",
    .flop_count = flops_backward,
    .infer = infer_backward,
    .validate = validate,
    .workspace = ratio_attention_backward_workspace,
    .reference = ratio_attention_backward_reference,
    .cpu = AFFUSE_KERNEL_TABLE(ratio_attention_backward),
    .pack_bytes = nullptr,
    .pack_key = nullptr,
    .pack = {},
};

}  // namespace affuse
