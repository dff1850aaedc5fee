// The pool on a machine of four processors that is made up here: the system calls by which threads are placed are these. A
// helper whose task wants helpers of its own must not hand on the processors that it was left with.
#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include <cstdio>
#include <map>
#include <mutex>

#include "native/runtime/pool.h"

namespace {

std::mutex guard;
std::map<pthread_t, unsigned> sets;  // processors that a thread may use, a bit for each; by default all four
int changes = 0;
thread_local int here = 0;

unsigned set_of(pthread_t thread) {
  const auto found = sets.find(thread);
  return found == sets.end() ? 15 : found->second;
}

}  // namespace

extern "C" int sched_getcpu() noexcept { return here; }
extern "C" int sched_getaffinity(pid_t, size_t, cpu_set_t* set) noexcept {
  const std::lock_guard lock(guard);
  CPU_ZERO(set);
  for (int i = 0; i < 4; ++i)
    if (set_of(pthread_self()) >> i & 1) CPU_SET(i, set);
  return 0;
}
extern "C" int pthread_setaffinity_np(pthread_t thread, size_t, const cpu_set_t* set) noexcept {
  const std::lock_guard lock(guard);
  unsigned bits = 0;
  for (int i = 0; i < 4; ++i) bits |= unsigned(CPU_ISSET(i, set) != 0) << i;
  sets[thread] = bits;
  ++changes;
  return 0;
}

namespace {

// What the helpers may use, least first.
void print(const char* when) {
  const std::lock_guard lock(guard);
  std::map<unsigned, int> seen;
  for (const auto& [thread, bits] : sets) ++seen[bits];
  printf("%s:", when);
  for (const auto& [bits, threads] : seen) printf(" %d of %u", threads, bits);
  puts("");
}

// From such a processor, until helpers that sleep were placed.
void call(int processor) {
  const auto so_far = [] {
    const std::lock_guard lock(guard);
    return changes;
  };
  here = processor;
  const int before = so_far();
  for (int i = 0; i < 200 && so_far() == before; ++i) {
    usleep(10000);  // longer than helpers look for work
    affuse::Pool::instance().run(3, 3, [](void*, int64_t, int) { usleep(1000); }, nullptr);
  }
}

void call_from_a_helper() {
  std::atomic<bool> done{false};
  affuse::Pool::instance().run(
      2, 2,
      [](void* arg, int64_t, int worker) {
        auto& called = *static_cast<std::atomic<bool>*>(arg);
        if (worker == 1 && !called) call(1);
        if (worker == 1) called = true;
        while (!called) usleep(1000);
      },
      &done);
}

}  // namespace

int main() {
  call(0);
  print("called from processor 0");
  call_from_a_helper();
  print("by a helper, from processor 1");
  {
    const std::lock_guard lock(guard);
    sets[pthread_self()] = 3;
  }
  call(0);
  print("by a thread that may use 0 and 1, from processor 0");
  affuse::Pool::instance().stop();
}
