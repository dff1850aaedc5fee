// LRN of planes, channels first, with the usual window (n = 5). For cpu.cc.
#pragma once
#include "powers.h"
#include "window.h"

namespace affuse::AFFUSE_ISA {
namespace {

// The squares, or the backward's terms, of five channels in registers.
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

// `wide` vectors of neighbouring positions go from channel to channel together.
template <int wide>
struct Planes {
  int64_t C, plane;
  int n;     // lanes of the last vector
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
      put(y + c * m.plane + at, times(power, get(x + c * m.plane + at, n), window.scale(s[v].sum())), n);
    }
  }
}

template <int wide, class P>
AFFUSE_INLINE void backward_planes(const Planes<wide>& m, const Window& window, const P& power, const LrnFactor& factor,
                                   const float* x, const float* dy, float* dx) {
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
      Vec later = zero(), upcoming = zero();
      if (c >= -2 && c + 2 < m.C) {
        const Powers q = power.of(window.scale(s[v].sum()));
        later = get(dy + (c + 2) * m.plane + at, n) * q.power;
        upcoming = term(factor, q.inverse, get(x + (c + 2) * m.plane + at, n), later);
      }
      t[v].step(upcoming);
      g[v][0] = g[v][1], g[v][1] = g[v][2], g[v][2] = later;
      if (c < 0) continue;
      put(dx + c * m.plane + at, fnma(set1(factor.a) * get(x + c * m.plane + at, n), t[v].sum(), g[v][0]), n);
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

}  // namespace
}  // namespace affuse::AFFUSE_ISA
