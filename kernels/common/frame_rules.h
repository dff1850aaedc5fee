// Checks that operators over padded frames share (see frames.h). Not for cpu.cc.
#pragma once
#include "shape.h"

namespace affuse {

// infer: x is [B,T,D] with D >= 1; lengths, when given, [B]; mask, when given, [B,T].
inline void check_frame_shapes(const TensorDesc& x, const TensorDesc& lengths, const TensorDesc& mask,
                                                Status& status) {
  expect_positive(status, "x [B,T,D]", "D", x, x.dim[2]);
  expect_shape(status, "lengths", lengths, tensor_desc(DType::i32, {x.dim[0]}), "one per sample of x");
  expect_shape(status, "mask", mask, tensor_desc(DType::i32, {x.dim[0], x.dim[1]}), "one per frame of x");
}

// validate: every length lies in [0, T].
inline void check_length_values(const Tensor& x, const Tensor& lengths, Status& status) {
  const auto* n = static_cast<const int32_t*>(lengths.data);
  if (!n) return;
  for (int64_t b = 0; b < x.dim[0]; ++b)
    if (n[b] < 0 || n[b] > x.dim[1])
      return status.fail("ERR_AFFUSE_LENGTH", "expected lengths[%lld] in [0,%lld], got %d", (long long)b,
                         (long long)x.dim[1], n[b]);
}

}  // namespace affuse
