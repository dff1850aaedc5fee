// The valid frames of all clips as one list on a device: entry first[b] + i is clip b's i-th valid frame. Kernels cut the
// list into tiles of kTile entries; a tile may hold the end of one clip and the beginnings of others. The part of clip b
// in tile t has the number t + b: along the list one of the two rises from part to part.
#pragma once
#include "../../common/cuda/launch.h"
#include "../../common/frames.h"
#include "../afg.h"

namespace affuse::cuda::afg {

constexpr int kTile = 32;

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Hands out 256-byte aligned pieces of a workspace; with base == nullptr it only measures.
struct Carver {
  char* base;
  size_t used = 0;
  template <class T>
  T* take(int64_t count) {
    T* const piece = base ? reinterpret_cast<T*>(base + used) : nullptr;
    used += (size_t(count) * sizeof(T) + 255) / 256 * 256;
    return piece;
  }
};

struct FrameList {
  Frames frames;
  int64_t* first;   // [B+1]
  int32_t* listed;  // [B,T] t of every valid frame; null without a mask: i is t
  int32_t* counts;  // [B] with a mask

  AFFUSE_DEVICE int64_t count() const { return first[frames.B]; }
  AFFUSE_DEVICE int64_t of(int64_t b) const { return first[b + 1] - first[b]; }
  AFFUSE_DEVICE bool valid(int64_t b, int64_t t) const {
    return (!frames.lengths || t < frames.lengths[b]) && (!frames.mask || frames.mask[b * frames.T + t] != 0);
  }
  AFFUSE_DEVICE int64_t clip(int64_t entry) const {
    int64_t b = 0, n = frames.B;  // first[b] <= entry < first[n]; clips without a frame are stepped over
    while (n - b > 1) {
      const int64_t half = b + (n - b) / 2;
      if (first[half] <= entry) b = half;
      else n = half;
    }
    return b;
  }
  AFFUSE_DEVICE int64_t frame(int64_t b, int64_t entry) const {
    const int64_t i = entry - first[b];
    return listed ? listed[b * frames.T + i] : i;
  }
};

inline FrameList frame_list(Carver& carver, const OpShape& s) {
  const AfgSize n = afg_size(s.in);
  FrameList list{};
  list.first = carver.take<int64_t>(n.B + 1);
  if (s.in[kAfgMask].given()) {
    list.listed = carver.take<int32_t>(n.B * n.T);
    list.counts = carver.take<int32_t>(n.B);
  }
  return list;
}

// What a block knows about its tile's rows, in shared memory.
struct Tile {
  int64_t* row;  // b T + t; rows beyond the list: row 0
  int32_t *clip, *end;  // the clip, and where its part ends within the tile
  int32_t* whole;       // the clip has no frame outside this tile
  int64_t first;        // entry
  int rows;

  static constexpr SharedBytes bytes() {
    return SharedBytes().take<int64_t>(kTile).take<int32_t>(kTile).take<int32_t>(kTile).take<int32_t>(kTile);
  }
  AFFUSE_DEVICE explicit Tile(Shared& shared)
      : row(shared.take<int64_t>(kTile)), clip(shared.take<int32_t>(kTile)), end(shared.take<int32_t>(kTile)),
        whole(shared.take<int32_t>(kTile)), first(0), rows(0) {}
  // False: the list ends before it. All threads call it, and a barrier comes before anything is read.
  AFFUSE_DEVICE bool fill(const FrameList& list, int64_t tile) {
    const int64_t count = list.count();
    first = tile * kTile;
    if (first >= count) return false;
    rows = int(count - first < kTile ? count - first : kTile);
    const int r = int(threadIdx.x);
    if (r < kTile) {
      const int64_t b = r < rows ? list.clip(first + r) : 0;
      row[r] = r < rows ? b * list.frames.T + list.frame(b, first + r) : 0;
      clip[r] = int32_t(b);
      const int64_t last = list.first[b + 1] - first;
      end[r] = int32_t(last < rows ? last : rows);
      whole[r] = r < rows && list.first[b] >= first && last <= rows;
    }
    return true;
  }
};

// Lane l: the sum of lanes 0…l.
AFFUSE_DEVICE int64_t warp_running_sum(int64_t v) {
#pragma unroll
  for (unsigned m = 1; m < 32; m *= 2) {
    const int64_t before = shuffle(v, (lane() + 32 - m) % 32);
    if (lane() >= m) v += before;
  }
  return v;
}

// A block lists the valid frames of a clip, each of its warps those of a stretch.
AFFUSE_GLOBAL(256, 4) list_masked(FrameList list) {
  Shared shared;
  int64_t* const counts = shared.take<int64_t>(8);
  const int64_t T = list.frames.T, stretch = (T + 7) / 8, begin = warp() * stretch;
  const int64_t end = begin + stretch < T ? begin + stretch : T;
  for (int64_t b = blockIdx.x; b < list.frames.B; b += gridDim.x) {
    int64_t own = 0;
    for (int64_t t = begin + lane(); t < end; t += 32) own += list.valid(b, t);
    own = shuffle(warp_running_sum(own), 31);
    if (lane() == 0) counts[warp()] = own;
    barrier();
    int64_t at = 0, all = 0;
    for (unsigned w = 0; w < 8; ++w) {
      if (w < warp()) at += counts[w];
      all += counts[w];
    }
    for (int64_t t0 = begin; t0 < end; t0 += 32) {
      const int64_t t = t0 + lane();
      const bool valid = t < end && list.valid(b, t);
      const int64_t sum = warp_running_sum(valid);
      if (valid) list.listed[b * T + at + sum - 1] = int32_t(t);
      at += shuffle(sum, 31);
    }
    if (threadIdx.x == 0) list.counts[b] = int32_t(all);
    barrier();
  }
}

// One block: first[] from the clips' numbers of frames.
AFFUSE_GLOBAL(256, 1) sum_counts(FrameList list) {
  Shared shared;
  int64_t* const sums = shared.take<int64_t>(8);
  const int64_t B = list.frames.B;
  int64_t before = 0;
  for (int64_t b0 = 0; b0 < B; b0 += 256) {
    const int64_t b = b0 + threadIdx.x;
    const int64_t own = b >= B                ? 0
                        : list.counts         ? list.counts[b]
                        : list.frames.lengths ? list.frames.lengths[b]
                                              : list.frames.T;
    const int64_t sum = warp_running_sum(own);
    if (lane() == 31) sums[warp()] = sum;
    barrier();
    int64_t at = before;
    for (unsigned w = 0; w < 8; ++w) {
      if (w < warp()) at += sums[w];
      before += sums[w];
    }
    if (b < B) list.first[b] = at + sum - own;
    barrier();
  }
  if (threadIdx.x == 0) list.first[B] = before;
}

inline void list_frames(Queue& queue, const FrameList& list) {
  const size_t bytes = SharedBytes().take<int64_t>(8).bytes;
  const int64_t B = list.frames.B, most = int64_t(queue.processors) * 8;
  if (list.listed) AFFUSE_LAUNCH(list_masked, queue, Grid{B < most ? B : most}, 256, bytes, list);
  AFFUSE_LAUNCH(sum_counts, queue, Grid{}, 256, bytes, list);
}

}  // namespace affuse::cuda::afg
