#include "concat.h"

#include "../common/shape.h"

namespace affuse {
namespace {

const TensorRule kInputs[] = {
    {"x0", "[...]", DType::f32, false, "decides rank and the other dimensions"},
    {"x1", "[...]", DType::f32, true, "x1 … x7 like x0 except along the axis; absent ones are skipped"},
    {"x2", "[...]", DType::f32, true, ""},
    {"x3", "[...]", DType::f32, true, ""},
    {"x4", "[...]", DType::f32, true, ""},
    {"x5", "[...]", DType::f32, true, ""},
    {"x6", "[...]", DType::f32, true, ""},
    {"x7", "[...]", DType::f32, true, ""},
};
const TensorRule kOutputs[] = {{"y", "[...]", DType::f32, false, ""}};
const TensorRule kBackwardInputs[] = {kInputs[0], kInputs[1], kInputs[2], kInputs[3], kInputs[4],
                                      kInputs[5], kInputs[6], kInputs[7], {"dy", "[...]", DType::f32, false, ""}};
const TensorRule kBackwardOutputs[] = {
    {"dx0", "[...]", DType::f32, false, ""}, {"dx1", "[...]", DType::f32, false, ""},
    {"dx2", "[...]", DType::f32, false, ""}, {"dx3", "[...]", DType::f32, false, ""},
    {"dx4", "[...]", DType::f32, false, ""}, {"dx5", "[...]", DType::f32, false, ""},
    {"dx6", "[...]", DType::f32, false, ""}, {"dx7", "[...]", DType::f32, false, ""},
};
const AttrRule kAttrs[] = {
    {"axis", AttrKind::integer, -1, -kMaxRank, kMaxRank - 1, nullptr, "dimension to join along; negative from the end"},
};

double flops(const OpShape&) { return 0; }

void infer(const OpShape& s, TensorDesc* out, Status& status) {
  const TensorDesc& x0 = s.in[0];
  const int64_t axis = s.attr[0].i < 0 ? s.attr[0].i + x0.rank : s.attr[0].i;
  if (axis < 0 || axis >= x0.rank)
    return status.fail("ERR_AFFUSE_ATTRIBUTE", "expected axis in [%d,%d] for x0 %s, got %lld", -x0.rank, x0.rank - 1,
                       ShapeText(x0).text, (long long)s.attr[0].i);
  out[0] = like(x0);
  for (int i = 1; i < kConcatInputs; ++i) {
    const TensorDesc& x = s.in[i];
    if (!x.given()) continue;
    bool fits = x.rank == x0.rank;
    for (int d = 0; fits && d < x.rank; ++d) fits = d == axis || x.dim[d] == x0.dim[d];
    if (!fits)
      return status.fail("ERR_AFFUSE_SHAPE", "expected %s to have x0's shape %s except along axis %lld, got %s",
                         kInputs[i].name, ShapeText(x0).text, (long long)axis, ShapeText(x).text);
    out[0].dim[axis] += x.dim[axis];
  }
}

void infer_backward(const OpShape& s, TensorDesc* out, Status& status) {
  TensorDesc y;
  infer(s, &y, status);
  if (!status.ok()) return;
  expect_shape(status, "dy", s.in[kConcatInputs], y, "the inputs joined");
  for (int i = 0; i < kConcatInputs; ++i) out[i] = like(s.in[i]);
}

}  // namespace

const OpDef kConcat = {
    .name = "concat",
    .summary = "y = [x0; x1; …] along an axis (spec 1.6)",
    AFFUSE_FIELDS(inputs, input_count, kInputs),
    AFFUSE_FIELDS(outputs, output_count, kOutputs),
    AFFUSE_FIELDS(attrs, attr_count, kAttrs),
    .backward = "concat.backward",
    .flops = "0",
    .bytes = "8*N",
    .flop_count = flops,
    .infer = infer,
    .reference = concat_reference,
    .cpu = AFFUSE_KERNEL_TABLE(concat_forward),
};

const OpDef kConcatBackward = {
    .name = "concat.backward",
    .summary = "dx_i = the slice of dy that x_i filled",
    AFFUSE_FIELDS(inputs, input_count, kBackwardInputs),
    AFFUSE_FIELDS(outputs, output_count, kBackwardOutputs),
    AFFUSE_FIELDS(attrs, attr_count, kAttrs),
    .flops = "0",
    .bytes = "8*N",
    .flop_count = flops,
    .infer = infer_backward,
    .reference = concat_backward_reference,
    .cpu = AFFUSE_KERNEL_TABLE(concat_backward),
};

}  // namespace affuse
