#include "conv2d.h"

namespace affuse {
namespace {

// Calls body(x offset, W offset) for every product in z[b,o,h,w].
template <class F>
void products(const Conv& c, const int32_t* widths, int64_t b, int64_t o, int64_t h, int64_t w, F&& body) {
  const int64_t W = own_width(widths, b, c.x.W), v0 = w * c.stride - c.pad, u0 = h * c.stride - c.pad;
  const int64_t left = v0 < 0 ? -v0 : 0, right = v0 + c.kw > W ? W - v0 : c.kw;
  const int64_t column = c.x.W > 1 ? c.x.at(0, 0, 0, 1) : 0;
  for (int64_t ch = 0; ch < c.x.C; ++ch)
    for (int64_t i = u0 < 0 ? -u0 : 0; i < c.kh && u0 + i < c.x.H; ++i) {
      const int64_t x = c.x.at(b, ch, u0 + i, 0) + v0 * column, k = ((o * c.x.C + ch) * c.kh + i) * c.kw;
      for (int64_t j = left; j < right; ++j) body(x + j * column, k + j);
    }
}

double z_at(const OpCall& call, const Conv& c, int64_t b, int64_t o, int64_t h, int64_t w) {
  const double *x = call.in[0].f64(), *W = call.in[1].f64(), *bias = call.in[2].f64();
  double z = bias ? bias[o] : 0;
  products(c, call.in[3].i32(), b, o, h, w, [&](int64_t i, int64_t k) { z += x[i] * W[k]; });
  return z;
}

}  // namespace

void conv2d_reference(const OpCall& call) {
  const Conv c = conv_of(call.in[0], call.in[1], call.attr);
  write_widths(call.out[1], call.in[3], c.kw, c.stride, c.pad);
  if (!call.out[0].given()) return;
  double* y = call.out[0].f64();
  for (int64_t b = 0; b < c.y.B; ++b)
    for (int64_t o = 0; o < c.O; ++o)
      for (int64_t h = 0; h < c.y.H; ++h)
        for (int64_t w = 0; w < c.y.W; ++w) {
          const double z = w < c.own(call.in[3].i32(), b) ? z_at(call, c, b, o, h, w) : 0;
          y[c.y.at(b, o, h, w)] = c.relu && z < 0 ? 0 : z;
        }
}

// Always from x, W and b: the saved tensor is for the fast version.
void conv2d_backward_reference(const OpCall& call) {
  const Conv c = conv_of(call.in[0], call.in[1], call.attr);
  const double *x = call.in[0].f64(), *W = call.in[1].f64(), *dy = call.in[5].f64();
  double *dx = call.out[0].f64(), *dW = call.out[1].f64(), *db = call.out[2].f64();
  for (int64_t i = 0; dx && i < call.out[0].count(); ++i) dx[i] = 0;
  for (int64_t i = 0; dW && i < call.out[1].count(); ++i) dW[i] = 0;
  for (int64_t o = 0; db && o < c.O; ++o) db[o] = 0;
  for (int64_t b = 0; b < c.y.B; ++b)
    for (int64_t o = 0; o < c.O; ++o)
      for (int64_t h = 0; h < c.y.H; ++h)
        for (int64_t w = 0; w < c.own(call.in[3].i32(), b); ++w) {
          const bool stopped = c.relu && !(z_at(call, c, b, o, h, w) > 0);
          const double g = stopped ? 0 : dy[c.y.at(b, o, h, w)];
          if (g == 0) continue;
          if (db) db[o] += g;
          products(c, call.in[3].i32(), b, o, h, w, [&](int64_t i, int64_t k) {
            if (dx) dx[i] += g * W[k];
            if (dW) dW[k] += g * x[i];
          });
        }
}

}  // namespace affuse
