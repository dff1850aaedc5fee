#include <cmath>

#include "max_pool2d.h"

namespace affuse {
namespace {

// Where the largest element of a window lies.
int64_t largest(const double* x, const Maps& m, const PoolAttrs& a, int64_t b, int64_t c, int64_t h, int64_t w) {
  int64_t best = m.at(b, c, h * a.stride, w * a.stride);
  for (int64_t i = 0; i < a.size; ++i)
    for (int64_t j = 0; j < a.size; ++j) {
      const int64_t at = m.at(b, c, h * a.stride + i, w * a.stride + j);
      if (x[at] > x[best] || std::isnan(x[at])) best = at;
    }
  return best;
}

}  // namespace

void max_pool2d_reference(const OpCall& call) {
  const Maps m = maps_of(call.in[0], call.attr[2].i);
  const PoolAttrs a = pool_attrs(call.attr);
  const Maps y = pooled(m, a);
  const int32_t* widths = call.in[1].i32();
  write_widths(call.out[1], call.in[1], a.size, a.stride, 0);
  if (!call.out[0].given()) return;
  for (int64_t b = 0; b < y.B; ++b)
    for (int64_t c = 0; c < y.C; ++c)
      for (int64_t h = 0; h < y.H; ++h)
        for (int64_t w = 0; w < y.W; ++w) {
          double& out = call.out[0].f64()[y.at(b, c, h, w)];
          out = 0;
          if (w >= window_count(own_width(widths, b, m.W), a.size, a.stride, 0)) continue;
          out = call.in[0].f64()[largest(call.in[0].f64(), m, a, b, c, h, w)];
        }
}

void max_pool2d_backward_reference(const OpCall& call) {
  const Maps m = maps_of(call.in[0], call.attr[2].i);
  const PoolAttrs a = pool_attrs(call.attr);
  const Maps y = pooled(m, a);
  const int32_t* widths = call.in[1].i32();
  double* dx = call.out[0].f64();
  for (int64_t i = 0; i < call.out[0].count(); ++i) dx[i] = 0;
  for (int64_t b = 0; b < y.B; ++b)
    for (int64_t c = 0; c < y.C; ++c)
      for (int64_t h = 0; h < y.H; ++h)
        for (int64_t w = 0; w < window_count(own_width(widths, b, m.W), a.size, a.stride, 0); ++w) {
          const double dy = call.in[2].f64()[y.at(b, c, h, w)];
          dx[largest(call.in[0].f64(), m, a, b, c, h, w)] += dy;
        }
}

}  // namespace affuse
