// DeviceMemory and the page-locked blocks (native/backend/memory.h, staging.h) on a system that watches them
// (fake_system.h, which memory.test.ts puts in driver.h's place). deaf, hasty: on one that keeps no order, which is seen.
#include "memory.h"

#include <random>

#include "staging.h"

using namespace affuse;
using namespace affuse::cuda;
namespace system_ = affuse::cuda::driver;

namespace {

constexpr size_t kKiB = 1024, kMiB = 1024 * kKiB;

void* take(DeviceMemory& memory, size_t bytes, Stream stream = 0, bool idle = false, const char* code = nullptr) {
  Status status;
  void* const block = memory.allocate(bytes, "a test", status, idle, stream);
  require(status.ok() ? !code && block : code && !block && !strcmp(status.code, code), code ? code : "memory");
  if (!block) return nullptr;
  system_::Block& known = system_::blocks.at(block);
  const uint64_t capture = system_::lines[stream].capture;
  require(known.graph == 0 || known.graph == capture, "what a graph uses is its own");
  if (capture) known.graph = capture;
  for (const system_::Use& use : known.uses)
    require(system_::over(use) ||
                (!idle && (use.stream == stream || system_::lines[stream].behind[size_t(use.stream)] >= use.work)),
            "nothing uses memory that is given out, or what is queued next waits for it");
  require(known.bytes >= bytes, "enough");
  return block;
}
using system_::use;
void finish(DeviceMemory& memory) {
  Status status;
  system_::wait(0, status);
  memory.all_idle();
}
void reset() {
  for (auto& line : system_::lines) line = {};
  for (auto& [block, known] : system_::blocks) free(block);
  system_::blocks.clear();
  system_::room = SIZE_MAX;
  system_::allocations = system_::frees = system_::events = 0;
}

void reuses_what_fits_and_no_more() {
  DeviceMemory memory;
  void* const block = take(memory, 1000);
  use(block, 0);
  memory.release(block, false, 0);
  require(take(memory, 513) == block, "the same class, on the same stream, without waiting");
  memory.release(block, false, 0);
  require(take(memory, 512) != block, "no larger block for less: none is ever split");
  require(take(memory, 1000, 0, true) != block, "no block as idle while work may use it");
  require(take(memory, 1000, 0, true) != block, "nor");
  finish(memory);
  require(take(memory, 1000, 0, true) == block, "an idle one when the queue is empty");
  void* const large = take(memory, 3 * kMiB);
  memory.release(large, true, 0);
  require(take(memory, 4 * kMiB) == large, "large ones come in units of 2 MB");
  memory.release(nullptr, true, 0);  // of nobody: nothing
}

void waits_for_other_streams() {
  DeviceMemory memory;
  void* block = take(memory, 512, 1);
  use(block, 1);
  memory.release(block, false, 1);
  require(take(memory, 512, 0, true) != block, "no block as idle while a foreign stream uses it");
  finish(memory);
  require(take(memory, 512, 0, true) != block, "nor when the own queue is empty");
  require(take(memory, 512, 2) == block && system_::lines[2].behind[1] == 1, "another stream waits for it");
  use(block, 2);
  memory.release(block, false, 2);
  require(take(memory, 512, 0) == block && system_::lines[0].behind[2] == 1, "and the own one");
  use(block, 0);
  memory.release(block, false, 0);
  require(take(memory, 512, 3) == block && system_::lines[3].behind[0] == 1, "a foreign one for the own");
  use(block, 3);
  memory.release(block, false, 3);
  Status status;
  system_::wait(3, status);
  require(take(memory, 512, 0, true) == block, "what a foreign stream is done with is idle");
  require(system_::events <= 2, "events are used again");
}

void gives_back_when_there_is_no_more() {
  DeviceMemory memory;
  system_::room = 4 * kMiB;
  void* const own = take(memory, 2 * kMiB);
  void* const other = take(memory, 1 * kMiB, 1);
  use(own, 0), use(other, 1);
  memory.release(own, false, 0), memory.release(other, false, 1);
  void* const large = take(memory, 4 * kMiB);  // the fake ends the test if a stream still used what is freed
  require(system_::frees == 2 && large, "what is unused is given back for another size");
  take(memory, 512, 0, false, "ERR_AFFUSE_DEVICE_MEMORY");
  memory.release(large, true, 0);
  take(memory, 5 * kMiB, 0, false, "ERR_AFFUSE_DEVICE_MEMORY");
  require(take(memory, 512) != nullptr, "a refusal leaves it usable");
  require(system_::events <= 2, "events are used again");
}

void keeps_what_graphs_use() {
  DeviceMemory memory;
  take(memory, 512);  // stays in use: of the class, but not to be had
  void* const warm = take(memory, 2048, 1);
  use(warm, 1);
  memory.release(warm, false, 1);
  system_::lines[1].capture = 7;
  take(memory, 512, 1, false, "ERR_AFFUSE_CAPTURE");
  require(take(memory, 2048, 1) == warm, "what an earlier call left, when it is done");
  memory.release(warm, false, 1);
  require(take(memory, 2048, 1) == warm, "again for the next call of the capture");
  take(memory, 2048, 1, false, "ERR_AFFUSE_CAPTURE");
  memory.release(warm, false, 1);
  system_::lines[2].capture = 7;
  take(memory, 2048, 2, false, "ERR_AFFUSE_CAPTURE");  // a branch of the capture runs beside
  system_::lines[2].capture = 0;
  system_::lines[1].capture = 8;
  take(memory, 2048, 1, false, "ERR_AFFUSE_CAPTURE");  // another graph
  system_::lines[1].capture = 0;
  require(take(memory, 2048, 1) != warm, "for nobody else");
  system_::room = 0;
  take(memory, 4 * kMiB, 0, false, "ERR_AFFUSE_DEVICE_MEMORY");  // gives back; not what the graph uses
  require(system_::blocks.count(warm) == 1, "what a graph uses is kept");
  require(system_::events <= 2, "events are used again");
}

// Anything in any order; the fake watches.
void anything(unsigned seed) {
  std::mt19937 random(seed);
  const auto below = [&](size_t n) { return size_t(random()) % n; };
  DeviceMemory memory;
  system_::room = 64 * kKiB;
  struct Held {
    void* block;
    Stream stream;
  };
  std::vector<Held> held;
  uint64_t graphs = 0;
  for (int step = 0; step < 4000; ++step) {
    const Stream stream = Stream(below(system_::kStreams));
    switch (below(8)) {
      case 0:
      case 1:
      case 2: {
        Status status;
        const bool capturing = system_::lines[stream].capture != 0, idle = !capturing && below(3) == 0;
        const size_t bytes = below(8) * 512 + 1;
        // A capture of another thread may be under way, which must not be disturbed by what has to be allocated here.
        const system_::Relaxed relaxed;
        void* const found = memory.allocate(bytes, "a test", status, idle, stream);
        if (!found) {
          require(!strcmp(status.code, capturing ? "ERR_AFFUSE_CAPTURE" : "ERR_AFFUSE_DEVICE_MEMORY"), "a coded error");
          break;
        }
        memory.release(found, idle, stream);
        void* const block = take(memory, bytes, stream, idle);
        use(block, stream);
        held.push_back({block, stream});
        break;
      }
      case 3:
      case 4:
        if (!held.empty()) {
          const size_t which = below(held.size());
          memory.release(held[which].block, false, held[which].stream);
          held.erase(held.begin() + ptrdiff_t(which));
        }
        break;
      case 5: {
        system_::Line& line = system_::lines[stream];
        if (line.queued > line.done) system_::run(stream, line.done + 1 + int64_t(below(size_t(line.queued - line.done))));
        break;
      }
      case 6: {
        const system_::Relaxed relaxed;
        finish(memory);
        break;
      }
      case 7:
        if (stream && below(4) == 0) system_::lines[stream].capture = system_::lines[stream].capture ? 0 : ++graphs;
        break;
    }
  }
}

void staging_names_the_hosts_memory() {
  Staging staging;
  char from[3000], to[3000];
  for (size_t i = 0; i < sizeof from; ++i) from[i] = char(i * 7);
  for (const size_t room : {size_t(0), size_t(100)}) {
    system_::locked_room = room;
    Status status;
    staging.feed(to, from, sizeof from, status);
    require(!status.ok() && !strcmp(status.code, "ERR_AFFUSE_MEMORY"), "page-locked memory is the host's");
  }
  system_::locked_room = SIZE_MAX;
  Status status;
  staging.feed(to, from, sizeof from, status);
  require(status.ok() && !memcmp(to, from, sizeof from), "and can be had later");
  staging.arrived(0, status);
}

void slots_are_kept_and_few() {
  Slots slots;
  const int before = system_::locked;
  void* const small = slots.make(100);
  memset(small, 1, 100);
  slots.end(small);
  require(slots.make(4000) == small, "a slot is kept for the next run");
  require(slots.make(100) != small, "and nobody else's while it is used");
  slots.end(small);
  require(!slots.make(33 * kMiB), "none so large");
  std::vector<void*> many;
  for (int i = 0; i < 20; ++i) many.push_back(slots.make(100));
  for (void* const slot : many) slots.end(slot);
  require(system_::locked - before <= 6, "few are kept");
  slots.end(nullptr);
  system_::locked_room = 0;
  require(!slots.make(8 * kMiB), "without memory none");
  system_::locked_room = SIZE_MAX;
}

}  // namespace

int main(int, char** arguments) {
  system_::deaf = arguments[1] && !strcmp(arguments[1], "deaf");
  system_::hasty = arguments[1] && !strcmp(arguments[1], "hasty");
  for (const auto test : {reuses_what_fits_and_no_more, waits_for_other_streams, gives_back_when_there_is_no_more,
                          keeps_what_graphs_use}) {
    test();
    reset();
  }
  for (unsigned seed = 0; seed < 50; ++seed) {
    anything(seed);
    reset();
  }
  staging_names_the_hosts_memory();
  slots_are_kept_and_few();
  puts("done");
}
