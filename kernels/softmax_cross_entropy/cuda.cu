// softmax_cross_entropy on a device. A team of threads takes a sample (common/cuda/rows.h): posteriors, and in float64 its
// share of the loss; the shares, the weights of the labels and their number are then added up in order (sums.h). Backward:
// the sums of weights first, then a team for each sample; where the class weights want a gradient, the samples' logarithms
// before and a walk over columns after that. No number passes through the host.
//
// A label outside [0, C) counts as missing: what checks labels elsewhere sees host memory only.
#include "../common/cuda/sums.h"
#include "../softmax/row_cuda.h"
#include "softmax_cross_entropy.h"

namespace affuse::cuda {
namespace {

using In = CrossEntropyIn;

struct Given {
  const float *logits, *weights;  // weights: null for all 1
  const int32_t* labels;
  int64_t B, C;
  double eps;
  AFFUSE_DEVICE int64_t label(int64_t i) const { return labels[i] >= 0 && labels[i] < C ? labels[i] : -1; }
  AFFUSE_DEVICE float weight(int64_t c) const { return weights ? weights[c] : 1.0f; }
};

Given given(const OpCall& call) {
  const Tensor& x = call.in[In::logits];
  return {x.f32(), call.in[In::class_weights].f32(), call.in[In::labels].i32(), x.dim[0], x.dim[1], call.attr[0].f};
}

struct Samples {
  Given a;
  float* posteriors;        // may be null
  double *share, *log_sum;  // [B]: the sample's part of the loss's numerator; log sum_c exp x_c, may be null
  template <int LANES, int N, int K>
  AFFUSE_DEVICE void operator()(const Row<LANES, N, K>& row) const {
    Kept<N, K> v(a.logits + row.at);
    double below = 0, weights = 0;  // sum_c w_c (max - x_c), sum_c w_c: no term is negative, nothing cancels
    const RowSum s = row_sum_of(row, v, [&](int64_t c, const Pack<N>& x, float most) {
      if (a.eps == 0) return;
#pragma unroll
      for (int i = 0; i < N; ++i) {
        const double w = double(a.weight(c + i));
        if (w == 0) continue;  // also beside an infinite logit
        below += w * (double(most) - double(x.v[i]));
        weights += w;
      }
    });
    if (posteriors) {
      const float scale = 1.0f / s.sum;
      row.each([&](int k, int64_t c) { put(posteriors + row.at + c, share_of(v, s.max, scale, k, c)); });
    }
    if (a.eps > 0) below = row.sum(below), weights = row.sum(weights);
    if (!row.first || !row.there) return;
    const int64_t y = a.label(row.index);
    const double log_of = log(double(s.sum));
    if (log_sum) log_sum[row.index] = log_of + double(s.max);
    double sum = 0;
    if (y >= 0) {
      sum = (1 - a.eps) * double(a.weight(y)) * (log_of - (double(a.logits[row.at + y]) - double(s.max)));
      if (a.eps > 0) sum += a.eps / double(a.C) * (log_of * weights + below);
    }
    share[row.index] = sum;
  }
};

void samples(Queue& queue, const Given& a, float* posteriors, double* share, double* log_sum) {
  rows(queue, "softmax_cross_entropy samples", a.B, a.C, a.C % 4 == 0 && aligned(a.logits) && aligned(posteriors),
       Samples{a, posteriors, share, log_sum});
}

struct Totals {  // device memory: what the gradients need
  double slope;  // dloss / W, 0 where W is
  double all;    // sum of the class weights
  double loss;
};

struct Labels {  // over max(B, C) positions
  using Sum = double;
  static constexpr int kSums = 4;  // shares, weights of the labels, labels of non-zero weight, weights of the classes
  Given a;
  const double* share;  // null: the loss is not needed
  const float* dloss;   // null: 0
  float* loss;
  int32_t* count;
  Totals* totals;
  template <int N>
  AFFUSE_DEVICE void add(int64_t i, double (&s)[4]) const {
    if (i < a.C) s[3] += double(a.weight(i));
    if (i >= a.B) return;
    const int64_t y = a.label(i);
    if (y < 0) return;
    const float w = a.weight(y);
    if (share) s[0] += share[i];
    s[1] += double(w);
    s[2] += w != 0.0f ? 1.0 : 0.0;
  }
  AFFUSE_DEVICE void finish(const double (&total)[4]) const {
    const double mean = total[1] == 0 ? 0 : total[0] / total[1];
    if (loss) *loss = float(mean);
    if (count) *count = int32_t(total[2]);
    if (totals) *totals = {total[1] == 0 || !dloss ? 0 : double(*dloss) / total[1], total[3], mean};
  }
};

int64_t positions(const TensorDesc& logits) { return logits.dim[0] > logits.dim[1] ? logits.dim[0] : logits.dim[1]; }

void forward(const OpCall& call, Queue& queue) {
  const Given a = given(call);
  double* const share = static_cast<double*>(call.workspace);
  samples(queue, a, call.out[1].f32(), share, nullptr);
  long_sums_of<1>(queue, "softmax_cross_entropy", positions(call.in[In::logits]),
            Labels{a, share, nullptr, call.out[0].f32(), call.out[2].i32(), nullptr}, share + a.B);
}
size_t workspace(const OpShape& s, int) {
  const TensorDesc& logits = s.in[In::logits];
  return size_t(logits.dim[0]) * sizeof(double) + long_sums_workspace<Labels>(positions(logits));
}

template <bool saved>
struct Gradients {
  Given a;
  const float *posteriors, *dposteriors;  // dposteriors may be null
  const Totals* totals;
  float* dlogits;
  template <int LANES, int N, int K>
  AFFUSE_DEVICE void operator()(const Row<LANES, N, K>& row) const {
    Kept<N, K> v((saved ? posteriors : a.logits) + row.at), g((dposteriors ? dposteriors : a.logits) + row.at);
    RowSum s{0, 1};
    if constexpr (!saved) s = row_sum_of(row, v);
    const float scale = 1.0f / s.sum;
    const auto share = [&](int k, int64_t c) {
      if constexpr (saved) return v.again(k, c);
      else return share_of(v, s.max, scale, k, c);
    };
    if constexpr (saved && K > 0) row.each([&](int k, int64_t c) { v.first(k, c); });
    float dot = 0;
    if (dposteriors) {
      row.each([&](int k, int64_t c) { dot = dot_of(g.first(k, c), share(k, c), dot); });
      dot = row.sum(dot);
    }
    if (!row.there) return;
    // d = p (factor + dposteriors) - flat w - target [c = y]
    const int64_t y = a.label(row.index);
    if (y < 0 && !dposteriors) {  // whatever its logits hold
      row.each([&](int, int64_t c) { put(dlogits + row.at + c, fill<N>(0.0f)); });
      return;
    }
    const double target = y < 0 ? 0 : totals->slope * (1 - a.eps) * double(a.weight(y));
    const double smooth = y < 0 ? 0 : totals->slope * a.eps / double(a.C), all = totals->all;
    const float factor = float(target + smooth * all - double(dot)), flat = float(smooth);
    row.each([&](int k, int64_t c) {
      const Pack<N> p = share(k, c);
      const Pack<N> dp = dposteriors ? g.again(k, c) : fill<N>(0.0f);
      Pack<N> d;
#pragma unroll
      for (int i = 0; i < N; ++i) {
        d.v[i] = fmaf(p.v[i], dp.v[i] + factor, -(a.weight(c + i) * flat));
        if (c + i != y) continue;
        const double own = double(p.v[i]);
        d.v[i] = float(target * (own - 1) + smooth * (own * all - double(a.weight(y))) +
                       own * (double(dp.v[i]) - double(dot)));
      }
      put(dlogits + row.at + c, d);
    });
  }
};

// 32 classes by 8 runs of samples, the runs added in order.
AFFUSE_GLOBAL(256, 2) class_weights(Given a, const double* log_sum, const Totals* totals, float* dweights) {
  Shared shared;
  double* const room = shared.take<double>(256);
  for (int64_t first = int64_t(blockIdx.x) * 32; first < a.C; first += int64_t(gridDim.x) * 32) {
    const int64_t c = first + lane();
    double sum = 0;
    for (int64_t i = warp(); c < a.C && i < a.B; i += 8) {
      const int64_t y = a.label(i);
      if (y < 0 || (y != c && a.eps == 0)) continue;
      const double l = log_sum[i] - double(a.logits[i * a.C + c]);
      sum += (y == c ? (1 - a.eps) * l - totals->loss : 0) + a.eps / double(a.C) * l;
    }
    room[threadIdx.x] = sum;
    barrier();
    if (warp() == 0 && c < a.C) {
      for (unsigned w = 1; w < 8; ++w) sum += room[w * 32 + lane()];
      dweights[c] = totals->slope == 0 ? 0.0f : float(totals->slope * sum);
    }
    barrier();
  }
}

void backward(const OpCall& call, Queue& queue) {
  const Given a = given(call);
  const float *posteriors = call.in[In::posteriors].f32(), *dposteriors = call.in[In::dposteriors].f32();
  float *dlogits = call.out[0].f32(), *dweights = call.out[1].f32();
  Totals* const totals = static_cast<Totals*>(call.workspace);
  double *const share = static_cast<double*>(call.workspace) + 4, *const log_sum = share + a.B;
  if (dweights) samples(queue, a, nullptr, share, log_sum);
  long_sums_of<1>(queue, "softmax_cross_entropy.backward totals", positions(call.in[In::logits]),
            Labels{a, dweights ? share : nullptr, call.in[In::dloss].f32(), nullptr, nullptr, totals}, log_sum + a.B);
  if (dlogits) {
    const bool wide = a.C % 4 == 0 && aligned(a.logits) && aligned(posteriors) && aligned(dposteriors) && aligned(dlogits);
    const char* const name = "softmax_cross_entropy.backward";
    if (posteriors) rows(queue, name, a.B, a.C, wide, Gradients<true>{a, posteriors, dposteriors, totals, dlogits});
    else rows(queue, name, a.B, a.C, wide, Gradients<false>{a, posteriors, dposteriors, totals, dlogits});
  }
  if (!dweights) return;
  const int64_t blocks = (a.C + 31) / 32, most = int64_t(queue.processors) * 8;
  AFFUSE_LAUNCH(class_weights, queue, Grid{blocks < most ? blocks : most}, 256, SharedBytes().take<double>(256).bytes, a,
                log_sum, totals, dweights);
}
size_t backward_workspace(const OpShape& s, int) {
  const TensorDesc& logits = s.in[In::logits];
  return size_t(4 + 2 * logits.dim[0]) * sizeof(double) + long_sums_workspace<Labels>(positions(logits));
}

}  // namespace

AFFUSE_DEVICE_OP(kSoftmaxCrossEntropy, "softmax_cross_entropy", &forward, &workspace)
AFFUSE_DEVICE_OP(kSoftmaxCrossEntropyBackward, "softmax_cross_entropy.backward", &backward, &backward_workspace)

}  // namespace affuse::cuda
