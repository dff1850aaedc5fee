#include "../common/reduce.h"
#include "planes.h"
#include "rows.h"
#include "small_planes.h"
#include "small_rows.h"

namespace affuse::AFFUSE_ISA {
namespace {

AFFUSE_INLINE void clear(float* p, int64_t n) {
  for_lanes(n, [&](int64_t i, int k) { put(p + i, zero(), k); });
}

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
      const Vec d = window.scale(s + r * walk.row + i * kLanes, walk.next);
      put(y + at, times(power, get(x + at, n), d), n);
    }
}

template <class P>
AFFUSE_INLINE void backward(const Walk& walk, const Window& window, const P& power, const LrnFactor& factor, int64_t rows,
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
      store(t + in, term(factor, q.inverse, get(x + at, n), g));  // lanes without a channel: g = 0
    }
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t i = 0; i < walk.count; ++i) {
      const int n = walk.lanes(i, positions);
      const int64_t at = r * walk.C + i * walk.step, in = r * walk.row + i * kLanes;
      const Vec sum = sum_over(t + in, walk.next, window.after, window.before);
      prefetch(x + at + rows * walk.C);
      prefetch(dy + at + rows * walk.C);
      prefetch(dx + at + rows * walk.C);
      put(dx + at, fnma(set1(factor.a) * get(x + at, n), sum, load(u + in)), n);
    }
}

constexpr int64_t kTask = 16384, kLargeTask = 4 * kTask;  // floats

// Calls body(offset, rows, positions, scratch) for every block of the maps that belongs to an item, and clears the rest
// of `out`. At most `block` rows, in planes positions of one row. area 0: scratch is not wanted. large: whether
// tasks of large channel-last maps may be.
template <class F>
void pieces(const OpCall& call, const Maps& m, const int32_t* widths, float* out, int64_t area, int64_t block, bool large,
            F&& body) {
  float* const workspace = static_cast<float*>(call.workspace);
  if (m.last) {
    const int64_t rows = m.B * m.H * m.W;
    const int64_t floats = large && rows * m.C >= 32 * kLargeTask ? kLargeTask : kTask;
    const int64_t step = m.C >= floats ? 1 : floats / m.C;
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
int64_t block_of(const Maps& m, const LrnAttrs& a, int wide, bool in_groups) {
  if (in_rows(m, a)) return kWholeTask;
  if (in_groups) return kSmallPositions;
  return m.last ? lrn_rows(m.C, a.n) : in_planes(m, a) ? wide * kLanes : kLanes;
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
#if defined(AFFUSE_ISA_AVX2)
  const SmallForward small(window);
  // Rows with large sums are whole_rows()'s.
  const bool in_groups = a.n == 5 && (m.last ? m.C % kGroup == 0 && small.limit > 0 : true);
#else
  const bool in_groups = false;
#endif
  with_power(a.beta, [&](auto power) {
    const auto body = [&](int64_t at, int64_t rows, int positions, float* scratch) {
#if defined(AFFUSE_ISA_AVX2)
      if (in_groups) {
        const Forward groups(small, window, power);
        if (m.last) return small_rows(m.C, groups, rows, x + at, y + at);
        return small_planes(m.C, m.H * m.W, groups, positions, x + at, y + at);
      }
#else
      if (in_planes(m, a))
        return each_piece<kWideForward>(m, at, positions, [&](auto planes, int from) AFFUSE_INLINE_BODY {
          forward_planes(planes, window, power, x + at + from, y + at + from);
        });
#endif
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
      forward(walk, window, power, rows, positions, x + at, y + at, scratch);
    };
    pieces(call, m, call.in[1].i32(), y, area, block_of(m, a, kWideForward, in_groups), in_groups, body);
  });
}

void lrn_backward(const OpCall& call) {
  const Maps m = maps_of(call.in[0], call.attr[5].i);
  const LrnAttrs a = lrn_attrs(call.attr);
  const Walk walk = walk_of(m, a.n);
  const Window window = window_of(a);
  const float *x = call.in[0].f32(), *dy = call.in[2].f32();
  float* dx = call.out[0].f32();
  const LrnFactor factor = lrn_factor(a);
#if defined(AFFUSE_ISA_AVX2)
  const SmallBackward small(window, factor);
  const bool in_groups = a.n == 5 && (!m.last || m.C % kGroup == 0);
#else
  const bool in_groups = false;
#endif
  const int64_t area = in_groups && m.last ? walk.row : in_rows(m, a) || in_planes(m, a) ? 0 : lrn_scratch(m.C, a.n, m.last) / 3;
  with_power(a.beta, [&](auto power) {
    const auto body = [&](int64_t at, int64_t rows, int positions, float* scratch) {
#if defined(AFFUSE_ISA_AVX2)
      if (in_groups) {
        const Terms groups(small, window, factor, power);
        if (m.last) return small_rows_backward(m.C, groups, rows, x + at, dy + at, dx + at, scratch, walk.row);
        return small_planes_backward(m.C, m.H * m.W, groups, positions, x + at, dy + at, dx + at);
      }
#else
      if (in_planes(m, a))
        return each_piece<kWideBackward>(m, at, positions, [&](auto planes, int from) AFFUSE_INLINE_BODY {
          backward_planes(planes, window, power, factor, x + at + from, dy + at + from, dx + at + from);
        });
#endif
#if defined(AFFUSE_LRN_ROWS)
      if (in_rows(m, a)) {
        const auto go = [&](auto together, int64_t r) AFFUSE_INLINE_BODY {
          const int64_t from = at + r * m.C;
          backward_rows<together.rows>(walk, window, power, factor, m.C, x + from, dy + from, dx + from);
        };
        return each_row(rows, go);
      }
#endif
      backward(walk, window, power, factor, rows, positions, x + at, dy + at, dx + at, scratch, area);
    };
    pieces(call, m, call.in[1].i32(), dx, area, block_of(m, a, kWideBackward, in_groups), false, body);
  });
}

}  // namespace affuse::AFFUSE_ISA
