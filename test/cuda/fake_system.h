// driver.h for memory.cc: streams that do nothing until they are waited for, and memory that knows which of their work uses
// it. What is given out or freed too early ends the test.
#pragma once
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <vector>

#include "kernels/common/op.h"

inline void require(bool condition, const char* what) {
  if (condition) return;
  fprintf(stderr, "expected: %s\n", what);
  exit(1);
}

namespace affuse::cuda {

using Stream = int;  // 0: the device's own

namespace driver {

constexpr int kStreams = 4;
using Clock = std::array<int64_t, kStreams>;  // how much work of each stream
// How much work was given to a stream, and how much of it is done.
struct Line {
  int64_t queued = 0, done = 0;
  Clock behind{};             // work of others that its next work comes after
  std::vector<Clock> before;  // likewise, of the work that was given to it
  uint64_t capture = 0;       // it is captured into this graph; nothing runs
};
inline Line lines[kStreams];
struct Use {
  Stream stream;
  int64_t work;
  Clock behind{};
};
struct Block {
  size_t bytes;
  std::vector<Use> uses;
  uint64_t graph = 0;  // whose it is
};
inline std::map<void*, Block> blocks;
inline size_t room = SIZE_MAX, locked_room = SIZE_MAX;
inline bool deaf = false, hasty = false;  // streams that wait for nothing; events that say that they have passed
inline int allocations = 0, frees = 0, relaxed = 0, events = 0;

inline bool over(const Use& use) { return lines[use.stream].done >= use.work; }
inline void run(Stream stream, int64_t until) {
  Line& line = lines[stream];
  while (line.done < until) {
    const Clock before = line.before[size_t(line.done++)];
    for (int other = 0; other < kStreams; ++other) run(other, before[size_t(other)]);
  }
}
// Work that uses the block.
inline void use(void* memory, Stream stream) {
  Line& line = lines[stream];
  if (line.capture) return;
  line.before.push_back(line.behind);
  blocks.at(memory).uses.push_back({stream, ++line.queued, {}});
}

inline bool caches() { return true; }
inline void forbid_in_capture() {
  if (relaxed) return;
  for (const Line& line : lines) require(!line.capture, "nothing that a capture forbids");
}
struct Relaxed {
  Relaxed() { ++relaxed; }
  ~Relaxed() { --relaxed; }
};
inline bool capturing(Stream stream, uint64_t* number, Status&) {
  *number = lines[stream].capture;
  return *number != 0;
}
inline void* allocate(size_t bytes, Status&) {
  forbid_in_capture();
  if (bytes > room) return nullptr;
  room -= bytes;
  ++allocations;
  void* const memory = malloc(1);
  blocks[memory] = {bytes, {}};
  return memory;
}
inline void release(void* memory) {
  const Block& block = blocks.at(memory);
  require(!block.graph, "what a graph uses is never freed");
  for (const Use& use : block.uses) require(over(use), "nothing uses memory that is freed");
  room += block.bytes;
  ++frees;
  blocks.erase(memory);
  free(memory);
}
inline void wait(Stream stream, Status&) {
  require(!lines[stream].capture, "a captured stream is not waited for");
  forbid_in_capture();
  run(stream, lines[stream].queued);
}
using Event = std::shared_ptr<Use>;
inline bool make_event(Event& event, Status&) {
  event = std::make_shared<Use>();
  ++events;
  return true;
}
inline void end_event(Event& event) { event.reset(); }
inline void record(const Event& event, Stream stream, Status&) {
  *event = {stream, lines[stream].queued, lines[stream].behind};
}
inline void wait_event(const Event& event, Status&) {
  forbid_in_capture();
  if (event) run(event->stream, event->work);
}
inline bool passed(const Event& event) { return hasty || over(*event); }
inline void follow(Stream stream, const Event& event, Status&) {
  require(!lines[stream].capture, "a capture waits for nothing outside it");
  if (deaf) return;
  Clock after = event->behind;
  after[size_t(event->stream)] = event->work;
  for (size_t other = 0; other < kStreams; ++other)
    if (lines[stream].behind[other] < after[other]) lines[stream].behind[other] = after[other];
}
// Of staging.h.
inline bool make_stream(Stream& stream, Status&) {
  stream = 1;
  return true;
}
inline void copy_in(void* to, const void* from, size_t bytes, Stream, Status&) { memcpy(to, from, bytes); }
inline int locked = 0;
inline void* allocate_locked(size_t bytes, Status&) {
  if (bytes > locked_room) return nullptr;
  ++locked;
  return malloc(bytes);
}
inline void release_locked(void* memory) {
  --locked;
  free(memory);
}
constexpr size_t kStagingBlock = 1024;

}  // namespace driver
}  // namespace affuse::cuda
