#include "../common/math.h"
#include "../common/reduce.h"
#include "lrn.h"

namespace affuse::AFFUSE_ISA {
namespace {

// 1/sqrt(d), d in [1e-3, FLT_MAX] or NaN. An estimate and Newton's step where the estimate has 14 bits: square roots and
// divisions would take longer than the memory does.
AFFUSE_INLINE Vec inverse_root(Vec d) {
#if defined(AFFUSE_ISA_AVX512)
  const Vec r = _mm512_rsqrt14_ps(d);
  return r * fnma(set1(0.5f) * d * r, r, set1(1.5f));
#else
  return rsqrt(d);
#endif
}

// d^-beta and d^-1.
struct Powers {
  Vec power, inverse;
};
struct ThreeQuarters {
  AFFUSE_INLINE Powers of(Vec d) const {
    const Vec r = inverse_root(d), inverse = r * r;
    return {inverse * inverse_root(r), inverse};  // d^-1 d^(1/4)
  }
};
struct Half {
  AFFUSE_INLINE Powers of(Vec d) const {
    const Vec r = inverse_root(d);
    return {r, r * r};
  }
};
struct AnyPower {
  float beta;
  AFFUSE_INLINE Powers of(Vec d) const { return {exp(set1(-beta) * log(d)), set1(1.0f) / d}; }
};
// FLT_MAX instead of infinity keeps everything finite (alpha may be 0); NaN passes.
AFFUSE_INLINE Vec clamped(Vec d) { return min(set1(3.40282347e38f), d); }

// Sum of the window [-before, after] around s, `stride` floats between channels.
AFFUSE_INLINE Vec sum_over(const float* s, int64_t stride, int64_t before, int64_t after) {
  if (before == 2 && after == 2)  // n = 5, the usual one
    return (load(s - 2 * stride) + load(s + 2 * stride)) + (load(s - stride) + load(s + stride)) + load(s);
  Vec sum = zero();
  for (int64_t j = -before; j <= after; ++j) sum += load(s + j * stride);
  return sum;
}

struct Window {
  int64_t before, after;
  float k, alpha;
  // d at element c of a row whose squares lie at s, `stride` floats between channels.
  AFFUSE_INLINE Vec scale(const float* s, int64_t stride) const { return scale(sum_over(s, stride, before, after)); }
  AFFUSE_INLINE Vec scale(Vec sum) const {
    return clamped(fma(set1(alpha), clamped(sum), set1(k)));
  }
};

AFFUSE_INLINE void clear(float* p, int64_t n) {
  for_lanes(n, [&](int64_t i, int k) { put(p + i, zero(), k); });
}

// How a block of the map is walked: `count` vectors of each of `rows` rows, `step` floats apart in memory, kLanes apart
// in scratch. Channel-last: a row's channels, kLanes at a time. Otherwise: one row, channel after channel of kLanes
// neighbouring positions.
struct Walk {
  int64_t count, step, next;  // distance of neighbouring channels in scratch
  int64_t margin, row;        // floats before the first channel in scratch, from one row's scratch to the next one's
  int64_t C;
  bool last;
  AFFUSE_INLINE int lanes(int64_t i, int positions) const {
    if (!last) return positions;
    return C - i * kLanes < kLanes ? int(C - i * kLanes) : kLanes;
  }
};

// The squares of a whole block first: a load that spans two stores waits until both have left the store buffer.
AFFUSE_INLINE void squares(const Walk& walk, int64_t rows, int positions, const float* x, float* s) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t i = 0; i < walk.count; ++i) {
      const Vec a = get(x + r * walk.C + i * walk.step, walk.lanes(i, positions));
      store(s + r * walk.row + i * kLanes, a * a);
    }
}

template <class P>
AFFUSE_INLINE void forward(const Walk& walk, const Window& window, const P& power, int64_t rows, int positions,
                           const float* x, float* y, float* scratch) {
  float* s = scratch + walk.margin;
  squares(walk, rows, positions, x, s);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t i = 0; i < walk.count; ++i) {
      const int n = walk.lanes(i, positions);
      const int64_t at = r * walk.C + i * walk.step;
      prefetch(x + at + rows * walk.C);  // the next block: memory works while this one is computed
      prefetch(y + at + rows * walk.C);
      const Vec q = power.of(window.scale(s + r * walk.row + i * kLanes, walk.next)).power;
      put(y + at, get(x + at, n) * q, n);
    }
}

template <class P>
AFFUSE_INLINE void backward(const Walk& walk, const Window& window, const P& power, float factor, int64_t rows,
                            int positions, const float* x, const float* dy, float* dx, float* scratch, int64_t area) {
  float *s = scratch + walk.margin, *t = s + area, *u = t + area;
  squares(walk, rows, positions, x, s);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t i = 0; i < walk.count; ++i) {
      const int n = walk.lanes(i, positions);
      const int64_t at = r * walk.C + i * walk.step, in = r * walk.row + i * kLanes;
      const Powers q = power.of(window.scale(s + in, walk.next));
      const Vec g = get(dy + at, n) * q.power;
      store(u + in, g);
      store(t + in, get(x + at, n) * g * q.inverse);  // lanes without a channel: g = 0
    }
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t i = 0; i < walk.count; ++i) {
      const int n = walk.lanes(i, positions);
      const int64_t at = r * walk.C + i * walk.step, in = r * walk.row + i * kLanes;
      const Vec sum = sum_over(t + in, walk.next, window.after, window.before);
      prefetch(x + at + rows * walk.C);
      prefetch(dy + at + rows * walk.C);
      prefetch(dx + at + rows * walk.C);
      put(dx + at, fnma(set1(factor) * get(x + at, n), sum, load(u + in)), n);
    }
}

#if defined(AFFUSE_ISA_AVX512)
// The usual window (n = 5) of channel-last rows without scratch: neighbours come out of two vectors, so that the next
// loads need not wait for any store and memory is kept busy.
struct Near {  // the vectors before, at and after a place
  Vec before, here, after;
  template <int n>
  AFFUSE_INLINE static Vec shifted(Vec low, Vec high) {
    return _mm512_castsi512_ps(_mm512_alignr_epi32(_mm512_castps_si512(high), _mm512_castps_si512(low), n));
  }
  AFFUSE_INLINE Vec sum() const {  // in the order of sum_over
    const Vec two = shifted<14>(before, here) + shifted<2>(here, after);
    return two + (shifted<15>(before, here) + shifted<1>(here, after)) + here;
  }
  AFFUSE_INLINE void step(Vec next) { before = here, here = after, after = next; }
};

// Some rows ahead, for memory's sake.
AFFUSE_INLINE void fetch_ahead(const float* read, const float* written) {
  prefetch(read + 1024);
  __builtin_prefetch(written + 512, 1, 3);
}

template <class P>
AFFUSE_INLINE void forward_row(const Walk& walk, const Window& window, const P& power, const float* x, float* y) {
  Vec a = get(x, walk.lanes(0, kLanes));
  Near s{zero(), zero(), a * a};
  for (int64_t i = 0; i < walk.count; ++i) {
    fetch_ahead(x + i * kLanes, y + i * kLanes);
    const Vec next = i + 1 < walk.count ? get(x + (i + 1) * kLanes, walk.lanes(i + 1, kLanes)) : zero();
    s.step(next * next);
    put(y + i * kLanes, a * power.of(window.scale(s.sum())).power, walk.lanes(i, kLanes));
    a = next;
  }
}

template <class P>
AFFUSE_INLINE void backward_row(const Walk& walk, const Window& window, const P& power, float factor, const float* x,
                                const float* dy, float* dx) {
  Vec a = get(x, walk.lanes(0, kLanes)), a0 = zero(), g0 = zero();
  Near s{zero(), zero(), a * a}, t{zero(), zero(), zero()};
  for (int64_t i = 0; i <= walk.count; ++i) {  // dx follows one vector behind: it needs the terms on both sides
    fetch_ahead(x + i * kLanes, dx + i * kLanes);
    prefetch(dy + i * kLanes + 1024);
    Vec g = zero(), term = zero(), next = zero();
    if (i < walk.count) {
      if (i + 1 < walk.count) next = get(x + (i + 1) * kLanes, walk.lanes(i + 1, kLanes));
      s.step(next * next);
      const Powers q = power.of(window.scale(s.sum()));
      g = get(dy + i * kLanes, walk.lanes(i, kLanes)) * q.power;
      term = a * g * q.inverse;
    }
    t.step(term);
    if (i > 0) put(dx + (i - 1) * kLanes, fnma(set1(factor) * a0, t.sum(), g0), walk.lanes(i - 1, kLanes));
    a0 = a, g0 = g, a = next;
  }
}
#endif

// Calls body(offset, rows, positions, scratch) for every block of the maps that belongs to an item, and clears the rest
// of `out`.
template <class F>
void pieces(const OpCall& call, const Maps& m, const int32_t* widths, float* out, int64_t area, int64_t block, F&& body) {
  float* const workspace = static_cast<float*>(call.workspace);
  if (m.last) {
    const int64_t rows = m.B * m.H * m.W, step = m.C >= 16384 ? 1 : 16384 / m.C;
    parallel(*call.workers, (rows + step - 1) / step, [&](int64_t task, int worker) {
      float* scratch = workspace + worker * 3 * area;
      clear(scratch, 3 * area);
      const int64_t end = (task + 1) * step < rows ? (task + 1) * step : rows;
      for (int64_t r = task * step; r < end;) {
        int64_t n = end - r < block ? end - r : block;
        if (widths) {  // no further than the end of the own columns, or of the others
          const int64_t w = r % m.W, own = widths[r / (m.H * m.W)], left = w < own ? own - w : m.W - w;
          if (left < n) n = left;
          if (w >= own) {
            clear(out + r * m.C, n * m.C);
            r += n;
            continue;
          }
        }
        body(r * m.C, n, kLanes, scratch);
        r += n;
      }
    });
    return;
  }
  // Without widths the rows of a plane are as good as one.
  const int64_t H = widths ? m.H : 1, W = widths ? m.W : m.H * m.W, plane = m.H * m.W;
  const int64_t wide = 16 * kLrnBlock, blocks = (W + wide - 1) / wide;
  parallel(*call.workers, m.B * H * blocks, [&](int64_t task, int worker) {
    float* scratch = workspace + worker * 3 * area;
    clear(scratch, 3 * area);
    const int64_t from = task % blocks * wide, to = from + wide < W ? from + wide : W, bh = task / blocks, b = bh / H;
    const int64_t own = own_width(widths, b, W), offset = b * m.C * plane + bh % H * W;
    int64_t w = from;
    for (; w < to && w < own; w += kLanes) {
      const int64_t left = (own < to ? own : to) - w;
      body(offset + w, 1, left < kLanes ? int(left) : kLanes, scratch);
    }
    if (w > own) w = own > from ? own : from;
    for (int64_t c = 0; w < to && c < m.C; ++c) clear(out + offset + c * plane + w, to - w);
  });
}

template <class F>
void with_power(double beta, F&& body) {
  if (beta == 0.75) body(ThreeQuarters{});
  else if (beta == 0.5) body(Half{});
  else body(AnyPower{float(beta)});
}

Walk walk_of(const Maps& m, int64_t n) {
  if (m.last) return {(m.C + kLanes - 1) / kLanes, kLanes, 1, n, lrn_row(m.C, n), m.C, true};
  return {m.C, m.H * m.W, kLanes, n * kLanes, 0, m.C, false};
}

}  // namespace

void lrn_forward(const OpCall& call) {
  const Maps m = maps_of(call.in[0], call.attr[5].i);
  const LrnAttrs a = lrn_attrs(call.attr);
  const Walk walk = walk_of(m, a.n);
  const Window window{a.before, a.after, float(a.k), float(a.alpha)};
  const float* x = call.in[0].f32();
  float* y = call.out[0].f32();
  with_power(a.beta, [&](auto power) {
    const auto body = [&](int64_t at, int64_t rows, int positions, float* scratch) {
#if defined(AFFUSE_ISA_AVX512)
      if (m.last && a.n == 5) {
        for (int64_t r = 0; r < rows; ++r) forward_row(walk, window, power, x + at + r * m.C, y + at + r * m.C);
        return;
      }
#endif
      forward(walk, window, power, rows, positions, x + at, y + at, scratch);
    };
    pieces(call, m, call.in[1].i32(), y, lrn_scratch(m.C, a.n, m.last) / 3, lrn_rows(m.C, a.n), body);
  });
}

void lrn_backward(const OpCall& call) {
  const Maps m = maps_of(call.in[0], call.attr[5].i);
  const LrnAttrs a = lrn_attrs(call.attr);
  const Walk walk = walk_of(m, a.n);
  const Window window{a.before, a.after, float(a.k), float(a.alpha)};
  const float *x = call.in[0].f32(), *dy = call.in[2].f32();
  float* dx = call.out[0].f32();
  const int64_t area = lrn_scratch(m.C, a.n, m.last) / 3;
  with_power(a.beta, [&](auto power) {
    const auto body = [&](int64_t at, int64_t rows, int positions, float* scratch) {
      const float factor = float(2 * a.alpha * a.beta);
#if defined(AFFUSE_ISA_AVX512)
      if (m.last && a.n == 5) {
        for (int64_t r = 0; r < rows; ++r)
          backward_row(walk, window, power, factor, x + at + r * m.C, dy + at + r * m.C, dx + at + r * m.C);
        return;
      }
#endif
      backward(walk, window, power, factor, rows, positions, x + at, dy + at, dx + at, scratch, area);
    };
    pieces(call, m, call.in[1].i32(), dx, area, lrn_rows(m.C, a.n), body);
  });
}

}  // namespace affuse::AFFUSE_ISA
