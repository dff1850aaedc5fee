// The attribute `precision` of operators that multiply matrices: how operands of products may be rounded. Tensors are float32
// either way, and the float64 reference takes no notice of it.
//
//   bf16   to bf16, everywhere
//   tf32   to tf32 where a device has faster products for it and they pay; the CPU, which has none, multiplies float32
#pragma once

namespace affuse::gemm {

struct Precision {
  enum : int { f32, bf16, tf32 };
};
constexpr const char* kPrecisionChoices = "f32|bf16|tf32";
constexpr const char* kPrecisionDoc =
    "of the products' operands; sums stay float32. bf16: rounded; tf32: a device may round them, the CPU does not";

}  // namespace affuse::gemm
