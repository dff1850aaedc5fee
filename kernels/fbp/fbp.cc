#include "fbp.h"

#include "../common/shape.h"
#include "plan.h"

namespace affuse {
namespace {

const TensorRule kInputs[] = {
    {"a", "[A,m]", DType::f32, false, "first modality, one row per group; A = B / rowsPerGroup"},
    {"v", "[B,n]", DType::f32, false, "second modality"},
    {"U", "[P,m]", DType::f32, false, "projection of a; P = o k"},
    {"V", "[P,n]", DType::f32, false, "projection of v"},
    {"bu", "[P]", DType::f32, true, "bias of the projection of a; absent: 0"},
    {"bv", "[P]", DType::f32, true, "bias of the projection of v; absent: 0"},
};
const TensorRule kOutputs[] = {
    {"z", "[B,o]", DType::f32, false, "pooled and normalised"},
    {"s", "[B,o]", DType::f32, false, "pooled, before the square root: saved for the backward"},
    {"hu", "[A,P]", DType::f32, true, "f(a U^T + bu), for the backward; offered if hu and hv take at most 64 MiB together"},
    {"hv", "[B,P]", DType::f32, true, "f(v V^T + bv), likewise"},
};
static_assert(std::size(kOutputs) == FbpOut::count);
const TensorRule kBackwardInputs[] = {
    kInputs[FbpIn::a],
    kInputs[FbpIn::v],
    kInputs[FbpIn::U],
    kInputs[FbpIn::V],
    kInputs[FbpIn::bu],
    kInputs[FbpIn::bv],
    {"z", "[B,o]", DType::f32, true, "saved by the forward; not needed"},
    {"s", "[B,o]", DType::f32, true, "saved by the forward; absent: computed again"},
    {"hu", "[A,P]", DType::f32, true, "saved by the forward; used if s, hu and hv are all there, else computed again"},
    {"hv", "[B,P]", DType::f32, true, "likewise"},
    {"dz", "[B,o]", DType::f32, true, "absent: 0; one of dz and ds must be there"},
    {"ds", "[B,o]", DType::f32, true, "absent: 0"},
};
const TensorRule kBackwardOutputs[] = {
    {"da", "[A,m]", DType::f32, false, ""},
    {"dv", "[B,n]", DType::f32, false, ""},
    {"dU", "[P,m]", DType::f32, false, ""},
    {"dV", "[P,n]", DType::f32, false, ""},
    {"dbu", "[P]", DType::f32, false, "made only if bu is given"},
    {"dbv", "[P]", DType::f32, false, "made only if bv is given"},
};
const AttrRule kAttrs[] = {
    {"k", AttrKind::integer, 4, 1, 4096, nullptr, "factors per output"},
    {"normalize", AttrKind::choice, FbpNormalize::power_l2, 0, 0, "none|l2|power|power-l2", "what follows the sum over k"},
    {"activation", AttrKind::choice, FbpActivation::none, 0, 0, "none|relu|tanh", "of both projections"},
    {"l2Scope", AttrKind::choice, FbpScope::sample, 0, 0, "sample|group",
     "what the root of l2 sums over: a row, or all rows of a group"},
    {"rowsPerGroup", AttrKind::integer, 1, 1, 2147483647.0, nullptr, "consecutive rows of v that share a row of a"},
    {"dropout", AttrKind::real, 0, 0, 0x1.fffffffffffffp-1, nullptr, "probability of dropping a product, in [0,1)"},
    {"seed", AttrKind::seed, 0, -1e300, 1e300, nullptr, "64-bit Philox key"},
    {"instance", AttrKind::integer, 0, 0, 4294967295.0, nullptr, "which dropout of the model this is"},
    {"step", AttrKind::integer, 0, 0, 4294967295.0, nullptr, "training step"},
    {"eps", AttrKind::real, 1e-8, 1e-20, 1, nullptr, "smooths the signed root at 0"},
    {"eps2", AttrKind::real, 1e-12, 1e-24, 1, nullptr, "added under the root of l2"},
    {"precision", AttrKind::choice, gemm::Precision::f32, 0, 0, gemm::kPrecisionChoices, gemm::kPrecisionDoc},
};
static_assert(std::size(kAttrs) == FbpAttr::count && FbpAttr::count <= kMaxAttrs);

double projections(const FbpSizes& z) { return double(z.P) * (double(z.A) * double(z.m) + double(z.B) * double(z.n)); }
double flops(const OpShape& s) {
  const FbpSizes z = fbp_sizes(s.in, s.attr);
  return 2 * projections(z) + 2 * double(z.B) * double(z.P);
}
double backward_flops(const OpShape& s) {
  const FbpSizes z = fbp_sizes(s.in, s.attr);
  double n = (fbp_kept(s.in) ? 0 : 2 * projections(z)) + 4 * double(z.B) * double(z.P);
  const double a = 2 * double(z.P) * double(z.A) * double(z.m), v = 2 * double(z.P) * double(z.B) * double(z.n);
  for (int i = 0; i < 4; ++i)
    if (!s.out || s.out[i].given()) n += i % 2 ? v : a;
  return n;
}

void infer(const OpShape& s, TensorDesc* out, Status& status) {
  const FbpSizes z = fbp_sizes(s.in, s.attr);
  expect_positive(status, "a", "m", s.in[FbpIn::a], z.m);
  expect_positive(status, "v", "n", s.in[FbpIn::v], z.n);
  expect_positive(status, "U", "P", s.in[FbpIn::U], z.P);
  if (z.B % z.group)
    status.fail("ERR_AFFUSE_SHAPE", "expected rows of v that are a multiple of rowsPerGroup = %lld, got %s",
                (long long)z.group, ShapeText(s.in[FbpIn::v]).text);
  if (z.P % z.k)
    status.fail("ERR_AFFUSE_SHAPE", "expected rows of U that are a multiple of k = %lld, got %s", (long long)z.k,
                ShapeText(s.in[FbpIn::U]).text);
  const TensorDesc bias = tensor_desc(DType::f32, {z.P});
  expect_shape(status, "a", s.in[FbpIn::a], tensor_desc(DType::f32, {z.B / z.group, z.m}),
               "one row per rowsPerGroup rows of v");
  expect_shape(status, "U", s.in[FbpIn::U], tensor_desc(DType::f32, {z.P, z.m}), "[o*k, columns of a]");
  expect_shape(status, "V", s.in[FbpIn::V], tensor_desc(DType::f32, {z.P, z.n}), "[rows of U, columns of v]");
  expect_shape(status, "bu", s.in[FbpIn::bu], bias, "the rows of U");
  expect_shape(status, "bv", s.in[FbpIn::bv], bias, "the rows of V");
  out[FbpOut::z] = out[FbpOut::s] = tensor_desc(DType::f32, {z.B, z.o});
  if (!fbp_keeps(z)) return;
  out[FbpOut::hu] = tensor_desc(DType::f32, {z.A, z.P});
  out[FbpOut::hv] = tensor_desc(DType::f32, {z.B, z.P});
}

void infer_backward(const OpShape& s, TensorDesc* out, Status& status) {
  TensorDesc forward[FbpOut::count];
  infer(s, forward, status);
  for (int i : {FbpIn::z, FbpIn::s, FbpIn::dz, FbpIn::ds})
    expect_shape(status, kBackwardInputs[i].name, s.in[i], forward[0], "the shape of z");
  const FbpSizes z = fbp_sizes(s.in, s.attr);
  expect_shape(status, "hu", s.in[FbpIn::hu], tensor_desc(DType::f32, {z.A, z.P}), "[rows of a, rows of U]");
  expect_shape(status, "hv", s.in[FbpIn::hv], tensor_desc(DType::f32, {z.B, z.P}), "[rows of v, rows of V]");
  if (!s.in[FbpIn::dz].given() && !s.in[FbpIn::ds].given())
    status.fail("ERR_AFFUSE_MISSING", "expected dz or ds for fbp.backward, got neither");
  for (int i = 0; i < 6; ++i)
    if (s.in[i].given()) out[i] = like(s.in[i]);
}

size_t workspace(const OpShape& s, int workers) {
  return size_t(fbp_forward_workspace(fbp_sizes(s.in, s.attr), workers)) * sizeof(float);
}
size_t backward_workspace(const OpShape& s, int workers) {
  const FbpSizes z = fbp_sizes(s.in, s.attr);
  return size_t(fbp_backward_plan(z, fbp_plan(z), workers, s.in[FbpIn::s].given(), fbp_kept(s.in)).total) * sizeof(float);
}

// A packed form depends on k and on the precision, so each has its own key; beyond these k the weight is packed at every
// call.
constexpr const char* kPackKeys[3][17] = {
    {nullptr, "fbp.k1", "fbp.k2", "fbp.k3", "fbp.k4", "fbp.k5", "fbp.k6", "fbp.k7", "fbp.k8", "fbp.k9", "fbp.k10", "fbp.k11",
     "fbp.k12", "fbp.k13", "fbp.k14", "fbp.k15", "fbp.k16"},
    {nullptr, "fbp.k1.bf16", "fbp.k2.bf16", "fbp.k3.bf16", "fbp.k4.bf16", "fbp.k5.bf16", "fbp.k6.bf16", "fbp.k7.bf16",
     "fbp.k8.bf16", "fbp.k9.bf16", "fbp.k10.bf16", "fbp.k11.bf16", "fbp.k12.bf16", "fbp.k13.bf16", "fbp.k14.bf16",
     "fbp.k15.bf16", "fbp.k16.bf16"},
    {nullptr, "fbp.k1.rounded", "fbp.k2.rounded", "fbp.k3.rounded", "fbp.k4.rounded", "fbp.k5.rounded", "fbp.k6.rounded",
     "fbp.k7.rounded", "fbp.k8.rounded", "fbp.k9.rounded", "fbp.k10.rounded", "fbp.k11.rounded", "fbp.k12.rounded",
     "fbp.k13.rounded", "fbp.k14.rounded", "fbp.k15.rounded", "fbp.k16.rounded"}};

bool weight(int input) { return input == FbpIn::U || input == FbpIn::V; }
size_t pack_bytes(const OpShape& s, int input) {
  const FbpSizes z = fbp_sizes(s.in, s.attr);
  // Training projects once per step, and packing on the way costs less than writing all weights once more.
  if (s.out && s.out[FbpOut::hu].given() && !z.bf16) return 0;
  if (!weight(input) || z.k >= int64_t(std::size(kPackKeys[0]))) return 0;
  return size_t(fbp_packed_floats(z, input == FbpIn::U ? z.em : z.en)) * sizeof(float);
}
// The backward projects once more from the forward's packed weights, or not at all.
size_t backward_pack_bytes(const OpShape& s, int input) {
  return fbp_kept(s.in) ? 0 : pack_bytes(OpShape{s.in, nullptr, s.attr}, input);
}
const char* pack_key(const OpShape& s, int) {
  const FbpSizes z = fbp_sizes(s.in, s.attr);
  return kPackKeys[z.pairs ? 1 : z.bf16 ? 2 : 0][z.k];
}
}  // namespace

const OpDef kFbp = {
    .name = "fbp",
    .summary = "z = normalize(sum over k of (a U^T + bu) o (v V^T + bv)) (spec 1.2)",
    AFFUSE_FIELDS(inputs, input_count, kInputs),
    AFFUSE_FIELDS(outputs, output_count, kOutputs),
    AFFUSE_FIELDS(attrs, attr_count, kAttrs),
    .backward = "fbp.backward",
    .flops = "2*P*(A*m + B*n) + 2*B*P",
    .bytes = "4*(A*m + B*n + P*m + P*n + 2*P + 2*B*o)",
    .flop_count = flops,
    .infer = infer,
    .validate = nullptr,
    .workspace = workspace,
    .reference = fbp_reference,
    .cpu = AFFUSE_KERNEL_TABLE(fbp_forward),
    .pack_bytes = pack_bytes,
    .pack_key = pack_key,
    .pack = AFFUSE_KERNEL_TABLE(fbp_pack),
};

const OpDef kFbpBackward = {
    .name = "fbp.backward",
    .summary = "da, dv, dU, dV, dbu, dbv from dz and ds, finite also at s = 0 (spec 1.2)",
    AFFUSE_FIELDS(inputs, input_count, kBackwardInputs),
    AFFUSE_FIELDS(outputs, output_count, kBackwardOutputs),
    AFFUSE_FIELDS(attrs, attr_count, kAttrs),
    .backward = nullptr,
    .flops = "4*P*(A*m + B*n) + 4*B*P, and 2*P*(A*m + B*n) without hu and hv",
    .bytes = "4*(2*(A*m + B*n + P*m + P*n + 2*P) + 2*B*o)",
    .flop_count = backward_flops,
    .infer = infer_backward,
    .validate = nullptr,
    .workspace = backward_workspace,
    .reference = fbp_backward_reference,
    .cpu = AFFUSE_KERNEL_TABLE(fbp_backward),
    .pack_bytes = backward_pack_bytes,
    .pack_key = pack_key,
    .pack = AFFUSE_KERNEL_TABLE(fbp_pack),
};

}  // namespace affuse
