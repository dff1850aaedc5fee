#include "elementwise.h"

#include "../common/shape.h"

namespace affuse {
namespace {

const TensorRule kPair[] = {
    {"a", "[...]", DType::f32, false, "any shape; the result has it"},
    {"b", "[...]", DType::f32, false, "aligned with a's last dimensions, each equal to a's or 1"},
};
const TensorRule kY[] = {{"y", "[...]", DType::f32, false, ""}};
const TensorRule kPairBackward[] = {kPair[0], kPair[1], {"dy", "[...]", DType::f32, false, ""}};
const TensorRule kPairGradients[] = {{"da", "[...]", DType::f32, false, ""}, {"db", "[...]", DType::f32, false, ""}};
const TensorRule kX[] = {{"x", "[...]", DType::f32, false, "any shape"}};
const TensorRule kXBackward[] = {{"x", "[...]", DType::f32, true, "never read"}, {"dy", "[...]", DType::f32, false, ""}};
const TensorRule kXGradient[] = {{"dx", "[...]", DType::f32, false, ""}};
const AttrRule kFactor[] = {{"factor", AttrKind::real, 1, -1e30, 1e30, nullptr, ""}};

double flops(const OpShape& s) { return double(s.in[0].count()); }
double reduce_flops(const OpShape& s) { return s.in[0].count() == s.in[1].count() ? 0.0 : double(s.in[0].count()); }
double twice_flops(const OpShape& s) { return 2.0 * double(s.in[0].count()); }
double scale_backward_flops(const OpShape& s) { return double(s.in[1].count()); }

void infer(const OpShape& s, TensorDesc* out, Status& status) {
  const TensorDesc &a = s.in[0], &b = s.in[1];
  bool fits = b.rank <= a.rank;
  for (int i = 1; fits && i <= b.rank; ++i) fits = b.dim[b.rank - i] == 1 || b.dim[b.rank - i] == a.dim[a.rank - i];
  if (!fits)
    status.fail("ERR_AFFUSE_SHAPE",
                "expected b to fit the last dimensions of a, %s (each dimension equal or 1, no more dimensions), got %s",
                ShapeText(a).text, ShapeText(b).text);
  out[0] = like(a);
}

void infer_backward(const OpShape& s, TensorDesc* out, Status& status) {
  infer(s, out, status);
  expect_shape(status, "dy", s.in[2], s.in[0], "the shape of a");
  out[1] = like(s.in[1]);
}

void infer_scale(const OpShape& s, TensorDesc* out, Status&) { out[0] = like(s.in[0]); }
void infer_scale_backward(const OpShape& s, TensorDesc* out, Status& status) {
  expect_shape(status, "x", s.in[0], s.in[1], "the shape of dy");
  out[0] = like(s.in[1]);
}

}  // namespace

const OpDef kAdd = {
    .name = "add",
    .summary = "y = a + b, b broadcast along dimensions of size 1 (spec 1.6)",
    AFFUSE_FIELDS(inputs, input_count, kPair),
    AFFUSE_FIELDS(outputs, output_count, kY),
    .attrs = nullptr,
    .attr_count = 0,
    .backward = "add.backward",
    .flops = "N",
    .bytes = "4*(2*N + M)",
    .flop_count = flops,
    .infer = infer,
    .reference = add_reference,
    .cpu = AFFUSE_KERNEL_TABLE(add_forward),
};

const OpDef kAddBackward = {
    .name = "add.backward",
    .summary = "da = dy, db = sum of dy over b's broadcast positions",
    AFFUSE_FIELDS(inputs, input_count, kPairBackward),
    AFFUSE_FIELDS(outputs, output_count, kPairGradients),
    .attrs = nullptr,
    .attr_count = 0,
    .flops = "N if b is broadcast, else 0",
    .bytes = "4*(3*N + 2*M)",
    .flop_count = reduce_flops,
    .infer = infer_backward,
    .reference = add_backward_reference,
    .cpu = AFFUSE_KERNEL_TABLE(add_backward),
};

const OpDef kMul = {
    .name = "mul",
    .summary = "y = a * b, b broadcast along dimensions of size 1 (spec 1.6)",
    AFFUSE_FIELDS(inputs, input_count, kPair),
    AFFUSE_FIELDS(outputs, output_count, kY),
    .attrs = nullptr,
    .attr_count = 0,
    .backward = "mul.backward",
    .flops = "N",
    .bytes = "4*(2*N + M)",
    .flop_count = flops,
    .infer = infer,
    .reference = mul_reference,
    .cpu = AFFUSE_KERNEL_TABLE(mul_forward),
};

const OpDef kMulBackward = {
    .name = "mul.backward",
    .summary = "da = dy * b, db = sum of dy * a over b's broadcast positions",
    AFFUSE_FIELDS(inputs, input_count, kPairBackward),
    AFFUSE_FIELDS(outputs, output_count, kPairGradients),
    .attrs = nullptr,
    .attr_count = 0,
    .flops = "2*N",
    .bytes = "4*(3*N + 2*M)",
    .flop_count = twice_flops,
    .infer = infer_backward,
    .reference = mul_backward_reference,
    .cpu = AFFUSE_KERNEL_TABLE(mul_backward),
};

const OpDef kScale = {
    .name = "scale",
    .summary = "y = factor * x",
    AFFUSE_FIELDS(inputs, input_count, kX),
    AFFUSE_FIELDS(outputs, output_count, kY),
    AFFUSE_FIELDS(attrs, attr_count, kFactor),
    .backward = "scale.backward",
    .flops = "N",
    .bytes = "8*N",
    .flop_count = flops,
    .infer = infer_scale,
    .reference = scale_reference,
    .cpu = AFFUSE_KERNEL_TABLE(scale_forward),
};

const OpDef kScaleBackward = {
    .name = "scale.backward",
    .summary = "dx = factor * dy",
    AFFUSE_FIELDS(inputs, input_count, kXBackward),
    AFFUSE_FIELDS(outputs, output_count, kXGradient),
    AFFUSE_FIELDS(attrs, attr_count, kFactor),
    .flops = "N",
    .bytes = "8*N",
    .flop_count = scale_backward_flops,
    .infer = infer_scale_backward,
    .reference = scale_backward_reference,
    .cpu = AFFUSE_KERNEL_TABLE(scale_backward),
};

}  // namespace affuse
