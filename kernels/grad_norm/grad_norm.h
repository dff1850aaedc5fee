// Global gradient norm and clipping by it (Pascanu, Mikolov, Bengio 2013).
//
//   grad_norm      norm = sqrt(sum_i g_i^2)                      over one flat buffer of all gradients
//   clip_by_norm   y = g * min(1, maxNorm / norm)
//
// g [...]: any shape; norm [1]; the clipped output has g's name and may alias it.
// The sum runs in float64 over fixed chunks in a fixed order: bitwise the same for any number of threads, no overflow for
// any float32 input.
// Error (float32): norm 2^-23 relative; clipped values 3 roundings, 2^-23 relative, where maxNorm / norm >= 2^-126 and
// they themselves are; below, the factor or the value is rounded to a multiple of 2^-149.
// Singular points: norm = 0 leaves g alone. A NaN or infinity in g makes the norm NaN or infinite; a NaN norm makes every
// clipped value NaN, an infinite one 0 (NaN where g is infinite), so a broken step cannot pass unseen.
// Neither is differentiable.
// FLOPs: 2 N, clip N. Bytes: 4 N + 4, clip 8 N + 4.
#pragma once
#include "../common/op.h"

namespace affuse {
extern const OpDef kGradNorm, kClipByNorm;
void grad_norm_reference(const OpCall&);
void clip_by_norm_reference(const OpCall&);
AFFUSE_DECLARE_KERNEL(grad_norm_forward)
AFFUSE_DECLARE_KERNEL(clip_by_norm_forward)

constexpr int64_t kGradNormChunk = 32768;  // elements per task; one partial sum each
}  // namespace affuse
