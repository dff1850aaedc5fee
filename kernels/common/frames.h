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

}  // namespace affuse
