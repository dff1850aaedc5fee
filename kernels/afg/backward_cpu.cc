// afg's backward for one ISA level: what is wanted, how it is cut and in which order the passes (backward_pass.h) run.
#include "backward_pass.h"

namespace affuse::AFFUSE_ISA {

void afg_backward_pack(const OpShape& shape, int, const void* W, void* packed, const Workers& workers) {
  afg_pack_weight(afg_size(shape.in), afg_bf16(shape.attr), gemm::Layout::kn, static_cast<const float*>(W),
                  static_cast<float*>(packed), workers);
}

void afg_backward(const OpCall& call) {
  const Workers& workers = *call.workers;
  const Tensor *in = call.in, *out = call.out;
  Backward g;
  g.n = afg_size(in);
  const auto [B, T, D, A, J] = g.n;
  if (B == 0) {  // no workspace either (afg.cc): gradients of what samples share are 0, the others are empty
    for (int i = kAfgDW; i <= kAfgDu; ++i)
      if (float* const to = out[i].f32()) fill(to, out[i].count(), 0.0f);
    return;
  }
  g.plan = backward_plan(in, out);
  Carver carver{static_cast<char*>(call.workspace)};
  const bool bf16 = afg_bf16(call.attr);
  g.s = carve_backward(carver, g.n, workers.count, g.plan, bf16);
  g.query = in[kAfgQ].given() ? in[kAfgQ].f32() : in[kAfgU].f32();
  g.query_stride = in[kAfgQ].given() ? J * A : 0;
  g.alpha = in[kAfgAlpha].f32();
  g.c = in[kAfgC].f32();
  g.k = in[kAfgK].f32();
  g.dc = in[kAfgDc].f32();
  g.dalpha = in[kAfgDalpha].f32();
  g.scale = float(call.attr[kAfgScale].f);
  g.masked = call.attr[kAfgMasked].i != 0;
  g.dW = out[kAfgDW].f32();
  g.dq = out[kAfgDq].f32();
  g.du = out[kAfgDu].f32();
  g.dx = out[kAfgDx].f32();
  float *dx = g.dx, *db = out[kAfgDb].f32();
  const float *W = in[kAfgW].f32(), *bias = in[kAfgB].f32();

  const FrameList& list = g.s.list;
  const int64_t count = list_frames(frames_of(in[kAfgX], in[kAfgLengths], in[kAfgMask]), in[kAfgX].f32(), D, list);
  g.count = count;
  g.spans = span_count(count);
  const bool sums = g.plan.pre || g.dq || g.du;
  g.mean_by_c = g.c && g.spans > 1;
  g.fused = g.plan.project && J == 1 && workers.count <= g.spans && (g.mean_by_c || !g.dc);
  if (!g.masked) silent_key(bias, A, g.s.silent);
  if (g.plan.keys && count > 0) {
    StoreKeys keys;
    keys.bias = bias;
    keys.keys = g.s.keys;
    keys.A = A;
    afg_pack_weight(g.n, bf16, gemm::Layout::nk, W, g.s.packed_keys, workers);
    const gemm::IndirectRows rows{list.row};
    if (bf16)
      gemm::run(workers, count, A, gemm::even(D), gemm::Bf16Rows{rows, D}, g.s.packed_keys, keys, g.s.gemm,
                gemm::Split::any, gemm::Bf16{afg_pairs(g.n)});
    else gemm::run(workers, count, A, D, rows, g.s.packed_keys, keys, g.s.gemm);
  }
  constexpr int64_t kFrames = 64;
  if (!g.fused)
    parallel(workers, gemm::ceil_div(count, kFrames), [&](int64_t task, int) {
      for (int64_t i = task * kFrames; i < gemm::min64(count, (task + 1) * kFrames); ++i) g.weight_gradient(i);
    });
  parallel(workers, B, [&](int64_t b, int) { g.sample(b); });
  if (sums && bf16) g.frame_sums(gemm::Bf16Passing{}, workers, db);
  else if (sums) g.frame_sums(gemm::Float32{}, workers, db);
  if (!dx) return;
  if (count > 0) {
    const void* packed = call.packed ? call.packed[kAfgW] : nullptr;
    if (!packed) afg_pack_weight(g.n, bf16, gemm::Layout::kn, W, g.s.packed_features, workers);
    g.packed_features = packed ? static_cast<const float*>(packed) : g.s.packed_features;
    g.past_cache = passes_cache(dx, B * T, D);
    const int64_t blocks = gemm::ceil_div(count, feature_block(A));
    g.feature_rows = gemm::ceil_div(count, blocks);
    const auto features = [&](const auto& format) {
      parallel(workers, blocks, [&](int64_t index, int worker) { g.features(format, index, worker); });
    };
    if (bf16) features(gemm::Bf16{afg_pairs(g.n)});
    else features(gemm::Float32{});
  }
  parallel(workers, B, [&](int64_t b, int) {
    for (int64_t t = 0, i = list.first[b]; t < T; ++t) {
      if (i < list.first[b + 1] && list.frame[i] == t) ++i;
      else fill(dx + (b * T + t) * D, D, 0.0f);
    }
  });
}

}  // namespace affuse::AFFUSE_ISA
