// adam and adamw on a device: one launch over the flat buffer, every element read and written once; a thread reads what it
// writes before, so the outputs may be the inputs. The corrections by `step` are made on the host, in float64.
#include <cmath>

#include "../common/cuda/stream.h"
#include "adamw.h"

namespace affuse::cuda {
namespace {

template <bool decoupled>
struct Update {
  const float *p, *g, *m, *v;
  float *p_out, *m_out, *v_out;  // null: not wanted
  float beta1, beta2, rest1, rest2, eps, rate, root, decay, keep;
  template <int N>
  AFFUSE_DEVICE void operator()(int64_t i) const {
    Pack<N> p1 = get<N>(p + i), m1 = get<N>(m + i), v1 = get<N>(v + i);
    const Pack<N> g1 = get<N>(g + i);
#pragma unroll
    for (int j = 0; j < N; ++j) {
      float slope = g1.v[j];
      if (decoupled) p1.v[j] *= keep;
      else slope = fmaf(decay, p1.v[j], slope);
      m1.v[j] = fmaf(beta1, m1.v[j], rest1 * slope);
      v1.v[j] = fmaf(beta2, v1.v[j], rest2 * slope * slope);
      p1.v[j] = fmaf(-rate, m1.v[j] / fmaf(sqrtf(v1.v[j]), root, eps), p1.v[j]);
    }
    if (p_out) put(p_out + i, p1);
    if (m_out) put(m_out + i, m1);
    if (v_out) put(v_out + i, v1);
  }
};

template <bool decoupled>
void update(const OpCall& call, Queue& queue) {
  const double lr = call.attr[AdamAttr::lr].f, b1 = call.attr[AdamAttr::beta1].f, b2 = call.attr[AdamAttr::beta2].f;
  const double decay = call.attr[AdamAttr::weight_decay].f, step = double(call.attr[AdamAttr::step].i);
  const Update<decoupled> f{
      call.in[0].f32(), call.in[1].f32(), call.in[2].f32(), call.in[3].f32(),
      call.out[0].f32(), call.out[1].f32(), call.out[2].f32(),
      float(b1), float(b2), float(1 - b1), float(1 - b2), float(call.attr[AdamAttr::eps].f),
      float(lr / (1 - std::pow(b1, step))), float(1 / std::sqrt(1 - std::pow(b2, step))),
      float(decay), float(1 - lr * decay)};
  bool wide = true;
  for (int i = 0; i < 4; ++i) wide = wide && aligned(call.in[i].data) && (i == 3 || aligned(call.out[i].data));
  each<5>(queue, decoupled ? "adamw" : "adam", call.in[0].count(), wide, f);
}

void adam(const OpCall& call, Queue& queue) { update<false>(call, queue); }
void adamw(const OpCall& call, Queue& queue) { update<true>(call, queue); }

}  // namespace

AFFUSE_DEVICE_OP(kAdam, "adam", &adam)
AFFUSE_DEVICE_OP(kAdamw, "adamw", &adamw)

}  // namespace affuse::cuda
