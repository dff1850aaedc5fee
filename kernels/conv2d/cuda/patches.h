// The patch matrix of a convolution on a device, read out of a channel-last map with its edge ("staged", conv2d.h): row m
// of the matrix is `runs` of neighbouring floats from the place of position m on.
#pragma once
#include "../../common/cuda/divide.h"
#include "../../gemm/cuda/scattered.h"
#include "../conv2d.h"

namespace affuse::cuda::conv {

using gemm::kDepth;
using gemm::kPad;
using gemm::kThreads;

// Positions of B maps of H x W in row-major order. Column w is its item's own if w step + reach <= widths[b] > 0.
struct Grid {
  int64_t count, H, W;
  const int32_t* widths;  // null: all are own
  int64_t step, reach;
  Divider area, width;
  struct Place {
    int64_t b, h, w;
    bool own;
  };
  AFFUSE_DEVICE Place place(int64_t m) const {
    const Parts item = area.split(m), row = width.split(item.rest);
    const bool own = !widths || (widths[item.quotient] > 0 && row.rest * step + reach <= widths[item.quotient]);
    return {item.quotient, row.quotient, row.rest, own};
  }
};
inline Grid grid_of(int64_t B, int64_t H, int64_t W, const int32_t* widths, int64_t step, int64_t reach) {
  const int64_t n = B * H * W;
  return {n, H, W, widths, step, reach, divider(H * W, n), divider(W, n)};
}

// Rows of floats at a grid's places of a channel-last map.
struct Rows {
  Grid grid;
  float* base;
  int64_t image, down, right;  // floats between items, rows and columns of the grid
  AFFUSE_DEVICE float* at(const Grid::Place& p) const { return base + p.b * image + p.h * down + p.w * right; }
  // Null: beyond the last, or not the item's own.
  AFFUSE_DEVICE const float* find(int64_t m) const {
    if (m >= grid.count) return nullptr;
    const Grid::Place p = grid.place(m);
    return p.own ? at(p) : nullptr;
  }
};

struct Patches {
  Rows rows;
  int64_t pitch, K;  // floats between runs; of a row
  Divider run;       // floats of a run
  bool wide;         // groups of four floats lie at multiples of 16 bytes and within a run
  AFFUSE_DEVICE int64_t offset(int64_t k) const {
    const Parts p = run.split(k);
    return p.quotient * pitch + p.rest;
  }
};
inline Patches patches_of(const Rows& rows, int64_t pitch, int64_t length, int64_t K) {
  const bool wide = length % 4 == 0 && pitch % 4 == 0 && rows.image % 4 == 0 && rows.down % 4 == 0 && rows.right % 4 == 0 &&
                    aligned(rows.base);
  return {rows, pitch, K, divider(length, K + 4), wide};
}

// Copies stages of which a line is a position, K along it.
template <int SIDE, int PITCH>
class PositionLines {
 public:
  static constexpr int kFloats = SIDE * PITCH;
  AFFUSE_DEVICE PositionLines(const Patches& p, int64_t first) : p_(p) {
#pragma unroll
    for (int i = 0; i < SIDE / 64; ++i) from_[i] = p.rows.find(first + int(threadIdx.x) / 4 + 64 * i);
  }
  AFFUSE_DEVICE void copy(float* stage, int64_t k) const {
    const int place = int(threadIdx.x) % 4 * 4;
    const int64_t left = p_.K - k - place;
    float* const to = stage + int(threadIdx.x) / 4 * PITCH + place;
    if (p_.wide) return copy_some<16>(to, k + place, left > 0);
#pragma unroll
    for (int e = 0; e < 4; ++e) copy_some<4>(to + e, k + place + e, e < left);
  }

 private:
  template <int BYTES>
  AFFUSE_DEVICE void copy_some(float* to, int64_t k, bool left) const {
    const int64_t offset = left ? p_.offset(k) : 0;
#pragma unroll
    for (int i = 0; i < SIDE / 64; ++i) {
      const bool there = left && from_[i];
      copy_async<BYTES>(to + 64 * i * PITCH, there ? from_[i] + offset : p_.rows.base, there ? BYTES : 0);
    }
  }
  const Patches& p_;
  const float* from_[SIDE / 64];
};

// Copies stages of which a line is an element of the patches' rows, positions along it.
template <int SIDE>
class PositionDepth {
 public:
  static constexpr int kFloats = kDepth * (SIDE + kPad);
  AFFUSE_DEVICE PositionDepth(const Patches& p, int64_t first) : p_(p), element_(first + place()) {
    if (p.wide && element_ < p.K) offset_ = p.offset(element_);
  }
  AFFUSE_DEVICE void copy(float* stage, int64_t m) const {
#pragma unroll
    for (int i = 0; i < kDepth * (SIDE / 4) / kThreads; ++i) {
      const int row = int(threadIdx.x) / (SIDE / 4) + i * (kThreads * 4 / SIDE);
      const float* const from = element_ < p_.K ? p_.rows.find(m + row) : nullptr;
      float* const to = stage + row * (SIDE + kPad) + place();
      if (p_.wide) {
        copy_async<16>(to, from ? from + offset_ : p_.rows.base, from ? 16 : 0);
        continue;
      }
#pragma unroll 1  // four offsets would stay in registers from stage to stage
      for (int e = 0; e < 4; ++e) {
        const bool there = from && element_ + e < p_.K;
        copy_async<4>(to + e, there ? from + p_.offset(element_ + e) : p_.rows.base, there ? 4 : 0);
      }
    }
  }

 private:
  static AFFUSE_DEVICE int place() { return int(threadIdx.x) % (SIDE / 4) * 4; }
  const Patches& p_;
  int64_t element_, offset_ = 0;  // where 16 bytes are copied at a time
};

}  // namespace affuse::cuda::conv
