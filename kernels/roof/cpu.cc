// See roof.h for what each loop counts.
#include "kernels/gemm/gemm.h"
#include "roof.h"

namespace affuse::roof::AFFUSE_ISA {
using namespace affuse::AFFUSE_ISA;
namespace {

// Two ports times a latency of four (x86) or four times four (wide ARM cores) multiply-adds are in flight; the constants
// take two more registers. Without a fused instruction the product needs a register of its own.
#if defined(AFFUSE_ISA_AVX512) || defined(__AVX512F__) || defined(__aarch64__)
constexpr int kChains = 24;
#else
constexpr int kChains = 12;
#endif

// x after an instruction that does nothing but be issued, so that it stays between two steps of a chain.
AFFUSE_INLINE Vec after_empty(Vec x) {
#if defined(__aarch64__)
  __asm__ volatile("nop" : "+w"(x));
#elif defined(AFFUSE_ISA_AVX512) || defined(__AVX512F__)
  __asm__ volatile("nop" : "+v"(x));
#elif defined(__SSE2__)
  __asm__ volatile("nop" : "+x"(x));
#else
  __asm__ volatile("nop" : "+m"(x));
#endif
  return x;
}

template <bool WITH_EMPTY>
double fma_f32(int64_t repeats, float* sink) {
  // Every chain tends to a/(1-m) = 1: no overflow, no denormal, whatever the number of steps.
  const Vec m = set1(0.5f), a = set1(0.5f);
  Vec x[kChains];
  for (int i = 0; i < kChains; ++i) x[i] = set1(1.0f + 0.001f * float(i));
  for (int64_t r = 0; r < repeats; ++r) {
#pragma GCC unroll 24
    for (int i = 0; i < kChains; ++i) x[i] = WITH_EMPTY ? after_empty(fma(x[i], m, a)) : fma(x[i], m, a);
  }
  Vec total = x[0];
  for (int i = 1; i < kChains; ++i) total = total + x[i];
  *sink = sum(total);
  return double(repeats) * kChains * kLanes * 2;
}

// Part of the AVX-512 level's file, but for processors of the level after it only: the caller sees to that.
#if defined(AFFUSE_ISA_AVX512) && ((defined(__GNUC__) && __GNUC__ >= 10) || defined(__clang__))
__attribute__((target("avx512bf16"), noinline)) double fma_bf16(int64_t repeats, float* sink) {
  // Sums grow by 2·2⁻⁸ per step and are begun anew before float32 would stop counting.
  const __m512bh one = (__m512bh)_mm512_set1_epi16(0x3f80), small = (__m512bh)_mm512_set1_epi16(0x3b80);
  __m512 x[kChains];
  float kept = 0;
  for (int64_t r = 0; r < repeats;) {
    for (int i = 0; i < kChains; ++i) x[i] = _mm512_set1_ps(float(i));
    for (const int64_t end = r + 4096 < repeats ? r + 4096 : repeats; r < end; ++r) {
#pragma GCC unroll 24
      for (int i = 0; i < kChains; ++i) x[i] = _mm512_dpbf16_ps(x[i], one, small);
    }
    for (int i = 0; i < kChains; ++i) kept += _mm512_cvtss_f32(x[i]);
  }
  *sink = kept;
  return double(repeats) * kChains * 16 * 4;
}
#else
double fma_bf16(int64_t, float*) { return 0; }
#endif

constexpr int kStep = 8;  // vectors a turn

// Loads and forgets, without an instruction more.
AFFUSE_INLINE void touch(const float* p) {
#if defined(__aarch64__)
  __asm__ volatile("" : : "w"(load(p)));
#else
  __asm__ volatile("" : : "x"(load(p)));
#endif
}

// n: a power of two. The position wraps around instead of a second loop, whose end would be mispredicted every time.
double read(int64_t repeats, const float* x, int64_t n) {
  for (int64_t at = 0; at < repeats * n; at += kStep * kLanes) {
    const float* p = x + (at & (n - 1));
#pragma GCC unroll 8
    for (int i = 0; i < kStep; ++i) touch(p + i * kLanes);
  }
  return double(repeats) * double(n) * 4;
}

// What goes through DRAM works at four places at once, each fetched 1 KiB ahead: more of the memory's requests are under way
// than in one row of addresses, where the prefetcher stops at every page. Quicker by a tenth for every loop here.
constexpr int64_t kAhead = 256;

template <class F>
AFFUSE_INLINE void far_places(int64_t repeats, int64_t n, F&& body) {  // body(offset) for every kLanes of n floats
  constexpr int kPlaces = 4, kEach = 2;
  const int64_t part = n / kPlaces;
  for (int64_t r = 0; r < repeats; ++r) {
    for (int64_t at = 0; at < part; at += kEach * kLanes) {
#pragma GCC unroll 8
      for (int i = 0; i < kPlaces * kEach; ++i) body((i / kEach) * part + at + (i % kEach) * kLanes);
    }
  }
}

double read_places(int64_t repeats, const float* x, int64_t n) {
  far_places(repeats, n, [x](int64_t i) __attribute__((always_inline)) { touch(x + i); });
  return double(repeats) * double(n) * 4;
}

double read_far(int64_t repeats, const float* x, int64_t n) {
  far_places(repeats, n, [x](int64_t i) __attribute__((always_inline)) {
    touch(x + i);
    prefetch(x + i + kAhead);
  });
  return double(repeats) * double(n) * 4;
}

double multiply16(int64_t repeats, const float* x, int64_t n, float* sink) {
  constexpr int kRows = 16, kSums = 8;  // two rounds of eight sums: registers of every level hold them
  const Vec c = set1(0.5f);
  Vec sums[kSums];
  for (Vec& sum : sums) sum = zero();
  far_places(repeats, n, [x, c, &sums](int64_t i) __attribute__((always_inline)) {
    const Vec w = load(x + i);
    prefetch(x + i + kAhead);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) sums[r % kSums] = fma(w, c, sums[r % kSums]);
  });
  Vec total = zero();
  for (const Vec& sum : sums) total = total + sum;
  *sink = sum(total);
  return double(repeats) * double(n) * kRows * 2;
}

// Rows, then columns, in x.
double tile(int64_t repeats, const float* x, int64_t n) {
  using namespace affuse::AFFUSE_ISA::gemm;
  alignas(64) float sums[kTileRows * kTileStride] = {};
  const int64_t depth = n / (16 + kTileStride);
  for (int64_t r = 0; r < repeats; ++r)
    tile_multiply(kTileRows, kTileVecs, depth, x, x + 16 * depth, sums, true);
  return double(repeats) * kTileRows * kTileStride * double(depth) * 2;
}

AFFUSE_INLINE void store_past(float* p, Vec v) {
#if defined(AFFUSE_ISA_AVX512) || defined(__AVX512F__)
  _mm512_stream_ps(p, v);
#elif defined(AFFUSE_ISA_AVX2)
  _mm256_stream_ps(p, v);
#elif defined(__SSE2__)
  _mm_stream_ps(p, v);
#else
  store(p, v);
#endif
}

double copy(int64_t repeats, const float* x, float* y, int64_t n) {
  far_places(repeats, n, [x, y](int64_t i) __attribute__((always_inline)) {
    store(y + i, load(x + i));
    prefetch(x + i + kAhead);
    prefetch(y + i + kAhead);
  });
  return double(repeats) * double(n) * 8;
}

double copy_nt(int64_t repeats, const float* x, float* y, int64_t n) {
  far_places(repeats, n, [x, y](int64_t i) __attribute__((always_inline)) {
    store_past(y + i, load(x + i));
    prefetch(x + i + kAhead);
  });
#if defined(__SSE2__)
  _mm_sfence();
#endif
  return double(repeats) * double(n) * 8;
}

double update(int64_t repeats, const float* x, float* y, int64_t n) {
  const Vec c = set1(0.001f);
  far_places(repeats, n, [x, y, c](int64_t i) __attribute__((always_inline)) {
    store(y + i, fma(c, load(x + i), load(y + i)));
    prefetch(x + i + kAhead);
    prefetch(y + i + kAhead);
  });
  return double(repeats) * double(n) * 12;
}

}  // namespace

void roof_loop(const OpCall& call) {
  const int64_t repeats = call.attr[1].i, n = call.in[0].count();
  const float* x = call.in[0].f32();
  float* y = call.out[0].f32();
  double& done = *call.out[1].f64();
  switch (Loop(call.attr[0].i)) {
    case Loop::fma_f32: done = fma_f32<false>(repeats, y); break;
    case Loop::fma_bf16: done = fma_bf16(repeats, y); break;
    case Loop::read: done = read(repeats, x, n); break;
    case Loop::read_places: done = read_places(repeats, x, n); break;
    case Loop::read_far: done = read_far(repeats, x, n); break;
    case Loop::copy: done = copy(repeats, x, y, n); break;
    case Loop::copy_nt: done = copy_nt(repeats, x, y, n); break;
    case Loop::update: done = update(repeats, x, y, n); break;
    case Loop::tile: done = tile(repeats, x, n); break;
    case Loop::multiply16: done = multiply16(repeats, x, n, y); break;
    case Loop::issue: done = fma_f32<true>(repeats, y); break;
  }
}

}  // namespace affuse::roof::AFFUSE_ISA
