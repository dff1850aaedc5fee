// Switching stacks, and what the sanitizers have to be told about it. Included by emulator.cc only.
//
// AFFUSE_EMULATOR_ASAN, AFFUSE_EMULATOR_TSAN: the sanitizer that the kernels beside are compiled with.
#pragma once
#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#if defined(AFFUSE_EMULATOR_TSAN)
extern "C" {
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void* fiber);
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
void __tsan_acquire(void* address);
void __tsan_release(void* address);
}
#elif defined(AFFUSE_EMULATOR_ASAN)
extern "C" {
void __sanitizer_start_switch_fiber(void** fake_stack, const void* bottom, size_t size);
void __sanitizer_finish_switch_fiber(void* fake_stack, const void** bottom, size_t* size);
void __asan_unpoison_memory_region(const volatile void* address, size_t size);
}
#endif

#if defined(__x86_64__)
// Saves the callee-saved registers, stores the stack pointer at *from and continues on `to`.
extern "C" void affuse_switch_stack(void** from, void* to);
asm(R"(
.text
.globl affuse_switch_stack
.type affuse_switch_stack,@function
affuse_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp,(%rdi)
  movq %rsi,%rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size affuse_switch_stack,.-affuse_switch_stack
)");
#endif

namespace affuse::emulator {

struct Context {
#if defined(__x86_64__)
  void* sp = nullptr;
#else
  ucontext_t context;
#endif
};

struct Fiber {
  Context context;
  void (*entry)();
  const void* bottom;
  size_t size;
  void *fake, *race;  // AddressSanitizer's second stack; ThreadSanitizer's thread
};

// The scheduler's side. `race` orders: `spawner` makes threads and shared arrays and never learns what blocks did, so that
// blocks stay unordered; `reaper` frees them and knows.
struct Host {
  Context context;
  const void* bottom;
  size_t size;
  void *fake, *race, *spawner, *reaper;
};

inline void order_before([[maybe_unused]] void* what) {
#if defined(AFFUSE_EMULATOR_TSAN)
  __tsan_release(what);
#endif
}
inline void order_after([[maybe_unused]] void* what) {
#if defined(AFFUSE_EMULATOR_TSAN)
  __tsan_acquire(what);
#endif
}

// The fibers of one block. Blocks take two sets in turn: under ThreadSanitizer a fiber remembers what it has seen, and the
// block that runs next must not be ordered after this one. Making its threads anew each time would cost 0.6 ms apiece.
struct FiberSet {
  static constexpr size_t kStackBytes = 64 << 10;
  static constexpr uint64_t kUntouched = 0x6166667573652121u;  // at the end of every stack
  Fiber fibers[1024];
  char* stacks = nullptr;
  unsigned count = 0;

  bool overflowed(unsigned i) const { return *reinterpret_cast<const uint64_t*>(stacks + i * kStackBytes) != kUntouched; }
};

// Zeros, unknown to the sanitizers; null: none.
inline void* make_pages(size_t bytes) {
  void* const pages = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return pages == MAP_FAILED ? nullptr : pages;
}

inline bool make_fibers([[maybe_unused]] Host& host, FiberSet& set, unsigned count) {
  if (!set.stacks) {
    set.stacks = static_cast<char*>(make_pages(1024 * FiberSet::kStackBytes));
    if (!set.stacks) return false;
  }
  for (; set.count < count; ++set.count) {
    Fiber& fiber = set.fibers[set.count];
    fiber.bottom = set.stacks + set.count * FiberSet::kStackBytes;
    fiber.size = FiberSet::kStackBytes;
#if defined(AFFUSE_EMULATOR_TSAN)
    __tsan_switch_to_fiber(host.spawner, 1);
    fiber.race = __tsan_create_fiber(0);
    __tsan_switch_to_fiber(host.race, 1);
#endif
  }
  return true;
}

inline void begin_launch([[maybe_unused]] Host& host, [[maybe_unused]] void* start) {
  host.bottom = nullptr;
#if defined(AFFUSE_EMULATOR_TSAN)
  host.race = __tsan_get_current_fiber();
  if (!host.spawner) {  // for good: a thread costs ThreadSanitizer 0.6 ms to make
    host.spawner = __tsan_create_fiber(0);
    host.reaper = __tsan_create_fiber(0);
  }
  __tsan_release(start);
#endif
}
// Abandoned fibers leave their frames behind; AddressSanitizer has to forget them.
inline void end_launch([[maybe_unused]] Host& host, [[maybe_unused]] void* end, [[maybe_unused]] FiberSet (&sets)[2],
                       [[maybe_unused]] bool abandoned) {
#if defined(AFFUSE_EMULATOR_TSAN)
  __tsan_acquire(end);
#elif defined(AFFUSE_EMULATOR_ASAN)
  for (FiberSet& set : sets)
    if (abandoned && set.stacks) __asan_unpoison_memory_region(set.stacks, 1024 * FiberSet::kStackBytes);
#endif
}

// A heap block filled with NaN.
inline void* make_shared_array([[maybe_unused]] Host& host, size_t bytes) {
#if defined(AFFUSE_EMULATOR_TSAN)
  void* const me = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(host.spawner, 1);
#endif
  void* data = nullptr;
  if (posix_memalign(&data, 128, bytes ? bytes : 1)) data = nullptr;
  if (data) memset(data, 0xff, bytes);
#if defined(AFFUSE_EMULATOR_TSAN)
  __tsan_release(data);
  __tsan_switch_to_fiber(me, 1);
#endif
  return data;
}
inline void free_shared([[maybe_unused]] Host& host, [[maybe_unused]] void* end, void* data) {
#if defined(AFFUSE_EMULATOR_TSAN)
  __tsan_switch_to_fiber(host.reaper, 1);
  __tsan_acquire(end);
#endif
  free(data);
#if defined(AFFUSE_EMULATOR_TSAN)
  __tsan_switch_to_fiber(host.race, 1);
#endif
}

inline void start_switch([[maybe_unused]] void** fake, [[maybe_unused]] const void* bottom, [[maybe_unused]] size_t size,
                         [[maybe_unused]] void* race) {
#if defined(AFFUSE_EMULATOR_TSAN)
  __tsan_switch_to_fiber(race, 1);
#elif defined(AFFUSE_EMULATOR_ASAN)
  __sanitizer_start_switch_fiber(fake, bottom, size);
#endif
}
inline void finish_switch([[maybe_unused]] void* fake, [[maybe_unused]] const void** bottom, [[maybe_unused]] size_t* size) {
#if defined(AFFUSE_EMULATOR_ASAN)
  __sanitizer_finish_switch_fiber(fake, bottom, size);
#endif
}

inline void switch_context(Context& from, Context& to) {
#if defined(__x86_64__)
  affuse_switch_stack(&from.sp, to.sp);
#else
  swapcontext(&from.context, &to.context);
#endif
}

inline Host* host_of_first_entry;  // where a fresh fiber says that it has arrived
inline Fiber* fiber_of_first_entry;
inline void enter_fiber() {
  Host& host = *host_of_first_entry;
  // A launch's first thread is entered from the host's stack and learns where that is; later ones from other threads'.
  if (host.bottom) finish_switch(nullptr, nullptr, nullptr);
  else finish_switch(nullptr, &host.bottom, &host.size);
  fiber_of_first_entry->entry();
}

// The fiber will begin with entry() when it is switched to next.
inline void start_over(Fiber& fiber, void (*entry)()) {
  fiber.entry = entry;
  fiber.fake = nullptr;
  char* const stack = static_cast<char*>(const_cast<void*>(fiber.bottom));
  *reinterpret_cast<uint64_t*>(stack) = FiberSet::kUntouched;
#if defined(__x86_64__)
  auto** sp = reinterpret_cast<void**>(stack + fiber.size - 64);
  *--sp = nullptr;  // enter_fiber() sees the stack aligned as after a call
  *--sp = reinterpret_cast<void*>(&enter_fiber);
  for (int i = 0; i < 6; ++i) *--sp = nullptr;
  fiber.context.sp = sp;
#else
  getcontext(&fiber.context.context);
  fiber.context.context.uc_stack.ss_sp = stack;
  fiber.context.context.uc_stack.ss_size = fiber.size;
  fiber.context.context.uc_link = nullptr;
  makecontext(&fiber.context.context, &enter_fiber, 0);
#endif
}

inline void to_fiber(Host& host, Fiber& fiber) {
  host_of_first_entry = &host;
  fiber_of_first_entry = &fiber;
  start_switch(&host.fake, fiber.bottom, fiber.size, fiber.race);
  switch_context(host.context, fiber.context);
  finish_switch(host.fake, nullptr, nullptr);
}
inline void to_other(Host& host, Fiber& fiber, Fiber& next) {
  host_of_first_entry = &host;
  fiber_of_first_entry = &next;
  start_switch(&fiber.fake, next.bottom, next.size, next.race);
  switch_context(fiber.context, next.context);
  finish_switch(fiber.fake, nullptr, nullptr);
}
inline void to_host(Host& host, Fiber& fiber) {
  start_switch(&fiber.fake, host.bottom, host.size, host.race);
  switch_context(fiber.context, host.context);
  finish_switch(fiber.fake, nullptr, nullptr);
}

}  // namespace affuse::emulator
