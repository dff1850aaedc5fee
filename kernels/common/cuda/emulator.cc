// See emulator.h. Compiled without sanitizers even where kernels have them: it is what they must not see.
#include "emulator.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>

#include "emulator_fiber.h"

namespace affuse::emulator {
namespace {

constexpr unsigned kMostThreads = 1024;
constexpr int kMostArrays = 64, kMostCopies = 512;
constexpr size_t kShown = 64;

enum class State : uint8_t { ready, at_block_barrier, at_warp_barrier, at_exchange, done };

struct Where {
  const char* file;
  int line;
};

struct Thread {
  State state;
  unsigned mask;
  Where where;
  int arrays;           // taken so far
  int first, end;       // its outstanding copies in the ring
  uint32_t group;       // groups closed so far
};

struct Pending {
  Copy copy;
  uint32_t group;
};

struct Warp {
  alignas(16) unsigned char value[2][32][kShown];
  uint8_t phase[32];
  char order[2];  // their addresses stand for "the warp is in step", for every other block
};

struct Array {
  void* data;
  size_t bytes;
};

struct Machine {
  Launch launch;
  void (*body)(void*);
  void* arg;
  Extent block;
  Thread threads[kMostThreads];
  Warp warps[kMostThreads / 32];
  Array arrays[kMostArrays];
  int array_count;
  size_t taken;
  FiberSet* set;
  unsigned set_index;
  const uint32_t* order;  // of the threads in this turn
  unsigned current, turn;  // who runs, and his place in the order
  Host host;
  char* message;
  size_t message_bytes;
  bool failed;
  Stats stats;
  char start, step[2], end;  // addresses that stand for orderings
};

std::mutex one_launch;
// Kept between launches: sanitizers look at every byte that is allocated, and there are many small launches.
FiberSet fiber_sets[2];
Machine machine_of_process;
Pending* copies = nullptr;  // kMostCopies for each thread
uint32_t seed_of_process() {
  const char* text = getenv("AFFUSE_EMULATOR_SEED");
  return text ? uint32_t(strtoul(text, nullptr, 10)) : 0u;
}
Machine* machine = nullptr;

Thread& self() { return machine->threads[machine->current]; }
Fiber& own_fiber() { return machine->set->fibers[machine->current]; }
Warp& own_warp() { return machine->warps[machine->current / 32]; }
unsigned own_lane() { return machine->current % 32; }

// Not memcpy, which sanitizers watch: what lanes show each other is registers, not memory.
void copy_unseen(void* to, const void* from, size_t bytes) {
  struct __attribute__((packed, may_alias)) Word {
    uint32_t bits;
  };
  size_t i = 0;
  for (; i + 4 <= bytes; i += 4)
    static_cast<volatile Word*>(static_cast<void*>(static_cast<char*>(to) + i))->bits =
        static_cast<const volatile Word*>(static_cast<const void*>(static_cast<const char*>(from) + i))->bits;
  for (; i < bytes; ++i)
    static_cast<volatile unsigned char*>(to)[i] = static_cast<const volatile unsigned char*>(from)[i];
}

// The next thread of this turn that can run, or null.
Fiber* next_ready() {
  Machine& m = *machine;
  while (++m.turn < m.launch.threads) {
    const unsigned index = m.order[m.turn];
    if (m.threads[index].state != State::ready) continue;
    m.current = index;
    return &m.set->fibers[index];
  }
  return nullptr;
}

// The others' turn, at its end the scheduler's, until the state is `ready` again.
void pause(State state, unsigned mask, Where where) {
  Thread& me = self();
  Fiber& fiber = own_fiber();
  me.state = state;
  me.mask = mask;
  me.where = where;
  ++machine->stats.switches;
  if (Fiber* const next = next_ready()) to_other(machine->host, fiber, *next);
  else to_host(machine->host, fiber);
}

void entry() {
  order_after(&machine->start);
  machine->body(machine->arg);
  order_before(&machine->end);
  pause(State::done, 0, {"", 0});
  abort();  // nobody resumes a thread that is done
}

const char* name_of(State state) {
  switch (state) {
    case State::at_block_barrier: return "at a block barrier";
    case State::at_warp_barrier: return "at a warp barrier";
    case State::at_exchange: return "at a warp collective";
    case State::done: return "returned";
    default: return "running";
  }
}

bool together(const Thread& a, const Thread& b) {
  return a.state == b.state && a.where.line == b.where.line &&
         (a.where.file == b.where.file || !strcmp(a.where.file, b.where.file));
}

void say(const char* why) {
  Machine& m = *machine;
  m.failed = true;
  size_t used = size_t(snprintf(m.message, m.message_bytes, "%s, block (%u,%u,%u): %s", m.launch.kernel, m.block.x,
                                m.block.y, m.block.z, why));
  const unsigned n = m.launch.threads;
  for (unsigned i = 0, groups = 0; i < n && groups < 4 && used < m.message_bytes; ++groups) {
    unsigned j = i + 1;
    while (j < n && together(m.threads[i], m.threads[j])) ++j;
    const Thread& t = m.threads[i];
    used += size_t(snprintf(m.message + used, m.message_bytes - used, "; threads %u-%u %s", i, j - 1, name_of(t.state)));
    if (t.where.line && used < m.message_bytes)
      used += size_t(snprintf(m.message + used, m.message_bytes - used, " (%s:%d)", t.where.file, t.where.line));
    i = j;
  }
}

// A warp's collectives: everybody whom a waiting lane names has to wait at the same place with the same mask.
bool release_warp(unsigned first, unsigned count, State state) {
  Thread* lanes = machine->threads + first;
  bool released = false;
  for (unsigned i = 0; i < count; ++i) {
    if (lanes[i].state != state) continue;
    const unsigned mask = lanes[i].mask;
    bool all = true;
    for (unsigned j = 0; j < 32 && all; ++j) {
      if (!(mask >> j & 1)) continue;
      if (j >= count || lanes[j].state == State::done) {
        say("a warp collective names a lane that is not there any more");
        return false;
      }
      all = lanes[j].state == state && lanes[j].mask == mask;
      if (all && !together(lanes[i], lanes[j])) {
        say("lanes of one warp collective wait at different places");
        return false;
      }
    }
    if (!all) continue;
    for (unsigned j = 0; j < count; ++j)
      if (mask >> j & 1) lanes[j].state = State::ready;
    released = true;
  }
  return released;
}

// Lets through whoever has waited for the last one. False: nobody, or an error was found.
bool release() {
  Machine& m = *machine;
  const unsigned n = m.launch.threads;
  unsigned waiting = 0, done = 0;
  const Thread* at = nullptr;
  bool apart = false;
  for (unsigned i = 0; i < n; ++i) {
    const Thread& t = m.threads[i];
    done += t.state == State::done;
    if (t.state != State::at_block_barrier) continue;
    if (at && !together(*at, t)) apart = true;
    at = &t;
    ++waiting;
  }
  if (waiting && waiting + done == n) {
    if (done) return say("a block barrier that some threads never reach"), false;
    if (apart) return say("threads wait at different block barriers"), false;
    for (unsigned i = 0; i < n; ++i) m.threads[i].state = State::ready;
    return true;
  }
  bool released = false;
  for (unsigned w = 0; w < n && !m.failed; w += 32)
    for (const State state : {State::at_warp_barrier, State::at_exchange})
      if (!m.failed) released |= release_warp(w, std::min(32u, n - w), state);
  return released && !m.failed;
}

struct Shuffle {
  uint32_t state;
  uint32_t below(uint32_t n) {
    state = state * 1664525u + 1013904223u;
    return uint32_t(uint64_t(state) * n >> 32);
  }
  void operator()(uint32_t* list, uint32_t n) {
    for (uint32_t i = n - 1; i > 0 && n; --i) std::swap(list[i], list[below(i + 1)]);
  }
};

void run_block(uint32_t* order, Shuffle* shuffle) {
  Machine& m = *machine;
  const unsigned n = m.launch.threads;
  m.array_count = 0;
  m.taken = 0;
  for (unsigned i = 0; i < n; ++i) {
    m.threads[i] = Thread{};
    start_over(m.set->fibers[i], &entry);
    order[i] = i;
  }
  for (unsigned w = 0; w * 32 < n; ++w)
    for (uint8_t& phase : m.warps[w].phase) phase = 0;
  m.order = order;
  for (bool alive = true; alive && !m.failed;) {
    if (shuffle) (*shuffle)(order, n);
    m.turn = ~0u;
    Fiber* const first = next_ready();
    const bool ran = first != nullptr;
    if (first) to_fiber(m.host, *first);  // who hands over to the next
    alive = false;
    for (unsigned i = 0; i < n; ++i) alive |= m.threads[i].state != State::done;
    if (alive && !m.failed && !release() && !ran && !m.failed) say("deadlock");
  }
  for (int i = 0; i < m.array_count; ++i) free_shared(m.host, &m.end, m.arrays[i].data);
  for (unsigned i = 0; i < n && !m.failed; ++i)
    if (m.set->overflowed(i)) say("a thread needs more than its 64 KB of stack");
  ++m.stats.blocks;
}

// For the suite that has every kernel run under the sanitizers (test/cuda/sanitize.test.ts).
void note(const char* file, const Machine& m) {
  Dl_info library;
  if (!dladdr(m.launch.function, &library)) return;
  FILE* const out = fopen(file, "a");
  if (!out) return;
  const auto at = static_cast<const char*>(m.launch.function) - static_cast<const char*>(library.dli_fbase);
  fprintf(out, "%zx %lld %lld %zu\n", size_t(at), static_cast<long long>(m.stats.blocks),
          static_cast<long long>(m.stats.switches), m.launch.shared);
  fclose(out);
}

}  // namespace

bool run(const Launch& launch, void (*body)(void*), void* arg, char* message, size_t message_bytes, Stats* stats) {
  const std::lock_guard<std::mutex> lock(one_launch);
  const uint64_t blocks = uint64_t(launch.grid.x) * launch.grid.y * launch.grid.z;
  if (launch.threads < 1 || launch.threads > kMostThreads || blocks == 0 || blocks > 0x7fffffff || launch.grid.y > 65535 ||
      launch.grid.z > 65535) {
    snprintf(message, message_bytes,
             "%s: expected 1…1024 threads and a grid within its limits, got %u threads, grid (%u,%u,%u)", launch.kernel,
             launch.threads, launch.grid.x, launch.grid.y, launch.grid.z);
    return false;
  }
  auto* numbers = static_cast<uint32_t*>(malloc((blocks + launch.threads) * sizeof(uint32_t)));
  if (!copies) copies = static_cast<Pending*>(make_pages(kMostThreads * kMostCopies * sizeof(Pending)));
  if (!numbers || !copies) {
    free(numbers);
    snprintf(message, message_bytes, "%s: no memory to emulate it", launch.kernel);
    return false;
  }
  Machine* const m = machine = &machine_of_process;
  m->launch = launch;
  m->body = body;
  m->arg = arg;
  m->message = message;
  m->message_bytes = message_bytes;
  m->failed = false;
  m->stats = {};
  const uint32_t seed = seed_of_process();
  Shuffle shuffle{seed};
  uint32_t *order = numbers + blocks, count = uint32_t(blocks);
  for (uint32_t i = 0; i < count; ++i) numbers[i] = i;
  if (seed) shuffle(numbers, count);
  begin_launch(m->host, &m->start);
  for (uint32_t i = 0; i < count && !m->failed; ++i) {
    const uint32_t b = numbers[i];
    m->block = {b % launch.grid.x, b / launch.grid.x % launch.grid.y, b / launch.grid.x / launch.grid.y};
    m->set_index = i % 2;
    m->set = &fiber_sets[m->set_index];
    if (make_fibers(m->host, *m->set, launch.threads)) {
      run_block(order, seed ? &shuffle : nullptr);
    } else {
      snprintf(message, message_bytes, "%s: no memory for the stacks of its threads", launch.kernel);
      m->failed = true;
    }
  }
  end_launch(m->host, &m->end, fiber_sets, m->failed);
  if (stats) *stats = m->stats;
  if (const char* file = getenv("AFFUSE_CUDA_LAUNCHES")) note(file, *m);
  const bool fine = !m->failed;
  machine = nullptr;
  free(numbers);
  return fine;
}

Extent thread_index() { return {machine->current, 0, 0}; }
Extent block_index() { return machine->block; }
Extent block_extent() { return {machine->launch.threads, 1, 1}; }
Extent grid_extent() { return machine->launch.grid; }

void* take_shared(size_t bytes, const char* file, int line) {
  Machine& m = *machine;
  const int index = self().arrays++;
  if (index < m.array_count) {
    const Array& array = m.arrays[index];
    if (array.bytes != bytes)
      fail(file, line, "a shared array of %zu bytes where another thread took %zu", bytes, array.bytes);
    order_after(array.data);
    return array.data;
  }
  m.taken += (bytes + 15) / 16 * 16;
  if (m.taken > m.launch.shared)
    fail(file, line, "%zu bytes of shared memory, of which the launch asked for %zu", m.taken, m.launch.shared);
  if (index == kMostArrays) fail(file, line, "more than %d shared arrays", kMostArrays);
  void* data = make_shared_array(m.host, bytes);
  if (!data) fail(file, line, "no memory for a shared array of %zu bytes", bytes);
  m.arrays[m.array_count++] = {data, bytes};
  order_after(data);
  return data;
}

void block_barrier(const char* file, int line) {
  char* const order = &machine->step[machine->set_index];
  order_before(order);
  pause(State::at_block_barrier, 0, {file, line});
  order_after(order);
}

void warp_barrier(unsigned mask, const char* file, int line) {
  if (!(mask >> own_lane() & 1)) fail(file, line, "a warp barrier whose mask %08x leaves out the lane that calls it", mask);
  char* const order = &own_warp().order[machine->set_index];
  order_before(order);
  pause(State::at_warp_barrier, mask, {file, line});
  order_after(order);
}

void exchange(unsigned mask, const void* value, size_t bytes, const char* file, int line) {
  if (!(mask >> own_lane() & 1))
    fail(file, line, "a warp collective whose mask %08x leaves out the lane that calls it", mask);
  Warp& warp = own_warp();
  const unsigned lane = own_lane();
  // Two rooms in turn: a lane may be at the next exchange before its neighbour has read this one.
  copy_unseen(warp.value[warp.phase[lane]][lane], value, std::min(bytes, kShown));
  pause(State::at_exchange, mask, {file, line});
  warp.phase[lane] ^= 1;
}

void shown(unsigned lane, void* to, size_t bytes) {
  Warp& warp = own_warp();
  copy_unseen(to, warp.value[warp.phase[own_lane()] ^ 1][lane % 32], std::min(bytes, kShown));
}

void copy_later(void* to, const void* from, size_t bytes, size_t valid) {
  Thread& me = self();
  if (me.end - me.first == kMostCopies) fail("", 0, "more than %d outstanding copies of one thread", kMostCopies);
  copies[size_t(machine->current) * kMostCopies + size_t(me.end++ % kMostCopies)] = {{to, from, bytes, valid},
                                                                                              me.group};
}

void commit() { ++self().group; }

bool due(int groups_left, Copy* copy) {
  Thread& me = self();
  if (me.first == me.end) return false;
  const Pending& next = copies[size_t(machine->current) * kMostCopies + size_t(me.first % kMostCopies)];
  if (next.group + uint32_t(groups_left) >= me.group) return false;
  *copy = next.copy;
  ++me.first;
  return true;
}

void fail(const char* file, int line, const char* format, ...) {
  Machine& m = *machine;
  char why[300];
  va_list args;
  va_start(args, format);
  vsnprintf(why, sizeof why, format, args);
  va_end(args);
  if (!m.failed)
    snprintf(m.message, m.message_bytes, "%s, block (%u,%u,%u), thread %u: %s (%s:%d)", m.launch.kernel, m.block.x,
             m.block.y, m.block.z, m.current, why, file, line);
  m.failed = true;
  to_host(m.host, own_fiber());
  abort();
}

}  // namespace affuse::emulator
