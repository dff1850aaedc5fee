// Local response normalisation across channels (Krizhevsky, Sutskever, Hinton 2012; spec 1.6).
//
//   d_c = k + alpha' sum_{c' in window(c)} a_{c'}^2      window(c) = [c - floor(n/2), c + floor((n-1)/2)], cut at the edges
//   y_c = a_c d_c^-beta                                  alpha' = alpha, or alpha / n with alphaOverN (PyTorch, Caffe)
//   da_c = dy_c d_c^-beta - 2 alpha' beta a_c sum_{c' : c in window(c')} dy_{c'} a_{c'} d_{c'}^{-beta-1}
//
// x, y, dy, dx [B,C,H,W] or, with layout nhwc, [B,H,W,C]; widths int32 [B] as in common/maps.h. n = attribute `size`.
// Nothing is saved: d is computed again.
// Error (float32), relative: of y (max(1, beta) (n/2 + 4) + 8) 2^-24 for beta = 3/4 and 1/2, otherwise 3 beta |log d| 2^-23 more
// (the power goes through exp and log), and where d^-beta < 2^-126 y may be 0 although a d^-beta is not; where |a| or |y| is
// below 2^-126, max(1, d^-beta) times a few multiples of 2^-149 more. dx: that of each of its two terms, with beta + 1 for beta in the second; they may cancel.
// An element's result depends on its channel and its windows alone: not on other positions or items, nor on where they lie.
// Singular points: none, k > 0. Sums of squares beyond float32's range (|a| > 1e19, or alpha' a^2 > 3e38) count as its largest
// number: y is then tiny, as in the formula unless alpha' is tiny too, and of dx little is right. No finite x gives NaN or
// infinity. A NaN makes its window NaN; an infinity gives an infinity or NaN at its own place and in y next to nothing in its
// neighbours.
// FLOPs: forward (2 n + 6) N, backward (4 n + 14) N, N = B C H W. Bytes: forward 8 N, backward 12 N.
#pragma once
#include "../common/maps.h"
#include "../common/op.h"

namespace affuse {
extern const OpDef kLrn, kLrnBackward;
void lrn_reference(const OpCall&);
void lrn_backward_reference(const OpCall&);
AFFUSE_DECLARE_KERNEL(lrn_forward)
AFFUSE_DECLARE_KERNEL(lrn_backward)

struct LrnAttrs {
  int64_t n, before, after;  // the window: [c - before, c + after]
  double alpha, beta, k;
};
[[maybe_unused]] static LrnAttrs lrn_attrs(const Attr* a) {
  const int64_t n = a[0].i;
  return {n, n / 2, (n - 1) / 2, a[4].i ? a[1].f / double(n) : a[1].f, a[2].f, a[3].f};
}

// 2 alpha' beta in the backward, in two parts: above 1 it belongs to the terms dy a d^(-beta-1), up to 1 to the a before their sum.
// So neither a nor a term overflows on the way to a result that does not; with 0 there are no terms.
struct LrnFactor {
  float terms, a;
};
[[maybe_unused]] static LrnFactor lrn_factor(const LrnAttrs& attrs) {
  const float f = float(2 * attrs.alpha * attrs.beta);
  return f > 1 ? LrnFactor{f, 1} : f > 0 ? LrnFactor{1, f} : LrnFactor{0, 0};
}

// Scratch of a worker: three areas, each some rows of channels with margins of zeros (channel-last), or kLrnBlock
// positions with all their channels.
constexpr int64_t kLrnBlock = 16;
[[maybe_unused]] static int64_t lrn_row(int64_t C, int64_t n) { return (C + 2 * n + 32 + 15) / 16 * 16; }
[[maybe_unused]] static int64_t lrn_rows(int64_t C, int64_t n) {  // rows of an area: about 8 KB
  const int64_t rows = 2048 / lrn_row(C, n);
  return rows < 1 ? 1 : rows > 16 ? 16 : rows;
}
[[maybe_unused]] static int64_t lrn_scratch(int64_t C, int64_t n, bool last) {
  return 3 * (last ? lrn_rows(C, n) * lrn_row(C, n) : (C + 2 * n) * kLrnBlock);
}
}  // namespace affuse
