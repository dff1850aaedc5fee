#include "transpose.h"

#include "../common/shape.h"

namespace affuse {
namespace {

const TensorRule kInputs[] = {{"x", "[...]", DType::f32, false, "rank >= 2"}};
const TensorRule kOutputs[] = {{"y", "[...]", DType::f32, false, "x with the two axes swapped"}};
const TensorRule kBackwardInputs[] = {
    {"x", "[...]", DType::f32, false, "values never read"},
    {"dy", "[...]", DType::f32, false, ""},
};
const TensorRule kBackwardOutputs[] = {{"dx", "[...]", DType::f32, false, ""}};
const AttrRule kAttrs[] = {
    {"axis0", AttrKind::integer, -2, -kMaxRank, kMaxRank - 1, nullptr, "counts from 0, negative from the end"},
    {"axis1", AttrKind::integer, -1, -kMaxRank, kMaxRank - 1, nullptr, "counts from 0, negative from the end"},
};

double flops(const OpShape&) { return 0; }

void infer(const OpShape& s, TensorDesc* out, Status& status) {
  const TensorDesc& x = s.in[0];
  for (int i = 0; i < 2; ++i)
    if (s.attr[i].i < -x.rank || s.attr[i].i >= x.rank)
      return status.fail("ERR_AFFUSE_ATTRIBUTE", "expected %s in [%d,%d] for x %s, got %lld", kAttrs[i].name, -x.rank,
                         x.rank - 1, ShapeText(x).text, (long long)s.attr[i].i);
  const int64_t a = (s.attr[0].i + x.rank) % x.rank, b = (s.attr[1].i + x.rank) % x.rank;
  out[0] = like(x);
  out[0].dim[a] = x.dim[b];
  out[0].dim[b] = x.dim[a];
}

void infer_backward(const OpShape& s, TensorDesc* out, Status& status) {
  TensorDesc y;
  infer(s, &y, status);
  if (!status.ok()) return;
  expect_shape(status, "dy", s.in[1], y, "the shape of y");
  out[0] = like(s.in[0]);
}

}  // namespace

const OpDef kTranspose = {
    .name = "transpose",
    .summary = "y is x with two axes swapped",
    AFFUSE_FIELDS(inputs, input_count, kInputs),
    AFFUSE_FIELDS(outputs, output_count, kOutputs),
    AFFUSE_FIELDS(attrs, attr_count, kAttrs),
    .backward = "transpose.backward",
    .flops = "0",
    .bytes = "8*N",
    .flop_count = flops,
    .infer = infer,
    .reference = transpose_reference,
    .cpu = AFFUSE_KERNEL_TABLE(transpose_forward),
};

const OpDef kTransposeBackward = {
    .name = "transpose.backward",
    .summary = "dx is dy with the same two axes swapped",
    AFFUSE_FIELDS(inputs, input_count, kBackwardInputs),
    AFFUSE_FIELDS(outputs, output_count, kBackwardOutputs),
    AFFUSE_FIELDS(attrs, attr_count, kAttrs),
    .flops = "0",
    .bytes = "8*N",
    .flop_count = flops,
    .infer = infer_backward,
    .reference = transpose_backward_reference,
    .cpu = AFFUSE_KERNEL_TABLE(transpose_backward),
};

}  // namespace affuse
