// Fetching ahead for loops whose data comes from memory, for files compiled once per ISA level (cpu.cc).
//
// The hardware's prefetchers follow a stream within a page of 4 KB and begin anew on the next. A loop that reads x and writes y
// without asking ahead waits there, and arithmetic does not hide it. In cache the requests cost an instruction or two per vector.
#pragma once
#include "many.h"

namespace affuse::AFFUSE_ISA {

// In floats. The nearer the better for two streams in step; rows and planes, with work between the requests, want them earlier.
constexpr int64_t kStreamAhead = 160, kRowAhead = 640;

// Asks for n floats of memory that will be read, or written; any address is allowed.
AFFUSE_INLINE void ask_to_read(const float* p, int64_t n) {
  for (int64_t i = 0; i < n; i += 16) __builtin_prefetch(p + i, 0, 3);
}
AFFUSE_INLINE void ask_to_write(float* p, int64_t n) {
  for (int64_t i = 0; i < n; i += 16) __builtin_prefetch(p + i, 1, 3);
}

// Where the end of a row's last pass asks for more: the next row if rows fit the L1 cache, else its own rest.
AFFUSE_INLINE int64_t row_ahead(int64_t C) { return C <= 4096 ? C : kRowAhead; }

// for_many over a row's [0, count), asking meanwhile for as much of what will be read, next and next2 unless null, and written.
template <class F>
AFFUSE_INLINE void for_row(int64_t count, const float* next, const float* next2, float* written, F&& body) {
  for_many(count, [&](int64_t i, auto n) AFFUSE_INLINE_BODY {
    constexpr int64_t step = __is_same(decltype(n), WholeMany) ? kMany * kLanes : 0;
    ask_to_read(next + i, step);
    if (next2) ask_to_read(next2 + i, step);
    ask_to_write(written + i, step);
    body(i, n);
  });
}

// for_many over [0, count), whose order does not matter, at two places in turn, with x, and x2 unless null, asked for to be
// read and y to be written.
template <class F>
AFFUSE_INLINE void for_stream(int64_t count, const float* x, const float* x2, float* y, F&& body) {
  constexpr int64_t step = kMany * kLanes;
  const int64_t half = count / (2 * step) * step;
  const auto at = [&](int64_t i) AFFUSE_INLINE_BODY {
    ask_to_read(x + i + kStreamAhead, step);
    if (x2) ask_to_read(x2 + i + kStreamAhead, step);
    ask_to_write(y + i + kStreamAhead, step);
    body(i, WholeMany{});
  };
  for (int64_t i = 0; i < half; i += step) at(i), at(half + i);
  for_many(count - 2 * half, [&](int64_t i, auto n) AFFUSE_INLINE_BODY { body(2 * half + i, n); });
}

// y <- x, count floats that do not overlap.
AFFUSE_INLINE void copy_stream(int64_t count, const float* x, float* y) {
  for_stream(count, x, nullptr, y, [&](int64_t i, auto n) AFFUSE_INLINE_BODY { put(y + i, get(x + i, n), n); });
}

}  // namespace affuse::AFFUSE_ISA
