// A CUDA device on the CPU, for kernels written against verbs.h: every thread of a block is a fiber, and one block runs
// after another. It is slow and exact about what hardware forgives or hides:
//
// - AFFUSE_EMULATOR_SEED (read at every launch; 0: in the order of their numbers) shuffles blocks and, at every turn,
//   threads; a kernel whose result depends on the order shows itself
// - a shared array is a heap block of exactly its size, filled with NaN, so that AddressSanitizer sees overruns and a value
//   that is read before it is written spoils the result
// - barriers and warp collectives that not everybody reaches, or that different threads reach at different places, end the
//   launch with the file and line of each group of threads
// - asynchronous copies arrive at the wait, not before; until then their destination is NaN
// - matrix products and loads follow the documented layout of fragments, lane by lane
// - under ThreadSanitizer (AFFUSE_EMULATOR_TSAN) fibers are threads that only barriers, warp barriers and the start
//   and end of a launch order: a missing barrier is a reported race, between blocks too. Shuffles order nothing.
// - AFFUSE_CUDA_LAUNCHES names a file that gets a line for every launch: the kernel's place in the library (hexadecimal),
//   blocks, how often threads waited, and bytes of shared memory
//
// One launch at a time in a process; launches of other threads wait.
#pragma once
#include <cstddef>
#include <cstdint>

namespace affuse::emulator {

struct Extent {
  unsigned x = 1, y = 1, z = 1;
};

struct Launch {
  const char* kernel;  // for messages
  Extent grid;
  unsigned threads;  // of a block, 1…1024
  size_t shared;     // bytes that the launch asks for; what the block takes may not be more
  const void* function = nullptr;  // the kernel
};

struct Stats {
  int64_t blocks = 0, switches = 0;
};

// Shared memory of a block, the least that a device has that kernels are built for (compute capability 8.6, 8.9, 12.0). What
// asks for more would fail there: it is refused before the launch (launch.h).
constexpr size_t kMostShared = 99 * 1024;

// Runs body(arg) as every thread of every block. False: `message` says what went wrong and where; what was written stays.
bool run(const Launch& launch, void (*body)(void*), void* arg, char* message, size_t message_bytes, Stats* stats = nullptr);

// ---- what verbs.h is made of; only inside a launch ----

Extent thread_index();
Extent block_index();
Extent block_extent();
Extent grid_extent();

// The block's next shared array in this thread's order of taking: all threads take the same arrays.
void* take_shared(size_t bytes, const char* file, int line);

void block_barrier(const char* file, int line);
void warp_barrier(unsigned mask, const char* file, int line);

// Everybody in the mask shows `bytes` (at most 64) and waits for the others; then shown() copies what a lane gave.
void exchange(unsigned mask, const void* value, size_t bytes, const char* file, int line);
void shown(unsigned lane, void* to, size_t bytes);

// One asynchronous copy of this thread; zero-filled from `valid` on. commit() closes a group; wait(n) delivers all but the n
// youngest groups.
void copy_later(void* to, const void* from, size_t bytes, size_t valid);
void commit();
struct Copy {
  void* to;
  const void* from;
  size_t bytes, valid;
};
// The next copy that this wait delivers, or false.
bool due(int groups_left, Copy* copy);

// Ends the launch with this message.
[[noreturn]] void fail(const char* file, int line, const char* format, ...) __attribute__((format(printf, 3, 4)));

}  // namespace affuse::emulator
