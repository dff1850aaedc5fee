// Factorized bilinear pooling (spec 1.2; Yu et al., "Multi-modal factorized bilinear pooling", ICCV 2017; arXiv 2111.08910).
//
//   hU = f(a U^T + bu)     a [A,m], U [P,m], bu [P] or absent          P = o k projections, f: none | relu | tanh
//   hV = f(v V^T + bv)     v [B,n], V [P,n], bv [P] or absent
//   p  = dropout(hU hV)    Philox, element e = i P + j of the unpacked [B,P] tensor (spec section 0)
//   s_i = sum_{j<k} p_{i k + j}                                             s [B,o]
//   r_i = s_i / sqrt(|s_i| + eps)       (normalize power, power-l2; else r = s)
//   z   = r / sqrt(sum r^2 + eps2)      (normalize l2, power-l2; else z = r)   z [B,o]
//
// A = B / rowsPerGroup: row i of v meets row i / rowsPerGroup of a, so a recording's vector is projected once for all its
// positions. The sum under the root runs over one row (l2Scope sample) or over all rows of a group (l2Scope group).
//
// Neither projection has to reach memory in the forward: both accumulations, their product and the sum over k happen in
// registers and L2 (plan.h). Saved tensors: s, and for training hu [A,P] and hv [B,P], the activated projections in float32.
// The forward offers those two only if together they take at most kFbpBudget bytes (fbp_keeps); nobody who does not ask for
// them pays for them. From s, hu and hv the backward's first step is element by element. Without hu or hv it projects once
// more, as the forward does, for a number of rows that keeps the gradients at the projections below kFbpBudget bytes at a
// time (fbp_backward_plan; on a device half of its L2); without s it runs the forward first. z is accepted for uniformity; s
// alone suffices.
//
//   dr/ds = (|s|/2 + eps) / (|s| + eps)^(3/2)        finite everywhere: 1/sqrt(eps) at s = 0
//   dr    = (dz - z sum(z dz)) / sqrt(sum r^2 + eps2)  finite: the root is >= sqrt(eps2)
//   dhU   = ds dropout'(.) hV, summed over the rows of a group;  dhV = ds dropout'(.) hU;  relu' at 0 is 0
//   da = g U, dU = g^T a, dbu = column sums of g, g = dhU f';  v, V, bv alike. ds is the given ds plus that from dz.
//
// Error (float32): |s - exact| <= (m + n + k + 4) 2^-24 sum_j (|a||U|+|bu|)(|v||V|+|bv|), typically the root of the factor.
// r and z magnify it where s is near 0 (slope 1/sqrt(eps)): compare s and z|z| rather than z there.
// Singular points: none for finite input whose projections and s stay finite (the squares of s may not: they are then added up
// in float64). NaN in a row of a or v makes that row's s and z NaN (a
// group's, with l2Scope group); infinities give NaN in z. relu stops NaN in the backward only.
// B = 0 is legal: outputs are empty, dU, dV, dbu, dbv 0.
//
// FLOPs: forward 2 P (A m + B n) + 2 B P; backward 4 P (A m + B n) for the four products and 4 B P, and another
// 2 P (A m + B n) where hu and hv are not given. Measured (AVX-512, one thread, B = 256 of 1024 + 2048, o = 1000, k = 5):
// keeping costs the forward 59 to 63 ms, and forward and backward take 211 ms instead of 267.
// Bytes: every input read once, every output written once.
#pragma once
#include "../common/op.h"
#include "../gemm/bf16.h"

namespace affuse {

extern const OpDef kFbp, kFbpBackward;
void fbp_reference(const OpCall&);
void fbp_backward_reference(const OpCall&);
AFFUSE_DECLARE_KERNEL(fbp_forward)
AFFUSE_DECLARE_KERNEL(fbp_backward)
AFFUSE_DECLARE_PACK(fbp_pack)

struct FbpNormalize {  // values of the attributes
  enum : int { none, l2, power, power_l2 };
};
struct FbpActivation {
  enum : int { none, relu, tanh };
};
struct FbpScope {
  enum : int { sample, group };
};
struct FbpAttr {  // indexes into OpCall::attr
  enum : int {
    k, normalize, activation, l2_scope, rows_per_group, dropout, seed, instance, step, eps, eps2, precision, count
  };
};
struct FbpIn {  // inputs; the backward's come after the forward's six
  enum : int { a, v, U, V, bu, bv, z, s, hu, hv, dz, ds };
};
struct FbpOut {  // outputs of the forward
  enum : int { z, s, hu, hv, count };
};

// Sizes of one call, from descriptions only.
struct FbpSizes {
  int64_t A, B, m, n, P, o, k, group;
  int64_t em, en;  // m and n as packed: with bf16 operands, which come in pairs, the even number above
  bool dropout, bf16, pairs;  // pairs: how bf16 weights are packed (gemm/bf16.h)
  int precision;
};
// TensorDesc or Tensor; internal linkage because cpu.cc files use it too. fbp_shape() does not know how the CPU packs.
template <class Desc>
static inline FbpSizes fbp_shape(const Desc* in, const Attr* attr) {
  FbpSizes z{};
  z.k = attr[FbpAttr::k].i;
  z.group = attr[FbpAttr::rows_per_group].i;
  z.A = in[FbpIn::a].dim[0];
  z.B = in[FbpIn::v].dim[0];
  z.m = in[FbpIn::a].dim[1];
  z.n = in[FbpIn::v].dim[1];
  z.P = in[FbpIn::U].dim[0];
  z.o = z.P / z.k;
  z.dropout = attr[FbpAttr::dropout].f > 0;
  z.precision = int(attr[FbpAttr::precision].i);
  z.bf16 = z.precision == gemm::Precision::bf16;
  z.em = z.bf16 ? gemm::even(z.m) : z.m;
  z.en = z.bf16 ? gemm::even(z.n) : z.n;
  return z;
}
template <class Desc>
static inline FbpSizes fbp_sizes(const Desc* in, const Attr* attr) {
  FbpSizes z = fbp_shape(in, attr);
  z.pairs = z.bf16 && gemm::keeps_pairs(z.B);
  return z;
}

}  // namespace affuse
