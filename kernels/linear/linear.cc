#include "linear.h"

#include "../common/shape.h"

namespace affuse {
namespace {

const TensorRule kInputs[] = {
    {"x", "[...,D]", DType::f32, false, "rows of D features; R rows altogether"},
    {"W", "[O,D]", DType::f32, false, "weight, [out, in]"},
    {"b", "[O]", DType::f32, true, "bias; absent: 0"},
};
const TensorRule kOutputs[] = {
    {"y", "[...,O]", DType::f32, false, "f(x W^T + b)"},
    {"pre", "[...,O]", DType::f32, true, "x W^T + b, which the backward of gelu needs"},
};
const TensorRule kBackwardInputs[] = {
    kInputs[0],
    kInputs[1],
    kInputs[2],
    {"y", "[...,O]", DType::f32, true, "saved by the forward; used by relu, tanh and sigmoid; absent: computed again"},
    {"pre", "[...,O]", DType::f32, true, "saved by the forward; used by gelu; absent: computed again"},
    {"dy", "[...,O]", DType::f32, false, ""},
};
const TensorRule kBackwardOutputs[] = {
    {"dx", "[...,D]", DType::f32, false, ""},
    {"dW", "[O,D]", DType::f32, false, ""},
    {"db", "[O]", DType::f32, false, "made only if b is given"},
};
const AttrRule kAttrs[] = {
    {"activation", AttrKind::choice, ActivationKind::none, 0, 0, "none|relu|gelu|tanh|sigmoid",
     "gelu is the exact one, through erf"},
    {"precision", AttrKind::choice, gemm::Precision::f32, 0, 0, gemm::kPrecisionChoices, gemm::kPrecisionDoc},
};

double product(const OpShape& s) { return double(row_count(s.in[0])) * double(s.in[1].dim[0]) * double(s.in[1].dim[1]); }
double flops(const OpShape& s) { return 2 * product(s); }
double backward_flops(const OpShape& s) {
  double n = 0;
  if (!s.out || s.out[0].given()) n += 2 * product(s);
  if (!s.out || s.out[1].given()) n += 2 * product(s);
  if (!s.out || s.out[2].given()) n += double(row_count(s.in[0])) * double(s.in[1].dim[0]);
  return n;
}

TensorDesc output(const OpShape& s) {
  TensorDesc y = like(s.in[0]);
  y.dim[y.rank - 1] = s.in[1].dim[0];
  return y;
}

void infer(const OpShape& s, TensorDesc* out, Status& status) {
  const TensorDesc &x = s.in[0], &W = s.in[1];
  expect_positive(status, "x", "D", x, x.dim[x.rank - 1]);
  expect_positive(status, "W", "O", W, W.dim[0]);
  expect_shape(status, "W", W, tensor_desc(DType::f32, {W.dim[0], x.dim[x.rank - 1]}), "[O, the last dimension of x]");
  expect_shape(status, "b", s.in[2], tensor_desc(DType::f32, {W.dim[0]}), "the rows of W");
  out[0] = out[1] = output(s);
}

void infer_backward(const OpShape& s, TensorDesc* out, Status& status) {
  TensorDesc forward[2];
  infer(s, forward, status);
  for (int i = 3; i < 6; ++i) expect_shape(status, kBackwardInputs[i].name, s.in[i], forward[0], "the shape of y");
  for (int i = 0; i < 3; ++i)
    if (s.in[i].given()) out[i] = like(s.in[i]);
}

bool bf16(const OpShape& s) { return s.attr[LinearAttr::precision].i == gemm::Precision::bf16; }

size_t workspace(const OpShape& s, int workers) {
  return size_t(linear_workspace(row_count(s.in[0]), s.in[1].dim[1], s.in[1].dim[0], workers, bf16(s))) * sizeof(float);
}
size_t backward_workspace(const OpShape& s, int workers) {
  const bool activated = s.attr[LinearAttr::activation].i != ActivationKind::none;
  const int64_t R = row_count(s.in[0]), O = s.in[1].dim[0], D = s.in[1].dim[1];
  const auto scratch = linear_backward_scratch(R, D, O, workers, activated, bf16(s));
  return size_t(scratch.total) * sizeof(float);
}

bool pairs(const OpShape& s) { return gemm::keeps_pairs(row_count(s.in[0])); }
size_t pack_bytes(const OpShape& s, int64_t N, int64_t K) {
  return size_t(bf16(s) ? gemm::packed_floats_bf16(N, K, pairs(s)) : gemm::packed_floats(N, K)) * sizeof(float);
}
size_t forward_pack_bytes(const OpShape& s, int input) {
  return input == 1 ? pack_bytes(s, s.in[1].dim[0], s.in[1].dim[1]) : 0;
}
size_t backward_pack_bytes(const OpShape& s, int input) {
  return input == 1 ? pack_bytes(s, s.in[1].dim[1], s.in[1].dim[0]) : 0;
}
const char* forward_pack_key(const OpShape& s, int) { return bf16(s) ? gemm::key_nk_bf16(pairs(s)) : gemm::kKeyNk; }
const char* backward_pack_key(const OpShape& s, int) { return bf16(s) ? gemm::key_kn_bf16(pairs(s)) : gemm::kKeyKn; }

}  // namespace

const OpDef kLinear = {
    .name = "linear",
    .summary = "y = f(x W^T + b) (spec 1.6)",
    AFFUSE_FIELDS(inputs, input_count, kInputs),
    AFFUSE_FIELDS(outputs, output_count, kOutputs),
    AFFUSE_FIELDS(attrs, attr_count, kAttrs),
    .backward = "linear.backward",
    .flops = "2*R*D*O",
    .bytes = "4*(R*D + O*D + O + R*O)",
    .flop_count = flops,
    .infer = infer,
    .validate = nullptr,
    .workspace = workspace,
    .reference = linear_reference,
    .cpu = AFFUSE_KERNEL_TABLE(linear_forward),
    .pack_bytes = forward_pack_bytes,
    .pack_key = forward_pack_key,
    .pack = AFFUSE_KERNEL_TABLE(linear_pack),
};

const OpDef kLinearBackward = {
    .name = "linear.backward",
    .summary = "g = dy f'(z): dx = g W, dW = g^T x, db = column sums of g",
    AFFUSE_FIELDS(inputs, input_count, kBackwardInputs),
    AFFUSE_FIELDS(outputs, output_count, kBackwardOutputs),
    AFFUSE_FIELDS(attrs, attr_count, kAttrs),
    .backward = nullptr,
    .flops = "4*R*D*O + R*O",
    .bytes = "4*(2*R*D + 2*O*D + 2*O + 2*R*O)",
    .flop_count = backward_flops,
    .infer = infer_backward,
    .validate = nullptr,
    .workspace = backward_workspace,
    .reference = linear_backward_reference,
    .cpu = AFFUSE_KERNEL_TABLE(linear_backward),
    .pack_bytes = backward_pack_bytes,
    .pack_key = backward_pack_key,
    .pack = AFFUSE_KERNEL_TABLE(linear_backward_pack),
};

}  // namespace affuse
