#include "../common/math.h"
#include "../common/reduce.h"
#include "lrn.h"

namespace affuse::AFFUSE_ISA {
namespace {

// d^-beta and d^-1 of d in [1e-3, FLT_MAX], or NaN.
struct Powers {
  Vec power, inverse;
};
#if defined(AFFUSE_ISA_AVX512)
// From estimates of 14 bits: square roots and divisions would take longer than the memory does. With r ~ d^-1/2 and
// h = d r^2, which is nearly 1, d^-1 = r^2 / h; with u ~ r^-1/2 and g = r u^2 likewise, d^-3/4 = r^2 u h^-3/4 g^-1/2. To
// first order in h - 1 and g - 1, at most 2^-13 each, that is good to 2^-25; every product here is near its result.
struct ThreeQuarters {
  AFFUSE_INLINE Powers of(Vec d) const {
    const Vec one = set1(1.0f), r = _mm512_rsqrt14_ps(d), u = _mm512_rsqrt14_ps(r), r2 = r * r;
    const Vec h = fma(d, r2, -one), g = fma(r * u, u, -one);
    return {(r2 * u) * fnma(set1(0.5f), g, fnma(set1(0.75f), h, one)), fnma(r2, h, r2)};
  }
};
struct Half {
  AFFUSE_INLINE Powers of(Vec d) const {
    const Vec r = _mm512_rsqrt14_ps(d), r2 = r * r, h = fma(d, r2, set1(-1.0f));
    return {fnma(set1(0.5f) * r, h, r), fnma(r2, h, r2)};
  }
};
#elif defined(AFFUSE_ISA_AVX2)
// From estimates of 11 bits, to second order. With t ~ d^-1/4 and e = d t^4 - 1, at most 2^-8.8, d^-3/4 = t^3 (1 + e)^-3/4 and
// d^-1 = t^4 / (1 + e); what is left out is 2^-26.
AFFUSE_INLINE Vec series(Vec h, float first, float second) { return fma(h, fma(set1(second), h, set1(first)), set1(1.0f)); }
struct ThreeQuarters {
  AFFUSE_INLINE Powers of(Vec d) const {
    const Vec r = _mm256_rsqrt_ps(d), t = r * _mm256_rsqrt_ps(r), t2 = t * t, e = fma(d * t2, t2, set1(-1.0f));
    return {(t2 * t) * series(e, -0.75f, 0.65625f), (t2 * t2) * series(e, -1.0f, 1.0f)};
  }
};
struct Half {
  AFFUSE_INLINE Powers of(Vec d) const {
    const Vec r = _mm256_rsqrt_ps(d), r2 = r * r, h = fma(d, r2, set1(-1.0f));
    return {r * series(h, -0.5f, 0.375f), r2 * series(h, -1.0f, 1.0f)};
  }
};
#else
struct ThreeQuarters {
  AFFUSE_INLINE Powers of(Vec d) const {
    const Vec r = rsqrt(d), inverse = r * r;
    return {inverse * rsqrt(r), inverse};  // d^-1 d^(1/4)
  }
};
struct Half {
  AFFUSE_INLINE Powers of(Vec d) const {
    const Vec r = rsqrt(d);
    return {r, r * r};
  }
};
#endif
struct AnyPower {
  float beta;
  AFFUSE_INLINE Powers of(Vec d) const { return {exp(set1(-beta) * log(d)), set1(1.0f) / d}; }
};
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
  float k, alpha, most;  // a sum of squares is cut to `most`: d is then finite whatever x is. NaN passes
  // d at element c of a row whose squares lie at s, `stride` floats between channels.
  AFFUSE_INLINE Vec scale(const float* s, int64_t stride) const { return scale(sum_over(s, stride, before, after)); }
  AFFUSE_INLINE Vec scale(Vec sum) const {
    return fma(set1(alpha), min(set1(most), sum), set1(k));
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

#if defined(AFFUSE_ISA_AVX2)
constexpr int64_t kRowScratch = 1;  // rows in each of forward_rows()'s three areas
#else
constexpr int64_t kRowScratch = 0;
#endif

#if defined(AFFUSE_ISA_AVX512) || defined(AFFUSE_ISA_AVX2)
#define AFFUSE_LRN_ROWS 1
// The usual window (n = 5) of channel-last rows. Near: without scratch, neighbours come out of two vectors, so that the next
// loads need not wait for any store and memory is kept busy.
struct Near {  // the vectors before, at and after a place
  Vec before, here, after;
  // Elements n … n + kLanes - 1 of low and high one after another.
  template <int n>
  AFFUSE_INLINE static Vec shifted(Vec low, Vec high) {
#if defined(AFFUSE_ISA_AVX512)
    return _mm512_castsi512_ps(_mm512_alignr_epi32(_mm512_castps_si512(high), _mm512_castps_si512(low), n));
#else
    const Int a = bits(low), b = bits(high), middle = _mm256_permute2x128_si256(a, b, 0x21);
    if constexpr (n < 4) return from_bits(_mm256_alignr_epi8(middle, a, 4 * n));
    else return from_bits(_mm256_alignr_epi8(b, middle, 4 * (n - 4)));
#endif
  }
  AFFUSE_INLINE Vec sum() const {  // in the order of sum_over
    const Vec two = shifted<kLanes - 2>(before, here) + shifted<2>(here, after);
    return two + (shifted<kLanes - 1>(before, here) + shifted<1>(here, after)) + here;
  }
  AFFUSE_INLINE void step(Vec next) { before = here, here = after, after = next; }
};

// Calls body(Together<2>{}, r) for pairs of rows, body(Together<1>{}, r) for those that are left: all with AVX2, where the
// registers do not hold the vectors of two.
template <int n>
struct Together {
  static constexpr int rows = n;
};
template <class F>
AFFUSE_INLINE void each_row(int64_t rows, F&& body) {
  int64_t r = 0;
#if defined(AFFUSE_ISA_AVX512)
  for (; r + 2 <= rows; r += 2) body(Together<2>{}, r);
#endif
  for (; r < rows; ++r) body(Together<1>{}, r);
}

// Some rows ahead, for memory's sake.
AFFUSE_INLINE void fetch_ahead(const float* read, const float* written) {
  prefetch(read + 1024);
  prefetch_write(written + 512);
}

#if defined(AFFUSE_ISA_AVX512)
// `together` rows, `distance` floats apart, side by side: one alone is a chain that the processor waits for.
template <int together, class P>
AFFUSE_INLINE void forward_rows(const Walk& walk, const Window& window, const P& power, int64_t distance, const float* x,
                                float* y) {
  Vec a[together];
  Near s[together];
  for (int r = 0; r < together; ++r) {
    a[r] = get(x + r * distance, walk.lanes(0, kLanes));
    s[r] = {zero(), zero(), a[r] * a[r]};
  }
  const auto step = [&](int64_t i, int n, int upcoming, bool fetch) AFFUSE_INLINE_BODY {
#pragma GCC unroll 4
    for (int r = 0; r < together; ++r) {
      const int64_t at = r * distance + i * kLanes;
      if (fetch) fetch_ahead(x + at, y + at);
      const Vec next = upcoming == kLanes ? load(x + at + kLanes) : upcoming > 0 ? load(x + at + kLanes, upcoming) : zero();
      s[r].step(next * next);
      put(y + at, a[r] * power.of(window.scale(s[r].sum())).power, n);
      a[r] = next;
    }
  };
  constexpr int kLine = 16 / kLanes;  // vectors
  int64_t i = 0;
  for (const int64_t whole = walk.C / kLanes; i + kLine < whole; i += kLine)
#pragma GCC unroll 2
    for (int j = 0; j < kLine; ++j) step(i + j, kLanes, kLanes, j == 0);
  for (; i < walk.count; ++i)
    step(i, walk.lanes(i, kLanes), i + 1 < walk.count ? walk.lanes(i + 1, kLanes) : 0, true);
}
#else
// A row at a time, its squares stored while the row before it is computed: with eight lanes neighbours cost less loaded than
// shuffled, and what was stored a row ago keeps no load waiting. Four vectors go through the first half of the chain, then
// through the second: one after another they would fill the schedulers with waiting instructions (C = 96 in L1, Zen 3: 0.40
// against 0.48 ns an element, affuse bench --filter '^lrn/B=1').
template <class P>
AFFUSE_INLINE void forward_rows(const Walk& walk, const Window& window, const P& power, int64_t rows, const float* x,
                                float* y, float* scratch) {
  const int64_t whole = walk.C / kLanes * kLanes;
  const int left = int(walk.C - whole);
  const Vec k = set1(window.k), alpha = set1(window.alpha), most = set1(window.most);
  float *here = scratch + kLanes, *below = here + walk.row;  // zeros before and after them
  const auto square = [&](const float* from, float* to) {
    const auto one = [&](int64_t i, Vec a) AFFUSE_INLINE_BODY { store(to + i, a * a); };
    for (int64_t i = 0; i < whole; i += kLanes) one(i, load(from + i));
    if (left) one(whole, load(from + whole, left));
  };
  square(x, here);
  for (int64_t r = 0; r < rows; ++r, x += walk.C, y += walk.C) {
    const float* const next = r + 1 < rows ? x + walk.C : x;
    const auto scale = [&](int64_t i, Vec upcoming) AFFUSE_INLINE_BODY {
      store(below + i, upcoming * upcoming);
      return fma(alpha, min(most, sum_over(here + i, 1, 2, 2)), k);
    };
    int64_t i = 0;
    for (; i + 4 * kLanes <= whole; i += 4 * kLanes) {
      fetch_ahead(x + i, y + i);
      fetch_ahead(x + i + 16, y + i + 16);
      Vec d[4];
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) d[v] = scale(i + v * kLanes, load(next + i + v * kLanes));
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) store(y + i + v * kLanes, load(x + i + v * kLanes) * power.of(d[v]).power);
    }
    for (; i < whole; i += kLanes) store(y + i, load(x + i) * power.of(scale(i, load(next + i))).power);
    if (left) store(y + whole, load(x + whole, left) * power.of(scale(whole, load(next + whole, left))).power, left);
    float* const done = here;
    here = below, below = done;
  }
}
#endif

template <int together, class P>
AFFUSE_INLINE void backward_rows(const Walk& walk, const Window& window, const P& power, float factor, int64_t distance,
                                 const float* x, const float* dy, float* dx) {
  Vec a[together], a0[together], g0[together];
  Near s[together], t[together];
  for (int r = 0; r < together; ++r) {
    a[r] = get(x + r * distance, walk.lanes(0, kLanes)), a0[r] = g0[r] = zero();
    s[r] = {zero(), zero(), a[r] * a[r]}, t[r] = {zero(), zero(), zero()};
  }
  for (int64_t i = 0; i <= walk.count; ++i) {  // dx follows one vector behind: it needs the terms on both sides
#pragma GCC unroll 4
    for (int r = 0; r < together; ++r) {
      const int64_t at = r * distance + i * kLanes;
      fetch_ahead(x + at, dx + at);
      prefetch(dy + at + 1024);
      Vec g = zero(), term = zero(), next = zero();
      if (i < walk.count) {
        if (i + 1 < walk.count) next = get(x + at + kLanes, walk.lanes(i + 1, kLanes));
        s[r].step(next * next);
        const Powers q = power.of(window.scale(s[r].sum()));
        g = get(dy + at, walk.lanes(i, kLanes)) * q.power;
        term = a[r] * g * q.inverse;
      }
      t[r].step(term);
      if (i > 0) put(dx + at - kLanes, fnma(set1(factor) * a0[r], t[r].sum(), g0[r]), walk.lanes(i - 1, kLanes));
      a0[r] = a[r], g0[r] = g, a[r] = next;
    }
  }
}
#endif

// The usual window in planes: `wide` vectors of neighbouring positions go from channel to channel with the squares (and the
// backward's terms) of five channels in registers. n: lanes of the last vector.
template <class V>
struct Five {
  V a, b, c, d, e;
  AFFUSE_INLINE void step(V next) { a = b, b = c, c = d, d = e, e = next; }
  AFFUSE_INLINE V sum() const { return (a + e) + (b + d) + c; }  // in the order of sum_over
};
#if defined(AFFUSE_ISA_AVX512)
constexpr int kWideForward = 4, kWideBackward = 2;
#else
constexpr int kWideForward = 2, kWideBackward = 1;
#endif
constexpr int64_t kChannelsAhead = 16;

template <int wide>
struct Planes {
  int64_t C, plane;
  int n;
  int turn;  // which of four neighbouring pieces this is
  // Memory prefers a kilobyte at once to a line of every plane: the four pieces after these are asked for plane by plane, a
  // quarter of the planes with each of these.
  AFFUSE_INLINE void fetch(const float* p, int64_t c) const {
    if (wide == 1 || c < 0 || c % 4 != turn) return;
    for (int line = 0; line < wide * kLanes * 4; line += 16) prefetch_l2(p + c * plane + (4 - turn) * wide * kLanes + line);
  }
  AFFUSE_INLINE int lanes(int v) const { return v + 1 < wide ? kLanes : n; }
  // What the same positions of a later channel, or the next positions of the first ones, are read or written at.
  AFFUSE_INLINE int64_t ahead(int64_t c) const {
    c += kChannelsAhead;
    return c < C ? c * plane : (c - C < C ? c - C : 0) * plane + wide * kLanes;
  }
};

template <int wide, class P>
AFFUSE_INLINE void forward_planes(const Planes<wide>& m, const Window& window, const P& power, const float* x, float* y) {
  Five<Vec> s[wide];
  for (int v = 0; v < wide; ++v) s[v] = {zero(), zero(), zero(), zero(), zero()};
  for (int64_t c = -2; c < m.C; ++c) {
    const int64_t ahead = m.ahead(c);
    m.fetch(x, c), m.fetch(y, c);
#pragma GCC unroll 4
    for (int v = 0; v < wide; ++v) {
      const int n = m.lanes(v), at = v * kLanes;
      prefetch(x + ahead + at);
      prefetch_write(y + ahead + at);
      const Vec next = c + 2 < m.C ? get(x + (c + 2) * m.plane + at, n) : zero();
      s[v].step(next * next);
      if (c < 0) continue;
      put(y + c * m.plane + at, get(x + c * m.plane + at, n) * power.of(window.scale(s[v].sum())).power, n);
    }
  }
}

template <int wide, class P>
AFFUSE_INLINE void backward_planes(const Planes<wide>& m, const Window& window, const P& power, float factor, const float* x,
                                   const float* dy, float* dx) {
  Five<Vec> s[wide], t[wide];
  Vec g[wide][3];  // dy d^-beta of the channels c, c + 1 and c + 2
  for (int v = 0; v < wide; ++v) {
    s[v] = t[v] = {zero(), zero(), zero(), zero(), zero()};
    g[v][0] = g[v][1] = g[v][2] = zero();
  }
  for (int64_t c = -4; c < m.C; ++c) {
    const int64_t ahead = m.ahead(c);
#pragma GCC unroll 4
    for (int v = 0; v < wide; ++v) {
      const int n = m.lanes(v), at = v * kLanes;
      prefetch(x + ahead + at);
      prefetch(dy + ahead + at);
      prefetch_write(dx + ahead + at);
      const Vec next = c + 4 < m.C ? get(x + (c + 4) * m.plane + at, n) : zero();
      s[v].step(next * next);
      Vec later = zero(), term = zero();
      if (c >= -2 && c + 2 < m.C) {
        const Powers q = power.of(window.scale(s[v].sum()));
        later = get(dy + (c + 2) * m.plane + at, n) * q.power;
        term = get(x + (c + 2) * m.plane + at, n) * later * q.inverse;
      }
      t[v].step(term);
      g[v][0] = g[v][1], g[v][1] = g[v][2], g[v][2] = later;
      if (c < 0) continue;
      put(dx + c * m.plane + at, fnma(set1(factor) * get(x + c * m.plane + at, n), t[v].sum(), g[v][0]), n);
    }
  }
}

// Calls body(Planes<…>, offset) for pieces of `positions` neighbouring positions.
template <int most, class F>
AFFUSE_INLINE void each_piece(const Maps& m, int64_t offset, int positions, F&& body) {
  const int64_t plane = m.H * m.W;
  if (positions > (most - 1) * kLanes) {
    const int turn = int(offset % plane / (most * kLanes) % 4);
    return body(Planes<most>{m.C, plane, positions - (most - 1) * kLanes, turn}, 0);
  }
  for (int at = 0; at < positions; at += kLanes)
    body(Planes<1>{m.C, plane, positions - at < kLanes ? positions - at : kLanes, 0}, at);
}

// Calls body(offset, rows, positions, scratch) for every block of the maps that belongs to an item, and clears the rest
// of `out`. At most `block` rows, in planes positions of one row. area 0: scratch is not wanted.
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
    for (; w < to && w < own; w += block) {
      const int64_t left = (own < to ? own : to) - w;
      body(offset + w, 1, int(left < block ? left : block), scratch);
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

Window window_of(const LrnAttrs& a) {
  constexpr float kMost = 3.4e38f;  // below FLT_MAX by more than k may be
  return {a.before, a.after, float(a.k), float(a.alpha), a.alpha > 1 ? kMost / float(a.alpha) : kMost};
}

// The ways for the usual window.
bool in_rows([[maybe_unused]] const Maps& m, [[maybe_unused]] const LrnAttrs& a) {
#if defined(AFFUSE_LRN_ROWS)
  return m.last && a.n == 5;
#else
  return false;
#endif
}
bool in_planes(const Maps& m, const LrnAttrs& a) { return !m.last && a.n == 5; }

// What pieces() is to hand out: rows, or positions of a row.
constexpr int64_t kWholeTask = INT64_MAX;
int64_t block_of(const Maps& m, const LrnAttrs& a, int wide) {
  if (in_rows(m, a)) return kWholeTask;
  return m.last ? lrn_rows(m.C, a.n) : in_planes(m, a) ? wide * kLanes : kLanes;
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
  const Window window = window_of(a);
  const float* x = call.in[0].f32();
  float* y = call.out[0].f32();
  const int64_t area = in_rows(m, a) ? kRowScratch * walk.row : in_planes(m, a) ? 0 : lrn_scratch(m.C, a.n, m.last) / 3;
  with_power(a.beta, [&](auto power) {
    const auto body = [&](int64_t at, int64_t rows, int positions, float* scratch) {
#if defined(AFFUSE_LRN_ROWS)
      if (in_rows(m, a)) {
#if defined(AFFUSE_ISA_AVX512)
        const auto go = [&](auto together, int64_t r) AFFUSE_INLINE_BODY {
          forward_rows<together.rows>(walk, window, power, m.C, x + at + r * m.C, y + at + r * m.C);
        };
        return each_row(rows, go);
#else
        return forward_rows(walk, window, power, rows, x + at, y + at, scratch);
#endif
      }
#endif
      if (in_planes(m, a))
        return each_piece<kWideForward>(m, at, positions, [&](auto planes, int from) AFFUSE_INLINE_BODY {
          forward_planes(planes, window, power, x + at + from, y + at + from);
        });
      forward(walk, window, power, rows, positions, x + at, y + at, scratch);
    };
    pieces(call, m, call.in[1].i32(), y, area, block_of(m, a, kWideForward), body);
  });
}

void lrn_backward(const OpCall& call) {
  const Maps m = maps_of(call.in[0], call.attr[5].i);
  const LrnAttrs a = lrn_attrs(call.attr);
  const Walk walk = walk_of(m, a.n);
  const Window window = window_of(a);
  const float *x = call.in[0].f32(), *dy = call.in[2].f32();
  float* dx = call.out[0].f32();
  const int64_t area = in_rows(m, a) || in_planes(m, a) ? 0 : lrn_scratch(m.C, a.n, m.last) / 3;
  with_power(a.beta, [&](auto power) {
    const auto body = [&](int64_t at, int64_t rows, int positions, float* scratch) {
      const float factor = float(2 * a.alpha * a.beta);
#if defined(AFFUSE_LRN_ROWS)
      if (in_rows(m, a)) {
        const auto go = [&](auto together, int64_t r) AFFUSE_INLINE_BODY {
          const int64_t from = at + r * m.C;
          backward_rows<together.rows>(walk, window, power, factor, m.C, x + from, dy + from, dx + from);
        };
        return each_row(rows, go);
      }
#endif
      if (in_planes(m, a))
        return each_piece<kWideBackward>(m, at, positions, [&](auto planes, int from) AFFUSE_INLINE_BODY {
          backward_planes(planes, window, power, factor, x + at + from, dy + at + from, dx + at + from);
        });
      backward(walk, window, power, factor, rows, positions, x + at, dy + at, dx + at, scratch, area);
    };
    pieces(call, m, call.in[1].i32(), dx, area, block_of(m, a, kWideBackward), body);
  });
}

}  // namespace affuse::AFFUSE_ISA
