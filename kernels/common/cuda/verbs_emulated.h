// verbs.h in the emulator. What touches memory of a kernel is inline here rather than in emulator.cc, so that the sanitizers
// see it.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "emulator.h"

#define AFFUSE_DEVICE inline
#define AFFUSE_GLOBAL(threads, blocks) static void

struct float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(16) uint4 { uint32_t x, y, z, w; };
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }

namespace affuse::cuda {

struct IndexPart {
  affuse::emulator::Extent (*of)();
  unsigned affuse::emulator::Extent::* part;
  operator unsigned() const { return of().*part; }
};
struct Index {
  IndexPart x, y, z;
  constexpr explicit Index(affuse::emulator::Extent (*of)())
      : x{of, &emulator::Extent::x}, y{of, &emulator::Extent::y}, z{of, &emulator::Extent::z} {}
};
inline const Index threadIdx{&emulator::thread_index}, blockIdx{&emulator::block_index};
inline const Index blockDim{&emulator::block_extent}, gridDim{&emulator::grid_extent};

// Where a verb is used, for messages: the last argument of a verb, never given.
struct Here {
  const char* file;
  int line;
  static Here at(const char* file = __builtin_FILE(), int line = __builtin_LINE()) { return {file, line}; }
};

inline unsigned lane() { return threadIdx.x % 32; }
inline unsigned warp() { return threadIdx.x / 32; }

class Shared {
 public:
  template <class T>
  T* take(unsigned n, Here here = Here::at()) {
    return static_cast<T*>(emulator::take_shared(n * sizeof(T), here.file, here.line));
  }
};

inline void barrier(Here here = Here::at()) { emulator::block_barrier(here.file, here.line); }
inline void warp_barrier(Here here = Here::at()) { emulator::warp_barrier(~0u, here.file, here.line); }

template <class T>
T shuffle(T v, unsigned from, Here here = Here::at()) {
  emulator::exchange(~0u, &v, sizeof v, here.file, here.line);
  T there;
  emulator::shown(from, &there, sizeof there);
  return there;
}
template <class T>
T shuffle_xor(T v, unsigned mask, Here here = Here::at()) { return shuffle(v, lane() ^ mask, here); }

inline void check_aligned(const void* p, size_t unit, const Here& here) {
  if (reinterpret_cast<uintptr_t>(p) % unit)
    emulator::fail(here.file, here.line, "an access of %zu bytes at an address that is no multiple of it", unit);
}
// One access, which costs a sanitizer less than four.
template <class T>
using Four __attribute__((vector_size(16), may_alias)) = T;
using One __attribute__((may_alias)) = uint32_t;
inline float2 load2(const float* p, Here here = Here::at()) {
  check_aligned(p, 8, here);
  return {p[0], p[1]};
}
inline float4 load4(const float* p, Here here = Here::at()) {
  check_aligned(p, 16, here);
  const auto v = *reinterpret_cast<const Four<float>*>(p);
  return {v[0], v[1], v[2], v[3]};
}
inline void store4(float* p, float4 v, Here here = Here::at()) {
  check_aligned(p, 16, here);
  *reinterpret_cast<Four<float>*>(p) = Four<float>{v.x, v.y, v.z, v.w};
}
inline uint4 load4(const uint32_t* p, Here here = Here::at()) {
  check_aligned(p, 16, here);
  const auto v = *reinterpret_cast<const Four<uint32_t>*>(p);
  return {v[0], v[1], v[2], v[3]};
}
inline void store4(uint32_t* p, uint4 v, Here here = Here::at()) {
  check_aligned(p, 16, here);
  *reinterpret_cast<Four<uint32_t>*>(p) = Four<uint32_t>{v.x, v.y, v.z, v.w};
}

// Until the wait the destination is NaN, whatever was there.
template <int N>
void copy_async(void* to, const void* from, int valid = N, Here here = Here::at()) {
  static_assert(N == 4 || N == 16);
  check_aligned(to, N, here);
  check_aligned(from, N, here);
  if (valid < 0 || valid > N) emulator::fail(here.file, here.line, "%d valid bytes of %d", valid, N);
  if constexpr (N == 16) *static_cast<Four<uint32_t>*>(to) = Four<uint32_t>{~0u, ~0u, ~0u, ~0u};
  else *static_cast<One*>(to) = ~0u;
  emulator::copy_later(to, from, N, size_t(valid));
}
inline void commit() { emulator::commit(); }
template <int N>
void wait() {
  emulator::Copy copy;
  while (emulator::due(N, &copy)) {
    auto* to = static_cast<unsigned char*>(copy.to);
    const auto* from = static_cast<const unsigned char*>(copy.from);
    if (copy.valid == 16) {
      *reinterpret_cast<Four<uint32_t>*>(to) = *reinterpret_cast<const Four<uint32_t>*>(from);
    } else if (copy.bytes == 4 && copy.valid == 4) {
      *reinterpret_cast<One*>(to) = *reinterpret_cast<const One*>(from);
    } else {
      for (size_t i = 0; i < copy.bytes; ++i) to[i] = i < copy.valid ? from[i] : 0;
    }
  }
}

// Lane l gets from matrix m elements (row l/4, columns 2(l%4), 2(l%4)+1).
inline void load_matrix(uint32_t (&r)[4], const void* p, Here here = Here::at()) {
  check_aligned(p, 16, here);
  emulator::exchange(~0u, &p, sizeof p, here.file, here.line);
  const int l = int(lane());
  for (int m = 0; m < 4; ++m) {
    const uint16_t* row;
    emulator::shown(unsigned(m * 8 + l / 4), &row, sizeof row);
    r[m] = uint32_t(row[2 * (l % 4)]) | uint32_t(row[2 * (l % 4) + 1]) << 16;
  }
}

inline uint32_t bits_of(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  return bits;
}
inline float float_of(uint32_t bits) {
  float x;
  memcpy(&x, &bits, 4);
  return x;
}

struct Bf16Pairs {
  static constexpr int kDepth = 16;
  // A's element (row, k) lies in lane 4 (row % 8) + k % 8 / 2, register row / 8 + 2 (k / 8); B's (k, column) in lane
  // 4 column + k % 8 / 2, register k / 8; the half of the register is k % 2.
  static int lane_of(int k) { return k % 8 / 2; }
  static int register_of(int k) { return k / 8; }
  static float value(uint32_t bits, int k) { return float_of(k % 2 ? bits & 0xffff0000u : bits << 16); }
};
struct Tf32 {  // the same with 4 for 8 and whole registers
  static constexpr int kDepth = 8;
  static int lane_of(int k) { return k % 4; }
  static int register_of(int k) { return k / 4; }
  static float value(uint32_t bits, int) { return float_of(bits & 0xffffe000u); }  // the unit reads no more of it
};

// Lane l holds C's (row l/4 + 8 (i/2), column 2 (l%4) + i%2) in c[i]. Registers only: nothing for a sanitizer to see.
template <class Operand>
__attribute__((no_sanitize("thread", "address"))) void mma(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Here here = Here::at()) {
  struct Fragments {
    uint32_t a[4], b[2];
  } own, rows[4], columns[2][4];
  for (int i = 0; i < 4; ++i) own.a[i] = a[i];
  for (int i = 0; i < 2; ++i) own.b[i] = b[i];
  emulator::exchange(~0u, &own, sizeof own, here.file, here.line);
  const unsigned l = lane();
  for (unsigned part = 0; part < 4; ++part) {
    emulator::shown(l / 4 * 4 + part, &rows[part], sizeof own);
    for (unsigned j = 0; j < 2; ++j) emulator::shown((2 * (l % 4) + j) * 4 + part, &columns[j][part], sizeof own);
  }
  for (int i = 0; i < 4; ++i) {
    float sum = 0;
    for (int k = 0; k < Operand::kDepth; ++k)
      sum += Operand::value(rows[Operand::lane_of(k)].a[i / 2 + 2 * Operand::register_of(k)], k) *
             Operand::value(columns[i % 2][Operand::lane_of(k)].b[Operand::register_of(k)], k);
    c[i] += sum;
  }
}

template <class T>
T atomic_add(T* p, T v, Here here = Here::at()) {
  static_assert(T(1) / T(2) == T(0), "of integers");
  check_aligned(p, sizeof v, here);
  return __atomic_fetch_add(p, v, __ATOMIC_RELAXED);
}

inline uint32_t to_bf16(float low, float high) {
  const auto round = [](float x) {
    const uint32_t bits = bits_of(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fffu;  // NaN: the instruction's canonical one
    return (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
  };
  return round(low) | round(high) << 16;
}
inline uint32_t to_tf32(float x) {
  const uint32_t bits = bits_of(x);
  if ((bits & 0x7f800000u) == 0x7f800000u) return bits;
  return (bits + 0x1000u) & 0xffffe000u;
}
inline uint32_t multiply_high(uint32_t a, uint32_t b) { return uint32_t(uint64_t(a) * b >> 32); }

}  // namespace affuse::cuda

// As nvcc has them without a namespace.
using affuse::cuda::blockDim;
using affuse::cuda::blockIdx;
using affuse::cuda::gridDim;
using affuse::cuda::threadIdx;
