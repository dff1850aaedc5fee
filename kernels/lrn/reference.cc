#include <cmath>

#include "lrn.h"

namespace affuse {
namespace {

struct Column {  // one position of the map, all channels
  const Maps& m;
  int64_t b, h, w;
  int64_t at(int64_t c) const { return m.at(b, c, h, w); }
};

double scale_at(const Column& p, const double* x, const LrnAttrs& a, int64_t c) {
  double sum = 0;
  for (int64_t j = c - a.before; j <= c + a.after; ++j)
    if (j >= 0 && j < p.m.C) sum += x[p.at(j)] * x[p.at(j)];
  return a.k + a.alpha * sum;
}

// Calls own(position) or other(position) for every position of the map.
template <class Own, class Other>
void positions(const Maps& m, const int32_t* widths, Own&& own, Other&& other) {
  for (int64_t b = 0; b < m.B; ++b)
    for (int64_t h = 0; h < m.H; ++h)
      for (int64_t w = 0; w < m.W; ++w) {
        if (w < own_width(widths, b, m.W)) own(Column{m, b, h, w});
        else other(Column{m, b, h, w});
      }
}

}  // namespace

void lrn_reference(const OpCall& call) {
  const Maps m = maps_of(call.in[0], call.attr[5].i);
  const LrnAttrs a = lrn_attrs(call.attr);
  const double* x = call.in[0].f64();
  double* y = call.out[0].f64();
  positions(
      m, call.in[1].i32(),
      [&](const Column& p) {
        for (int64_t c = 0; c < m.C; ++c) y[p.at(c)] = x[p.at(c)] * std::pow(scale_at(p, x, a, c), -a.beta);
      },
      [&](const Column& p) {
        for (int64_t c = 0; c < m.C; ++c) y[p.at(c)] = 0;
      });
}

void lrn_backward_reference(const OpCall& call) {
  const Maps m = maps_of(call.in[0], call.attr[5].i);
  const LrnAttrs a = lrn_attrs(call.attr);
  const double *x = call.in[0].f64(), *dy = call.in[2].f64();
  double* dx = call.out[0].f64();
  positions(
      m, call.in[1].i32(),
      [&](const Column& p) {
        for (int64_t c = 0; c < m.C; ++c) {
          double sum = 0;
          for (int64_t j = c - a.after; j <= c + a.before; ++j)
            if (j >= 0 && j < m.C) sum += dy[p.at(j)] * x[p.at(j)] * std::pow(scale_at(p, x, a, j), -a.beta - 1);
          dx[p.at(c)] = dy[p.at(c)] * std::pow(scale_at(p, x, a, c), -a.beta) - 2 * a.alpha * a.beta * x[p.at(c)] * sum;
        }
      },
      [&](const Column& p) {
        for (int64_t c = 0; c < m.C; ++c) dx[p.at(c)] = 0;
      });
}

}  // namespace affuse
