// Which frames of a padded batch count: shared by the operators that gather over time (afg, ratio_attention).
//
// Frame (b, t) is valid when t < lengths[b] (lengths absent: always) and mask[b, t] != 0 (mask absent: always).
// The features of a frame that is not valid are never read: they may hold NaN.
#pragma once
#include "op.h"

namespace affuse {

struct Frames {
  int64_t B, T;
  const int32_t* lengths;  // [B] or null
  const int32_t* mask;     // [B, T] or null
};

// static, not inline: kernel files of different ISA levels include this, and a merged copy could be the wrong one.
[[maybe_unused]] static Frames frames_of(const Tensor& x, const Tensor& lengths, const Tensor& mask) {
  return {x.dim[0], x.dim[1], static_cast<const int32_t*>(lengths.data), static_cast<const int32_t*>(mask.data)};
}

// Writes the valid t of item b in rising order to `frames` (room for T) and returns how many there are.
[[maybe_unused]] static int64_t valid_frames(const Frames& f, int64_t b, int32_t* frames) {
  const int64_t end = f.lengths ? f.lengths[b] : f.T;
  const int32_t* mask = f.mask ? f.mask + b * f.T : nullptr;
  int64_t n = 0;
  for (int64_t t = 0; t < end; ++t)
    if (!mask || mask[t] != 0) frames[n++] = int32_t(t);
  return n;
}

// infer: x is [B,T,D] with D >= 1; lengths, when given, [B]; mask, when given, [B,T].
[[maybe_unused]] static void check_frame_shapes(const TensorDesc& x, const TensorDesc& lengths, const TensorDesc& mask,
                                                Status& status) {
  const long long B = x.dim[0], T = x.dim[1], D = x.dim[2];
  if (D < 1) return status.fail("ERR_AFFUSE_SHAPE", "expected x [B,T,D] with D >= 1, got [%lld,%lld,%lld]", B, T, D);
  if (lengths.given() && lengths.dim[0] != B)
    return status.fail("ERR_AFFUSE_SHAPE", "expected lengths [%lld] for x [%lld,%lld,%lld], got [%lld]", B, B, T, D,
                       (long long)lengths.dim[0]);
  if (mask.given() && (mask.dim[0] != B || mask.dim[1] != T))
    return status.fail("ERR_AFFUSE_SHAPE", "expected mask [%lld,%lld] for x [%lld,%lld,%lld], got [%lld,%lld]", B, T, B, T,
                       D, (long long)mask.dim[0], (long long)mask.dim[1]);
}

// validate: every length lies in [0, T].
[[maybe_unused]] static void check_length_values(const Tensor& x, const Tensor& lengths, Status& status) {
  const auto* n = static_cast<const int32_t*>(lengths.data);
  if (!n) return;
  for (int64_t b = 0; b < x.dim[0]; ++b)
    if (n[b] < 0 || n[b] > x.dim[1])
      return status.fail("ERR_AFFUSE_LENGTH", "expected lengths[%lld] in [0,%lld], got %d", (long long)b,
                         (long long)x.dim[1], n[b]);
}

}  // namespace affuse
