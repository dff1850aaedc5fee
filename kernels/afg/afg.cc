// Rules, checks and costs of afg; the mathematics is in afg.h.
#include "afg.h"

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
};

void infer(const OpShape& s, TensorDesc* out, Status& status) {
  const TensorDesc &x = s.in[kAfgX], &W = s.in[kAfgW], &b = s.in[kAfgB], &u = s.in[kAfgU], &q = s.in[kAfgQ];
  check_frame_shapes(x, s.in[kAfgLengths], s.in[kAfgMask], status);
  if (!status.ok()) return;
  const long long B = x.dim[0], T = x.dim[1], D = x.dim[2], A = W.dim[0];
  if (A < 1 || W.dim[1] != D)
    return status.fail("ERR_AFFUSE_SHAPE", "expected W [A,%lld] with A >= 1 for x [%lld,%lld,%lld], got [%lld,%lld]", D, B,
                       T, D, A, (long long)W.dim[1]);
  if (b.dim[0] != A)
    return status.fail("ERR_AFFUSE_SHAPE", "expected b [%lld] for W [%lld,%lld], got [%lld]", A, A, D, (long long)b.dim[0]);
  if (u.given() == q.given())
    return status.fail("ERR_AFFUSE_MISSING", "expected exactly one of u [A] and q [B,J,A], got %s",
                       u.given() ? "both" : "neither");
  if (u.given() && u.dim[0] != A)
    return status.fail("ERR_AFFUSE_SHAPE", "expected u [%lld] for W [%lld,%lld], got [%lld]", A, A, D, (long long)u.dim[0]);
  if (q.given() && (q.dim[0] != B || q.dim[1] < 1 || q.dim[2] != A))
    return status.fail("ERR_AFFUSE_SHAPE", "expected q [%lld,J,%lld] with J >= 1, got [%lld,%lld,%lld]", B, A,
                       (long long)q.dim[0], (long long)q.dim[1], (long long)q.dim[2]);
  const int64_t J = afg_size(s.in).J;
  out[kAfgOutC] = {x.dtype, 3, {B, J, D}};
  out[kAfgOutAlpha] = {x.dtype, 3, {B, J, T}};
  out[kAfgOutK] = {x.dtype, 3, {B, T, A}};
}

void check_same(const char* name, const TensorDesc& given, const TensorDesc& expected, Status& status) {
  if (!status.ok() || !given.given()) return;
  const int64_t *g = given.dim, *e = expected.dim;
  if (g[0] != e[0] || g[1] != e[1] || g[2] != e[2])
    status.fail("ERR_AFFUSE_SHAPE", "expected %s [%lld,%lld,%lld], got [%lld,%lld,%lld]", name, (long long)e[0],
                (long long)e[1], (long long)e[2], (long long)g[0], (long long)g[1], (long long)g[2]);
}

void infer_backward(const OpShape& s, TensorDesc* out, Status& status) {
  TensorDesc forward[3];
  infer(s, forward, status);
  check_same("alpha", s.in[kAfgAlpha], forward[kAfgOutAlpha], status);
  check_same("c", s.in[kAfgC], forward[kAfgOutC], status);
  check_same("k", s.in[kAfgK], forward[kAfgOutK], status);
  check_same("dc", s.in[kAfgDc], forward[kAfgOutC], status);
  check_same("dalpha", s.in[kAfgDalpha], forward[kAfgOutAlpha], status);
  if (!status.ok()) return;
  if (!s.in[kAfgDc].given() && !s.in[kAfgDalpha].given())
    return status.fail("ERR_AFFUSE_MISSING", "expected at least one of dc and dalpha, got neither");
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

}  // namespace

const OpDef kAfg = {
    .name = "afg",
    .summary = "k_t = tanh(W x_t + b), alpha_j = softmax_t(scale q_j.k_t), c_j = sum alpha_tj x_t over valid t (spec 1.1)",
    .inputs = kForwardInputs,
    .input_count = 7,
    .outputs = kForwardOutputs,
    .output_count = 3,
    .attrs = kAttrs,
    .attr_count = 2,
    .backward = "afg.backward",
    .flops = "2*B*T*A*D + 2*B*T*J*(A + D)",
    .bytes = "4*(B*T*D + A*D + A + B*J*A + B*J*D + B*J*T)",
    .flop_count = flops,
    .infer = infer,
    .validate = validate,
    .workspace = afg_workspace,
    .reference = afg_reference,
    .cpu = AFFUSE_KERNEL_TABLE(afg_forward),
    .pack_bytes = nullptr,
    .pack_key = nullptr,
    .pack = {},
};

const OpDef kAfgBackward = {
    .name = "afg.backward",
    .summary = "gradients of afg for x, W, b, and u or q",
    .inputs = kBackwardInputs,
    .input_count = 12,
    .outputs = kBackwardOutputs,
    .output_count = 5,
    .attrs = kAttrs,
    .attr_count = 2,
    .backward = nullptr,
    .flops = "4*B*T*A*D + 4*B*T*J*(A + D)",
    .bytes = "4*(2*B*T*D + 2*A*D + B*T*A + 2*A + 2*B*J*A + B*J*D + B*J*T)",
    .flop_count = flops_backward,
    .infer = infer_backward,
    .validate = validate,
    .workspace = afg_backward_workspace,
    .reference = afg_backward_reference,
    .cpu = AFFUSE_KERNEL_TABLE(afg_backward),
    .pack_bytes = nullptr,
    .pack_key = nullptr,
    .pack = {},
};

}  // namespace affuse
