// Kernels with one fault each, and the same without it: what the emulator and the sanitizers have to find. The argument
// is the name of a control; prints "ok", the code and message of the launch, and whether the result is what it should be.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <vector>

#include "kernels/common/cuda/launch.h"

using namespace affuse;
using namespace affuse::cuda;

namespace {

// The sum of a row: warps leave their parts in shared memory, the first warp adds them up.
template <bool kFaulty>
AFFUSE_GLOBAL(128, 1) missing_barrier(const float* x, float* y) {
  Shared shared;
  float* const parts = shared.take<float>(4);
  float sum = x[blockIdx.x * 128 + threadIdx.x];
  for (unsigned m = 16; m; m /= 2) sum += shuffle_xor(sum, m);
  if (lane() == 0) parts[warp()] = sum;
  if (!kFaulty) barrier();
  if (threadIdx.x == 0) y[blockIdx.x] = parts[0] + parts[1] + parts[2] + parts[3];
}

template <bool kFaulty>
AFFUSE_GLOBAL(64, 1) divergent_barrier(float* y) {
  if (!kFaulty || threadIdx.x < 32) barrier();
  y[threadIdx.x] = 1;
}

template <bool kFaulty>
AFFUSE_GLOBAL(64, 1) barriers_apart(float* y) {
  if (kFaulty && threadIdx.x < 32)
    barrier();
  else
    barrier();
  y[threadIdx.x] = 1;
}

// Half of a warp leaves before a collective of the whole warp.
template <bool kFaulty>
AFFUSE_GLOBAL(32, 1) collective_without_all(float* y) {
  if (kFaulty && threadIdx.x >= 16) return;
  y[threadIdx.x] = shuffle_xor(1.0f, 1);
}

// Half of a warp waits for the block, the other half for the warp: neither will come.
template <bool kFaulty>
AFFUSE_GLOBAL(32, 1) deadlock(float* y) {
  float v = 1;
  if (kFaulty && threadIdx.x < 16) barrier();
  else v = shuffle_xor(v, 1);
  y[threadIdx.x] = v;
}

// Verbs always take the whole warp; the emulator's own collectives have masks, and a lane has to be in the one that it names.
template <bool kFaulty>
AFFUSE_GLOBAL(32, 1) partial_mask(float* y) {
  const unsigned own = threadIdx.x < 16 ? 0x0000ffffu : 0xffff0000u;
  emulator::warp_barrier(kFaulty ? 0x0000ffffu : own, __FILE__, __LINE__);
  y[threadIdx.x] = 1;
}
// The halves of a warp meet, each for itself, with masks that do not agree.
template <bool kFaulty>
AFFUSE_GLOBAL(32, 1) masks_apart(float* y) {
  const unsigned own = threadIdx.x < 16 ? 0x0000ffffu : 0xffff0000u;
  emulator::warp_barrier(kFaulty && threadIdx.x >= 16 ? ~0u : own, __FILE__, __LINE__);
  y[threadIdx.x] = 1;
}

template <bool kFaulty>
AFFUSE_GLOBAL(64, 1) shared_overrun(float* y) {
  Shared shared;
  float* const a = shared.take<float>(64);
  a[threadIdx.x] = 1;
  barrier();
  y[threadIdx.x] = a[kFaulty ? threadIdx.x + 1 : threadIdx.x];
}

template <bool kFaulty>
AFFUSE_GLOBAL(64, 1) global_overrun(float* y, unsigned n) {
  if (kFaulty || threadIdx.x < n) y[threadIdx.x] = 1;
}

// A shuffle keeps a warp in step but orders no memory.
template <bool kFaulty>
AFFUSE_GLOBAL(32, 1) shuffle_as_fence(float* y) {
  Shared shared;
  float* const a = shared.take<float>(32);
  a[threadIdx.x] = 1;
  const float zero = shuffle_xor(0.0f, 1);
  if (!kFaulty) warp_barrier();
  y[threadIdx.x] = a[threadIdx.x ^ 1] + zero;
}

template <bool kFaulty>
AFFUSE_GLOBAL(32, 1) missing_wait(const float* x, float* y) {
  Shared shared;
  float* const a = shared.take<float>(128);
  copy_async<16>(a + 4 * threadIdx.x, x + 4 * threadIdx.x);
  commit();
  if (!kFaulty) wait<0>();
  barrier();
  y[threadIdx.x] = a[127 - threadIdx.x];
}

// The wait is each thread's own: without a barrier after it the others' copies may be missing.
template <bool kFaulty>
AFFUSE_GLOBAL(32, 1) wait_without_barrier(const float* x, float* y) {
  Shared shared;
  float* const a = shared.take<float>(128);
  copy_async<16>(a + 4 * threadIdx.x, x + 4 * threadIdx.x);
  commit();
  wait<0>();
  if (!kFaulty) barrier();
  y[threadIdx.x] = a[127 - threadIdx.x];
}

template <bool kFaulty>
AFFUSE_GLOBAL(32, 1) misaligned(const float* x, float* y) {
  const float4 v = load4(x + (kFaulty ? 1 : 0));
  y[threadIdx.x] = v.x;
}

template <bool kFaulty>
AFFUSE_GLOBAL(32, 1) misaligned_load2(const float* x, float* y) {
  y[threadIdx.x] = load2(x + (kFaulty ? 1 : 0)).y;
}
template <bool kFaulty>
AFFUSE_GLOBAL(1, 1) misaligned_store4(float* y) {
  store4(y + (kFaulty ? 2 : 0), make_float4(1, 1, 1, 1));
}
template <bool kFaulty>
AFFUSE_GLOBAL(32, 1) misaligned_copy(const float* x, float* y) {
  Shared shared;
  float* const a = shared.take<float>(128);
  copy_async<16>(a + 4 * threadIdx.x, x + 4 * threadIdx.x + (kFaulty ? 3 : 0));
  commit();
  wait<0>();
  y[threadIdx.x] = a[4 * threadIdx.x];
}
template <bool kFaulty>
AFFUSE_GLOBAL(32, 1) misaligned_load_matrix(float* y) {
  Shared shared;
  uint16_t* const rows = shared.take<uint16_t>(32 * 8 + 8);
  for (int i = int(lane()); i < 32 * 8 + 8; i += 32) rows[i] = 1;
  warp_barrier();
  uint32_t r[4];
  load_matrix(r, rows + lane() * 8 + (kFaulty ? 4 : 0));
  y[threadIdx.x] = float(r[3] >> 16);
}

// All threads of all blocks add 1 to the same number.
template <bool kFaulty>
AFFUSE_GLOBAL(32, 1) added_by_all(int* sum) {
  if (kFaulty) *sum += 1;
  else atomic_add(sum, 1);
}

template <bool kFaulty>
AFFUSE_GLOBAL(32, 1) blocks_share(float* y) {
  y[kFaulty ? threadIdx.x : blockIdx.x * 32 + threadIdx.x] = 1;
}

// A barrier is a block's own affair: it does not order what another block did before its own.
template <bool kFaulty>
AFFUSE_GLOBAL(32, 1) blocks_share_later(float* y) {
  float& mine = y[kFaulty ? threadIdx.x : blockIdx.x * 32 + threadIdx.x];
  if (blockIdx.x == 0) mine = 1;
  barrier();
  if (blockIdx.x == 1) mine = 1;
}

template <bool kFaulty>
AFFUSE_GLOBAL(32, 1) unwritten(float* y) {
  Shared shared;
  float* const a = shared.take<float>(32);
  if (!kFaulty || threadIdx.x > 0) a[threadIdx.x] = 1;
  barrier();
  y[threadIdx.x] = a[threadIdx.x];
}

template <bool kFaulty>
AFFUSE_GLOBAL(32, 1) more_than_asked(float* y) {
  Shared shared;
  float* const a = shared.take<float>(kFaulty ? 64 : 32);
  a[threadIdx.x] = 1;
  y[threadIdx.x] = a[threadIdx.x];
}

// One byte more than the least of the devices has, where it is launched.
template <bool kFaulty>
AFFUSE_GLOBAL(32, 1) more_than_a_device_has(float* y) {
  y[threadIdx.x] = 1;
}

// C = A B for small integers, every element different, both formats; A comes through load_matrix.
template <class Operand>
AFFUSE_GLOBAL(32, 1) product(const float* a, const float* b, float* c) {
  constexpr bool kPairs = Operand::kDepth == 16;
  constexpr int K = Operand::kDepth;
  uint32_t fa[4], fb[2];
  const int l = int(lane()), row = l / 4, part = l % 4;
  if constexpr (kPairs) {
    Shared shared;
    uint16_t* const rows = shared.take<uint16_t>(16 * 16);
    for (int i = l; i < 256; i += 32) rows[i] = uint16_t(to_bf16(a[i], 0));
    warp_barrier();
    load_matrix(fa, rows + (l % 8 + l / 8 % 2 * 8) * 16 + l / 16 * 8);
    for (int r = 0; r < 2; ++r) fb[r] = to_bf16(b[(2 * part + 8 * r) * 8 + row], b[(2 * part + 1 + 8 * r) * 8 + row]);
  } else {
    for (int r = 0; r < 4; ++r) fa[r] = to_tf32(a[(row + r % 2 * 8) * K + part + r / 2 * 4]);
    for (int r = 0; r < 2; ++r) fb[r] = to_tf32(b[(part + 4 * r) * 8 + row]);
  }
  float sums[4] = {};
  mma<Operand>(sums, fa, fb);
  for (int i = 0; i < 4; ++i) c[(row + i / 2 * 8) * 8 + 2 * part + i % 2] = sums[i];
}

Status status;
Queue queue;
std::vector<float> x(1024, 1.0f), y;
size_t results = 0;
float expected = 1;

template <class Operand>
void run_product() {
  constexpr int K = Operand::kDepth;
  std::vector<float> a(16 * K), b(K * 8), c(16 * 8, NAN);
  for (size_t i = 0; i < a.size(); ++i) a[i] = float(int(i * 7 % 23) - 11);
  for (size_t i = 0; i < b.size(); ++i) b[i] = float(int(i * 5 % 19) - 9);
  AFFUSE_LAUNCH(product<Operand>, queue, Grid{1}, 32, 512, a.data(), b.data(), c.data());
  y.assign(1, 1);
  results = 1;
  for (int i = 0; i < 16; ++i)
    for (int j = 0; j < 8; ++j) {
      float sum = 0;
      for (int k = 0; k < K; ++k) sum += a[size_t(i * K + k)] * b[size_t(k * 8 + j)];
      if (c[size_t(i * 8 + j)] != sum) y[0] = 0;
    }
}

#define CONTROL(name, blocks, threads, shared, count, ...)                                            \
  if (!strcmp(control, #name)) {                                                                      \
    y.assign(count, NAN);                                                                             \
    results = count;                                                                                  \
    if (faulty) AFFUSE_LAUNCH(name<true>, queue, Grid{blocks}, threads, shared, __VA_ARGS__);         \
    else AFFUSE_LAUNCH(name<false>, queue, Grid{blocks}, threads, shared, __VA_ARGS__);               \
    known = true;                                                                                     \
  }

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  const char* const control = argv[1];
  const bool faulty = !strcmp(argv[2], "faulty");
  bool known = false;
  queue.status = &status;
  if (!strcmp(control, "missing_barrier")) expected = 128;
  CONTROL(missing_barrier, 3, 128, 16, 3, x.data(), y.data())
  CONTROL(divergent_barrier, 1, 64, 0, 64, y.data())
  CONTROL(barriers_apart, 1, 64, 0, 64, y.data())
  CONTROL(collective_without_all, 1, 32, 0, 32, y.data())
  CONTROL(deadlock, 1, 32, 0, 32, y.data())
  CONTROL(partial_mask, 1, 32, 0, 32, y.data())
  CONTROL(masks_apart, 1, 32, 0, 32, y.data())
  CONTROL(shared_overrun, 1, 64, 256, 64, y.data())
  CONTROL(global_overrun, 1, 64, 0, 48, y.data(), 48u)
  CONTROL(shuffle_as_fence, 1, 32, 128, 32, y.data())
  CONTROL(missing_wait, 1, 32, 512, 32, x.data(), y.data())
  CONTROL(wait_without_barrier, 1, 32, 512, 32, x.data(), y.data())
  CONTROL(misaligned, 1, 32, 0, 32, x.data(), y.data())
  CONTROL(misaligned_load2, 1, 32, 0, 32, x.data(), y.data())
  CONTROL(misaligned_store4, 1, 1, 0, 4, y.data())
  CONTROL(misaligned_copy, 1, 32, 512, 32, x.data(), y.data())
  CONTROL(misaligned_load_matrix, 1, 32, 528, 32, y.data())
  int sum = 0;
  CONTROL(added_by_all, 3, 32, 0, 1, &sum)
  if (!strcmp(control, "added_by_all")) y[0] = float(sum), expected = 96;
  CONTROL(blocks_share, 2, 32, 0, faulty ? 32 : 64, y.data())
  CONTROL(blocks_share_later, 2, 32, 0, faulty ? 32 : 64, y.data())
  CONTROL(unwritten, 1, 32, 128, 32, y.data())
  CONTROL(more_than_asked, 1, 32, 128, 32, y.data())
  CONTROL(more_than_a_device_has, 1, 32, emulator::kMostShared + size_t(faulty), 32, y.data())
  if (!strcmp(control, "mma_bf16")) known = true, run_product<Bf16Pairs>();
  if (!strcmp(control, "mma_tf32")) known = true, run_product<Tf32>();
  if (!known) return 2;
  bool right = true;
  for (size_t i = 0; i < results; ++i) right &= y[i] == expected;
  printf("%s | %s | %s\n", status.ok() ? "ok" : status.code, right ? "right" : "wrong", status.message);
}
