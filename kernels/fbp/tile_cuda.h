// The fused tile of FBP on a device: a block accumulates both projections of some rows and outputs in registers, multiplies
// them and adds up the k factors of an output, which are a thread's own: weights come in an order that gives it all of them.
// Nothing of [B, o k] reaches memory unless the projections are wanted as outputs.
//
//   ExactPair     float32: sum (i, q k + j) of thread (y, x) is row y + 16 i, factor j of output 16 q + x
//   RoundedPair   bf16: fragment (m, q k + j) of a warp is factor j of eight outputs, 16 rows
//
// Weights stay where they are for ExactPair, whose copies pick the rows; for RoundedPair they are rounded in that order.
#pragma once
#include "../common/cuda/divide.h"
#include "../common/cuda/philox.h"
#include "../gemm/cuda/operands.h"
#include "fbp.h"

namespace affuse::cuda {

// Line of W [P, K] at place s, `group` outputs' factors side by side: [.., k, group].
struct FbpOrder {
  int64_t first;  // output
  int k, group;
  AFFUSE_DEVICE int64_t operator()(int s) const {
    const int vector = s / group;
    return (first + int64_t(vector / k) * group + s % group) * k + vector % k;
  }
};

// FbpActivation, NaN as on the CPU.
AFFUSE_DEVICE float fbp_activated(int kind, float x) {
  if (kind == FbpActivation::relu) return x < 0 ? 0.0f : x;  // NaN stays
  return kind == FbpActivation::tanh ? tanhf(x) : x;
}
AFFUSE_DEVICE float fbp_sloped(int kind, float h, float g) {  // g f'(x) from h = f(x)
  if (kind == FbpActivation::relu) return h > 0 ? g : 0.0f;
  return kind == FbpActivation::tanh ? g * fmaf(-h, h, 1.0f) : g;
}

// What becomes of projections: everything behind the two sums.
struct FbpFinish {
  int64_t B, o, P;             // of this chunk of rows
  int64_t first;               // its first row in the whole, for the mask
  int k, activation;           // FbpActivation
  bool power, dropout;
  float eps;
  const float *bu, *bv;        // null: 0
  const float* given;          // activated projections of a, [B / group, P]; null: accumulated here
  Divider group;
  DropoutMask mask;
  float *z, *s, *hu, *hv;      // null: not wanted; z before the norm
  AFFUSE_DEVICE uint64_t element(int64_t row, int64_t output) const { return uint64_t((first + row) * P + output * k); }
  // A cell's k products are added by whoever holds them.
  AFFUSE_DEVICE void put_sum(int64_t row, int64_t output, float sum) const {
    const int64_t at = row * o + output;
    if (s) s[at] = sum;
    if (z) z[at] = power ? sum / sqrtf(fabsf(sum) + eps) : sum;
  }
};

// Bit j: factor j of the output is kept.
AFFUSE_DEVICE unsigned fbp_kept_bits(const DropoutMask& mask, uint64_t element, int k) {
  unsigned bits = 0;
  for (int j = 0; j < k;) {
    const uint64_t group = (element + unsigned(j)) >> 2;
    const uint32_t counter[4] = {uint32_t(group), uint32_t(group >> 32), mask.step, mask.instance};
    uint32_t words[4] = {};
    philox4x32_10(counter, mask.seed, words);
#pragma unroll
    for (unsigned w = 0; w < 4; ++w) {  // words by number: indexed ones would live in local memory
      if (j >= k || ((element + unsigned(j)) & 3) != w || ((element + unsigned(j)) >> 2) != group) continue;
      bits |= unsigned(words[w] >= mask.threshold) << j;
      ++j;
    }
  }
  return bits;
}

template <int K, int Q>
struct ExactPair {
  static constexpr int kOutputs = 16 * Q, kGroup = 16;
  using L = gemm::Lanes<16, 16, 8, K * Q>;
  using Operand = gemm::Plain;
  static constexpr int kRows = L::kRows;
  using Word = float;
  static constexpr int kRing =
      gemm::kStages * (gemm::Feed<Operand, kRows>::kFloats + gemm::Feed<Operand, L::kColumns>::kFloats);
  using Sums = float[L::TM][L::TN];

  AFFUSE_DEVICE static void project(const Operand& x, const Operand& W, int64_t row0, int64_t output0, Word* ring,
                                    Sums& sums) {
    const gemm::Feed<Operand, kRows> rows(x, gemm::InOrder{row0});
    const gemm::Feed<Operand, L::kColumns> columns(W, FbpOrder{output0, K, kGroup});
    gemm::pipeline<gemm::kStages>(rows, columns, ring, 0, x.K, gemm::kDepth,
                                  [&](const float* a, const float* b) { gemm::multiply_along<L>(a, b, sums); });
  }
  // f(row, output within the tile, sums of u, of v: k each, by a function of j)
  template <class F>
  AFFUSE_DEVICE static void cells(Sums& u, Sums& v, const F& f) {
#pragma unroll
    for (int i = 0; i < L::TM; ++i)
#pragma unroll
      for (int q = 0; q < Q; ++q)
        f(L::y() + 16 * i, 16 * q + L::x(), [&](int j) -> float& { return u[i][q * K + j]; },
          [&](int j) -> float& { return v[i][q * K + j]; });
  }
};

template <int K, int Q, int MT>
struct RoundedPair {
  using W = gemm::Warps<2, 4, MT, K * Q>;
  static constexpr int kOutputs = 32 * Q, kGroup = 8;
  using Operand = gemm::Rounded;
  static constexpr int kRows = W::kRows;
  using Word = uint32_t;
  static constexpr int kRing = gemm::kMmaStages * (gemm::Feed16<kRows>::kFloats + gemm::Feed16<W::kColumns>::kFloats);
  using Sums = float[W::MT][W::NT][4];

  AFFUSE_DEVICE static void project(const Operand& x, const Operand& weight, int64_t row0, int64_t output0, Word* ring,
                                    Sums& sums) {
    const gemm::Feed16<kRows> rows(x, row0);
    const gemm::Feed16<W::kColumns> columns(weight, output0 * K);
    gemm::pipeline<gemm::kMmaStages>(rows, columns, ring, 0, x.words, gemm::kHalves / 2,
                                     [&](const uint32_t* a, const uint32_t* b) { gemm::multiply16<W>(a, b, sums); });
  }
  template <class F>
  AFFUSE_DEVICE static void cells(Sums& u, Sums& v, const F& f) {
#pragma unroll
    for (int m = 0; m < MT; ++m)
#pragma unroll
      for (int q = 0; q < Q; ++q)
#pragma unroll
        for (int e = 0; e < 4; ++e)
          f((W::y() * MT + m) * 16 + int(lane()) / 4 + e / 2 * 8, (W::x() * Q + q) * 8 + int(lane()) % 4 * 2 + e % 2,
            [&](int j) -> float& { return u[m][q * K + j][e]; }, [&](int j) -> float& { return v[m][q * K + j][e]; });
  }
};

template <class Pair, int K>
AFFUSE_GLOBAL(gemm::kThreads, 1) fbp_fused(typename Pair::Operand a, typename Pair::Operand U, typename Pair::Operand v,
                                           typename Pair::Operand V, FbpFinish finish) {
  Shared shared;
  auto* const ring = shared.take<typename Pair::Word>(Pair::kRing);
  auto* const kept = shared.take<uint8_t>(Pair::kRows * Pair::kOutputs);
  const int64_t row0 = int64_t(blockIdx.x) * Pair::kRows, output0 = int64_t(blockIdx.y) * Pair::kOutputs;
  if (finish.dropout)
    for (int i = int(threadIdx.x); i < Pair::kRows * Pair::kOutputs; i += gemm::kThreads) {
      const int64_t row = row0 + i / Pair::kOutputs, output = output0 + i % Pair::kOutputs;
      if (row < finish.B && output < finish.o)
        kept[i] = uint8_t(fbp_kept_bits(finish.mask, finish.element(row, output), K));
    }
  typename Pair::Sums hu = {}, hv = {};
  if (!finish.given) Pair::project(a, U, row0, output0, ring, hu);
  Pair::project(v, V, row0, output0, ring, hv);  // its barriers let everybody see `kept`
  const float scale = float(finish.mask.scale);
  Pair::cells(hu, hv, [&](int r, int c, const auto& u, const auto& v) {
    const int64_t row = row0 + r, output = output0 + c, column = output * K;
    if (row >= finish.B || output >= finish.o) return;
    const float* const given = finish.given ? finish.given + finish.group.quotient(row) * finish.P + column : nullptr;
    const unsigned bits = finish.dropout ? kept[r * Pair::kOutputs + c] : 0u;
    float sum = 0;
#pragma unroll
    for (int j = 0; j < K; ++j) {
      float x, y = v(j);
      if (finish.bv) y += finish.bv[column + j];
      y = fbp_activated(finish.activation, y);
      if (given) {
        x = given[j];
      } else {
        x = u(j);
        if (finish.bu) x += finish.bu[column + j];
        x = fbp_activated(finish.activation, x);
        if (finish.hu) finish.hu[row * finish.P + column + j] = x;
      }
      if (finish.hv) finish.hv[row * finish.P + column + j] = y;
      const float product = x * y;
      sum += finish.dropout ? (bits >> j & 1 ? product * scale : 0.0f) : product;
    }
    finish.put_sum(row, output, sum);
  });
}

}  // namespace affuse::cuda
