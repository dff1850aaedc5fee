// Ratio attention (spec 1.1): every frame gets its own gate, the result is the gates' weighted mean of the frames.
//
//   z_t = q · x_t + β        α_t = σ(z_t)        c = Σ_t α_t x_t / Σ_t α_t        over the valid t
//
// The quotient is taken as a softmax, w_t = α_t / Σ α = softmax_t(log σ(z_t)), which is the same number and cannot divide
// by zero when every σ underflows. `alpha` is the gate σ(z_t) itself, not the normalised weight; it is 0 on padding. A
// sample without a valid frame gets c = 0 and alpha = 0.
//
//   backward   w̄_t = dc · x_t                       dz_t = w_t (w̄_t − Σ w w̄)(1 − α_t) + dα_t α_t (1 − α_t)
//              dx_t = w_t dc + dz_t q               dq = Σ_{b,t} dz_t x_t            dβ = Σ_{b,t} dz_t
//
// Shapes       x [B,T,D], lengths [B]?, q [D], beta [1], mask [B,T]? → c [B,D], alpha [B,T].
// Saved        nothing: the backward needs x · dc, so it reads x anyway and computes z again in the same pass.
// Error bound  (ε = 2^-24, γ_n = nε/(1-nε))   |δz_t| ≤ γ_{D+1}(Σ_d |q_d x_td| + |β|) =: δ;   |δα_t| ≤ α_t(1-α_t)(δ) + 4ε;
//              |δc| ≤ (2 max_t δ + γ_{T+8}) Σ_t w_t |x_t|.
// Singular     none for finite input: 1 − α_t is taken as σ(−z_t). But float32 must hold what comes on the way, not only the
//              results: every sum of q_d x_td, of dc_d x_td and of w_t x_t, and the products dz_t q and dz_t x_t. dx on padding is exactly 0, whatever x holds there.
//              A NaN in a valid frame makes that sample's c NaN and that frame's alpha NaN, and dq and dβ NaN.
// FLOPs        forward 4·B·T·D; backward 4·B·T·D (z, w̄) + 4·B·T·D (dx) + 2·B·T·D (dq), as far as they are wanted.
// Bytes        forward 4(B·T·D + D + 1 + B·D + B·T); backward 4(B·T·D + B·D + B·T + D) read, 4(B·T·D + D + 1) written.
// Tasks        one sample each. dq and dβ: one partial sum per sample, added in the order of the samples.
#pragma once
#include "../common/frames.h"
#include "../common/op.h"

namespace affuse {

extern const OpDef kRatioAttention, kRatioAttentionBackward;

enum RatioAttentionInput {
  kRatioX, kRatioLengths, kRatioQ, kRatioBeta, kRatioMask,
  kRatioAlpha, kRatioC, kRatioDc, kRatioDalpha,  // backward only; alpha and c are not needed
};
enum RatioAttentionOutput { kRatioOutC, kRatioOutAlpha };
enum RatioAttentionGradient { kRatioDx, kRatioDq, kRatioDbeta };

// Bytes of scratch: forward holds one list of frames per worker; backward also two values per frame and worker, and
// every sample's part of dq and dβ.
size_t ratio_attention_workspace(const OpShape&, int workers);
size_t ratio_attention_backward_workspace(const OpShape&, int workers);

void ratio_attention_reference(const OpCall&);
void ratio_attention_backward_reference(const OpCall&);

AFFUSE_DECLARE_KERNEL(ratio_attention_forward)
AFFUSE_DECLARE_KERNEL(ratio_attention_backward)

}  // namespace affuse
