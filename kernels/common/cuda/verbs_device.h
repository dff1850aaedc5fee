// verbs.h on the device.
#pragma once
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#define AFFUSE_DEVICE __device__ __forceinline__
// AFFUSE_GLOBAL(threads, blocks) void name(…) { … }: a kernel of at most so many threads of which so many blocks share an
// SM of compute capability 8.0 or 9.0; elsewhere about as many, see shared_by().
#define AFFUSE_GLOBAL(threads, blocks) \
  static __global__ void __launch_bounds__(threads, affuse::cuda::shared_by(threads, blocks))

namespace affuse::cuda {

// How many blocks, of those that shall share an SM, do on this architecture. Those without the memory of a data centre hold
// 1536 threads rather than 2048. From 10.0 on the compiler holds more of a kernel's arguments in registers and would rather
// spill than not: of three blocks and more it has to leave room for half as many, and takes what it needs.
constexpr int shared_by(int threads, int blocks) {
#if defined(__CUDA_ARCH__)
  constexpr int arch = __CUDA_ARCH__;
  constexpr int most = arch > 800 && arch < 900 ? 1536 : arch >= 1200 ? 1536 : 2048;
  if (blocks * threads > most) blocks = most / threads;
  if (arch >= 1000 && blocks > 2) blocks = (blocks + 1) / 2;
#else
  (void)threads;
#endif
  return blocks > 0 ? blocks : 1;
}

AFFUSE_DEVICE unsigned lane() { return threadIdx.x % 32; }
AFFUSE_DEVICE unsigned warp() { return threadIdx.x / 32; }

extern __shared__ __align__(128) char affuse_shared[];

class Shared {
 public:
  template <class T>
  AFFUSE_DEVICE T* take(unsigned n) {
    T* const array = reinterpret_cast<T*>(affuse_shared + used_);
    used_ += (n * unsigned(sizeof(T)) + 15) / 16 * 16;
    return array;
  }

 private:
  unsigned used_ = 0;
};

AFFUSE_DEVICE void barrier() { __syncthreads(); }
AFFUSE_DEVICE void warp_barrier() { __syncwarp(); }

template <class T>
AFFUSE_DEVICE T shuffle_xor(T v, unsigned mask) { return __shfl_xor_sync(0xffffffffu, v, int(mask)); }
template <class T>
AFFUSE_DEVICE T shuffle(T v, unsigned from) { return __shfl_sync(0xffffffffu, v, int(from)); }

AFFUSE_DEVICE float2 load2(const float* p) { return *reinterpret_cast<const float2*>(p); }
AFFUSE_DEVICE float4 load4(const float* p) { return *reinterpret_cast<const float4*>(p); }
AFFUSE_DEVICE void store4(float* p, float4 v) { *reinterpret_cast<float4*>(p) = v; }
AFFUSE_DEVICE uint4 load4(const uint32_t* p) { return *reinterpret_cast<const uint4*>(p); }
AFFUSE_DEVICE void store4(uint32_t* p, uint4 v) { *reinterpret_cast<uint4*>(p) = v; }

AFFUSE_DEVICE uint32_t shared_address(const void* p) { return uint32_t(__cvta_generic_to_shared(p)); }

template <int N>
AFFUSE_DEVICE void copy_async(void* to, const void* from, int valid = N) {
  static_assert(N == 4 || N == 16);
  if constexpr (N == 16)  // past L1: a tile is read once by this block
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(valid)
                 : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(to)), "l"(from), "r"(valid) : "memory");
}
AFFUSE_DEVICE void commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N>
AFFUSE_DEVICE void wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

AFFUSE_DEVICE void load_matrix(uint32_t (&r)[4], const void* p) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(p))
               : "memory");
}

struct Bf16Pairs;  // tags of mma()
struct Tf32;

template <class Operand>
AFFUSE_DEVICE void mma(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  if constexpr (sizeof(Operand*) && __is_same(Operand, Bf16Pairs))
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  else
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

template <class T>
AFFUSE_DEVICE T atomic_add(T* p, T v) {
  static_assert(T(1) / T(2) == T(0), "of integers");
  return atomicAdd(p, v);
}

// Two floats as a pair of bf16, the first in the low half, to nearest even.
AFFUSE_DEVICE uint32_t to_bf16(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}
// To tf32, ties away from zero.
AFFUSE_DEVICE uint32_t to_tf32(float x) {
  uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
  return bits;
}
AFFUSE_DEVICE uint32_t bits_of(float x) { return __float_as_uint(x); }
AFFUSE_DEVICE float float_of(uint32_t bits) { return __uint_as_float(bits); }
AFFUSE_DEVICE uint32_t multiply_high(uint32_t a, uint32_t b) { return __umulhi(a, b); }

}  // namespace affuse::cuda
