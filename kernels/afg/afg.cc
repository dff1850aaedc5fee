// Rules, checks and costs of afg; the mathematics is in afg.h.
#include "afg.h"

#include "../common/frame_rules.h"
#include "scratch.h"

namespace affuse {
namespace {

constexpr TensorRule kForwardInputs[] = {
    {"x", "[B,T,D]", DType::f32, false, "frames; padding may hold anything, NaN included"},
    {"lengths", "[B]", DType::i32, true, "valid frames per sample, in [0,T]; absent: all T"},
    {"W", "[A,D]", DType::f32, false, "key projection"},
    {"b", "[A]", DType::f32, false, "key bias"},
    {"u", "[A]", DType::f32, true, "learned query, the same for every sample; either u or q"},
    {"q", "[B,J,A]", DType::f32, true, "J queries per sample; either u or q"},
    {"mask", "[B,T]", DType::i32, true, "0: treat the frame exactly like padding"},
};
constexpr TensorRule kForwardOutputs[] = {
    {"c", "[B,J,D]", DType::f32, false, "gathered vectors (J = 1 with u)"},
    {"alpha", "[B,J,T]", DType::f32, false, "attention over the frames; 0 on padding when masked"},
    {"k", "[B,T,A]", DType::f32, true, "tanh(Wx + b) of valid frames, 0 elsewhere; for the backward"},
};
constexpr TensorRule kBackwardInputs[] = {
    kForwardInputs[0],
    kForwardInputs[1],
    kForwardInputs[2],
    kForwardInputs[3],
    kForwardInputs[4],
    kForwardInputs[5],
    kForwardInputs[6],
    {"alpha", "[B,J,T]", DType::f32, true, "saved output; absent: computed again"},
    {"c", "[B,J,D]", DType::f32, true, "saved output; not needed"},
    {"k", "[B,T,A]", DType::f32, true, "saved output; absent: computed again. Rows of padding are not read"},
    {"dc", "[B,J,D]", DType::f32, true, "gradient of c"},
    {"dalpha", "[B,J,T]", DType::f32, true, "gradient of alpha; when masked its padding is not read"},
};
constexpr TensorRule kBackwardOutputs[] = {
    {"dx", "[B,T,D]", DType::f32, false, "gradient of x; exactly 0 on padding"},
    {"dW", "[A,D]", DType::f32, false, "gradient of W"},
    {"db", "[A]", DType::f32, false, "gradient of b"},
    {"du", "[A]", DType::f32, false, "gradient of u; only when u is given"},
    {"dq", "[B,J,A]", DType::f32, false, "gradient of q; only when q is given"},
};
constexpr AttrRule kAttrs[] = {
    {"scale", AttrKind::real, 0.3, -1e30, 1e30, nullptr, "lambda, the factor on the scores"},
    {"masked", AttrKind::boolean, 1, 0, 1, nullptr, "false: padding takes part in the softmax as if x were 0 there"},
    {"precision", AttrKind::choice, gemm::Precision::f32, 0, 0, gemm::kPrecisionChoices, gemm::kPrecisionDoc},
};

void infer(const OpShape& s, TensorDesc* out, Status& status) {
  const TensorDesc &x = s.in[kAfgX], &W = s.in[kAfgW], &u = s.in[kAfgU], &q = s.in[kAfgQ];
  const auto [B, T, D, A, J] = afg_size(s.in);
  check_frame_shapes(x, s.in[kAfgLengths], s.in[kAfgMask], status);
  expect_positive(status, "W [A,D]", "A", W, A);
  expect_shape(status, "W", W, tensor_desc(W.dtype, {A, D}), "x's D columns");
  expect_shape(status, "b", s.in[kAfgB], tensor_desc(W.dtype, {A}), "one per row of W");
  if (u.given() == q.given())
    status.fail("ERR_AFFUSE_MISSING", "expected exactly one of u [A] and q [B,J,A], got %s", u.given() ? "both" : "neither");
  expect_shape(status, "u", u, tensor_desc(W.dtype, {A}), "one per row of W");
  expect_shape(status, "q", q, tensor_desc(W.dtype, {B, J, A}), "one row per query, one column per row of W");
  if (q.given()) expect_positive(status, "q [B,J,A]", "J", q, J);
  out[kAfgOutC] = tensor_desc(x.dtype, {B, J, D});
  out[kAfgOutAlpha] = tensor_desc(x.dtype, {B, J, T});
  out[kAfgOutK] = tensor_desc(x.dtype, {B, T, A});
}

void infer_backward(const OpShape& s, TensorDesc* out, Status& status) {
  TensorDesc forward[3];
  infer(s, forward, status);
  expect_shape(status, "alpha", s.in[kAfgAlpha], forward[kAfgOutAlpha], "as the output alpha");
  expect_shape(status, "c", s.in[kAfgC], forward[kAfgOutC], "as the output c");
  expect_shape(status, "k", s.in[kAfgK], forward[kAfgOutK], "as the output k");
  expect_shape(status, "dc", s.in[kAfgDc], forward[kAfgOutC], "as the output c");
  expect_shape(status, "dalpha", s.in[kAfgDalpha], forward[kAfgOutAlpha], "as the output alpha");
  if (!s.in[kAfgDc].given() && !s.in[kAfgDalpha].given())
    status.fail("ERR_AFFUSE_MISSING", "expected at least one of dc and dalpha, got neither");
  out[kAfgDx] = s.in[kAfgX];
  out[kAfgDW] = s.in[kAfgW];
  out[kAfgDb] = s.in[kAfgB];
  out[kAfgDu] = s.in[kAfgU];
  out[kAfgDq] = s.in[kAfgQ];
}

void validate(const OpCall& call, Status& status) {
  check_length_values(call.in[kAfgX], call.in[kAfgLengths], status);
}

double flops(const OpShape& s) {
  const AfgSize n = afg_size(s.in);
  return 2.0 * double(n.B * n.T) * double(n.A * n.D + n.J * (n.A + n.D));
}

double flops_backward(const OpShape& s) {
  const AfgSize n = afg_size(s.in);
  const bool dx = !s.out || s.out[kAfgDx].given(), dW = !s.out || s.out[kAfgDW].given();
  const double projection = 2.0 * double(n.A * n.D), gather = 2.0 * double(n.J * n.D), score = 2.0 * double(n.J * n.A);
  const bool again = !s.in[kAfgK].given();
  double per_frame = 2 * score + (s.in[kAfgDc].given() ? gather : 0) + (again ? projection + score : 0);
  if (dW) per_frame += projection;
  if (dx) per_frame += projection + (s.in[kAfgDc].given() ? gather : 0);
  return double(n.B * n.T) * per_frame;
}

// W as the columns of W x (forward) and of Wᵀ p̄ (backward, for dx).
size_t pack_bytes(const OpShape& s, int input) {
  const AfgSize n = afg_size(s.in);
  return input == kAfgW ? size_t(afg_packed_floats(n, n.A, n.D, afg_bf16(s.attr))) * sizeof(float) : 0;
}
size_t backward_pack_bytes(const OpShape& s, int input) {
  const AfgSize n = afg_size(s.in);
  const bool dx = !s.out || s.out[kAfgDx].given();
  return input == kAfgW && dx ? size_t(afg_packed_floats(n, n.D, n.A, afg_bf16(s.attr))) * sizeof(float) : 0;
}
const char* pack_key(const OpShape& s, int) {
  return afg_bf16(s.attr) ? gemm::key_nk_bf16(afg_pairs(afg_size(s.in))) : gemm::kKeyNk;
}
const char* backward_pack_key(const OpShape& s, int) {
  return afg_bf16(s.attr) ? gemm::key_kn_bf16(afg_pairs(afg_size(s.in))) : gemm::kKeyKn;
}

}  // namespace

// Without samples the other dimensions may be anything, and there is nothing to hold.
size_t afg_workspace(const OpShape& s, int workers) {
  if (s.in[kAfgX].dim[0] == 0) return 0;
  Carver measure{nullptr};
  carve_forward(measure, afg_size(s.in), workers, afg_bf16(s.attr));
  return measure.used;
}

size_t afg_backward_workspace(const OpShape& s, int workers) {
  if (s.in[kAfgX].dim[0] == 0) return 0;
  Carver measure{nullptr};
  carve_backward(measure, afg_size(s.in), workers, backward_plan(s.in, s.out), afg_bf16(s.attr));
  return measure.used;
}

const OpDef kAfg = {
    .name = "afg",
    .summary = "k_t = tanh(W x_t + b), alpha_j = softmax_t(scale q_j.k_t), c_j = sum alpha_tj x_t over valid t (spec 1.1)",
    AFFUSE_FIELDS(inputs, input_count, kForwardInputs),
    AFFUSE_FIELDS(outputs, output_count, kForwardOutputs),
    AFFUSE_FIELDS(attrs, attr_count, kAttrs),
    .backward = "afg.backward",
    .flops = "2*B*T*A*D + 2*B*T*J*(A + D)",
    .bytes = "4*(B*T*D + A*D + A + B*J*A + B*J*D + B*J*T)",
    .flop_count = flops,
    .infer = infer,
    .validate = validate,
    .workspace = afg_workspace,
    .reference = afg_reference,
    .cpu = AFFUSE_KERNEL_TABLE(afg_forward),
    .pack_bytes = pack_bytes,
    .pack_key = pack_key,
    .pack = AFFUSE_KERNEL_TABLE(afg_pack),
};

const OpDef kAfgBackward = {
    .name = "afg.backward",
    .summary = "gradients of afg for x, W, b, and u or q",
    AFFUSE_FIELDS(inputs, input_count, kBackwardInputs),
    AFFUSE_FIELDS(outputs, output_count, kBackwardOutputs),
    AFFUSE_FIELDS(attrs, attr_count, kAttrs),
    .backward = nullptr,
    .flops = "4*B*T*A*D + 4*B*T*J*(A + D)",
    .bytes = "4*(2*B*T*D + 2*A*D + B*T*A + 2*A + 2*B*J*A + B*J*D + B*J*T)",
    .flop_count = flops_backward,
    .infer = infer_backward,
    .validate = validate,
    .workspace = afg_backward_workspace,
    .reference = afg_backward_reference,
    .cpu = AFFUSE_KERNEL_TABLE(afg_backward),
    .pack_bytes = backward_pack_bytes,
    .pack_key = backward_pack_key,
    .pack = AFFUSE_KERNEL_TABLE(afg_backward_pack),
};

}  // namespace affuse
