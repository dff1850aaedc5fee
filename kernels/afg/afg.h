// AFG: attention-guided feature gathering (spec 1.1; arXiv 2309.07925, section 2.2).
//
//   k_t     = tanh(W x_t + b)
//   s_t,j   = q_j · k_t                        the learned u is one query for every sample: J = 1
//   α_·,j   = softmax over valid t of λ s_t,j
//   c_j     = Σ_t α_t,j x_t
//
// Frame t of sample b is valid when t < lengths[b] and mask[b,t] ≠ 0; x elsewhere is never read and may hold NaN. With
// `masked` false all T frames take part in the softmax, as if x were 0 in those that are not valid (the published code's
// zero padding): their k is tanh(b). A sample without any valid frame gives c = 0, alpha = 0 and gradients 0 either way.
//
//   backward   ᾱ_t,j = dα_t,j + dc_j · x_t          s̄_t,j = λ α_t,j (ᾱ_t,j − Σ_t' α_t',j ᾱ_t',j)
//              dq_j  = Σ_t s̄_t,j k_t  (du: over b too)   p̄_t = (Σ_j s̄_t,j q_j) ∘ (1 − k_t²)
//              dW = Σ p̄_t x_tᵀ     db = Σ p̄_t     dx_t = Σ_j α_t,j dc_j + Wᵀ p̄_t
//
// Shapes       x [B,T,D], lengths [B]?, W [A,D], b [A], u [A] | q [B,J,A], mask [B,T]? → c [B,J,D], alpha [B,J,T].
// Saved        k [B,T,A], optional: tanh(W x + b) of the valid frames, 0 elsewhere. With alpha and k saved the backward
//              multiplies nothing by W again (except for dx); absent ones are computed again. c saves
//              a sum over frames when there are 1024 or more of them.
// precision    bf16: the operands of W x are rounded to bf16 (gemm/bf16.h), in the backward those of p̄ᵀ x and p̄ W too;
//              sums, k, scores, softmax, the weighted sum of x, dc·x, α dc, db, du and dq stay float32.
// Error bound  (ε = 2^-24, γ_n = nε/(1-nε))
//              |δk_t| ≤ (γ_{D+1}(|W||x_t| + |b|) + 8ε)                             element by element, tanh' ≤ 1;
//              with bf16 operands another (2^-7 + 2^-16) |W||x_t|
//              |δs_t,j| ≤ Σ_a |q_ja| (|δk_ta| + γ_{A+1}|k_ta|) =: σ_t,j
//              |δα_t,j| ≤ α_t,j (2λ max_t σ_t,j + γ_{T+16}(1 + λ max_t |s_t,j|))   to first order
//              |δc_j| ≤ (2λ max_t σ_t,j + γ_{2T+16}(1 + λ max_t |s_t,j|)) Σ_t α_t,j |x_t|
// Singular     none for finite input: the softmax is taken relative to its maximum, tanh saturates. A NaN in a valid frame
//              makes that sample's c, alpha (every valid frame) and the shared gradients NaN, and nothing else; an infinity makes
//              them NaN or infinite.
// FLOPs        forward 2·B·T·A·D + 2·B·T·J·(A + D). Backward with k and alpha saved: 2·B·T·J·D (dc·x) + 4·B·T·J·A, and
//              2·B·T·A·D each for dW and dx, + 2·B·T·J·D for dx; without k: 2·B·T·A·D more. Only valid frames are visited.
// Bytes        forward 4(B·T·D + A·D + 2A + B·J·D + B·J·T); backward reads x, W, k, alpha, dc and writes what is wanted.
// Tasks        forward: chunks of the list of valid frames (all samples one after another), cut at fixed sizes; a sample
//              that spans chunks is merged in the order of its chunks. Backward: see backward_cpu.cc.
#pragma once
#include "../common/frames.h"
#include "../common/op.h"
#include "../gemm/bf16.h"

namespace affuse {

extern const OpDef kAfg, kAfgBackward;

enum AfgInput {
  kAfgX, kAfgLengths, kAfgW, kAfgB, kAfgU, kAfgQ, kAfgMask,
  kAfgAlpha, kAfgC, kAfgK, kAfgDc, kAfgDalpha,  // backward only
};
enum AfgOutput { kAfgOutC, kAfgOutAlpha, kAfgOutK };
enum AfgGradient { kAfgDx, kAfgDW, kAfgDb, kAfgDu, kAfgDq };
enum AfgAttr { kAfgScale, kAfgMasked, kAfgPrecision };

struct AfgSize {
  int64_t B, T, D, A, J;
};

template <class Descs>  // TensorDesc or Tensor
[[maybe_unused]] static AfgSize afg_size(const Descs* in) {
  return {in[kAfgX].dim[0], in[kAfgX].dim[1], in[kAfgX].dim[2], in[kAfgW].dim[0],
          in[kAfgQ].dtype != DType::none ? in[kAfgQ].dim[1] : 1};
}

[[maybe_unused]] static bool afg_bf16(const Attr* attr) { return attr[kAfgPrecision].i == gemm::Precision::bf16; }
// How a bf16 weight is packed.
[[maybe_unused]] static bool afg_pairs(const AfgSize& n) { return gemm::keeps_pairs(n.B * n.T); }
// Floats of W packed as N columns of K.
[[maybe_unused]] static int64_t afg_packed_floats(const AfgSize& n, int64_t N, int64_t K, bool bf16) {
  return bf16 ? gemm::packed_floats_bf16(N, K, afg_pairs(n)) : gemm::packed_floats(N, K);
}

size_t afg_workspace(const OpShape&, int workers);
size_t afg_backward_workspace(const OpShape&, int workers);

void afg_reference(const OpCall&);
void afg_backward_reference(const OpCall&);

AFFUSE_DECLARE_KERNEL(afg_forward)
AFFUSE_DECLARE_KERNEL(afg_backward)
AFFUSE_DECLARE_PACK(afg_pack)
AFFUSE_DECLARE_PACK(afg_backward_pack)

}  // namespace affuse
