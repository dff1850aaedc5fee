// Device memory that is kept for the next request of its size class: cudaMalloc waits for the device, a training step must
// not. Requests are rounded up to 512 bytes below 1 MB and to 2 MB above; blocks are never split. What the system refuses is
// asked for again after everything unused has been given back.
//
// A block may be released while queued work still uses it, and remembers the stream of that work. It is given out for the
// same stream at once, for another one with an event to wait for, and as idle only when the work is known to be done.
//
// What is given out while a stream is captured into a CUDA graph belongs to that graph, which may run at any time from
// then on: it is lent to later calls of the same capture and stream, and to nobody else. Nothing can be allocated
// meanwhile, so it comes from what earlier calls left.
#pragma once
#include <map>
#include <unordered_map>
#include <vector>

#include "driver.h"

namespace affuse::cuda {

class DeviceMemory {
 public:
  // own: the stream that all_idle() is about.
  void open(Stream own) { own_ = own; }

  // For work on `stream`; idle: for anything.
  void* allocate(size_t bytes, const char* what, Status& status, bool idle, Stream stream) {
    const size_t size = class_of(bytes);
    uint64_t capture = 0;
    if (stream != own_ && driver::capturing(stream, &capture, status)) return captured(size, what, status, capture, stream);
    if (!status.ok()) return nullptr;
    void* memory = reuse(size, idle, stream, status);
    if (!memory && status.ok()) memory = driver::allocate(size, status);
    if (!memory && status.ok()) {
      give_back();
      memory = driver::allocate(size, status);
    }
    if (!memory) {
      status.fail(
          "ERR_AFFUSE_DEVICE_MEMORY",
          "expected %zu bytes of device memory for %s, got none (%zu bytes are in use by affuse). Use smaller batches.",
          bytes, what, in_use_);
      return nullptr;
    }
    sizes_[memory] = size;
    in_use_ += size;
    return memory;
  }
  // idle: no queued work uses it any more; else none but of `stream`.
  void release(void* memory, bool idle, Stream stream) {
    if (const auto pinned = pinned_.find(memory); pinned != pinned_.end()) {
      pinned->second.lent = false;
      return;
    }
    const auto found = sizes_.find(memory);
    if (found == sizes_.end()) return;
    Kept kept{memory, stream, {}, false, idle};
    if (!idle && stream != own_) {
      Status status;
      if (!mark(kept, status)) {  // without an event: wait now
        Status ignored;
        driver::wait(stream, ignored);
        settle(kept);
      }
    }
    in_use_ -= found->second;
    if (driver::caches()) kept_.emplace(found->second, kept);
    else drop(kept);
    sizes_.erase(found);
  }
  // The own stream is empty.
  void all_idle() {
    for (auto& [size, kept] : kept_)
      if (kept.stream == own_) kept.idle = true;
  }
  // Everything unused goes back to the system.
  void give_back() {
    for (auto& [size, kept] : kept_) drop(kept);
    kept_.clear();
  }

 private:
  struct Kept {
    void* memory;
    Stream stream;  // whose work may still use it
    driver::Event last;
    bool marked;  // `last` is behind that work
    bool idle;
  };
  struct Pinned {
    size_t size;
    uint64_t capture;
    Stream stream;
    bool lent;
  };

  static size_t class_of(size_t bytes) {
    if (!driver::caches()) return bytes ? bytes : 1;
    const size_t unit = bytes < (size_t(1) << 20) ? 512 : size_t(2) << 20;
    return (bytes + !bytes + unit - 1) / unit * unit;
  }
  // An event behind what is queued on the block's stream.
  bool mark(Kept& kept, Status& status) {
    if (!spare_.empty()) {
      kept.last = spare_.back();
      spare_.pop_back();
    } else if (!driver::make_event(kept.last, status)) {
      return false;
    }
    kept.marked = true;
    driver::record(kept.last, kept.stream, status);
    return status.ok();
  }
  void settle(Kept& kept) {
    kept.idle = true;
    if (kept.marked) spare_.push_back(kept.last);
    kept.marked = false;
  }
  // On the host, until nothing uses the block.
  void wait_for(Kept& kept) {
    Status ignored;  // a device that is lost says so to the next call
    if (!kept.idle && kept.marked) driver::wait_event(kept.last, ignored);
    else if (!kept.idle) driver::wait(own_, ignored);
    settle(kept);
  }
  void drop(Kept& kept) {
    wait_for(kept);
    driver::release(kept.memory);
  }
  void* take(std::multimap<size_t, Kept>::iterator kept) {
    void* const memory = kept->second.memory;
    settle(kept->second);
    kept_.erase(kept);
    return memory;
  }

  // What is idle or was used by the same stream; else, what another stream is done with or will be.
  void* reuse(size_t size, bool idle, Stream stream, Status& status) {
    const auto [begin, end] = kept_.equal_range(size);
    for (auto kept = begin; kept != end; ++kept)
      if (kept->second.idle || (!idle && kept->second.stream == stream)) return take(kept);
    for (auto kept = begin; kept != end; ++kept)
      if (kept->second.marked && driver::passed(kept->second.last)) return take(kept);
    if (idle || begin == end) return nullptr;
    Kept& other = begin->second;
    // Of the own stream's no event is kept: a later place of it will do.
    if (other.marked || mark(other, status)) driver::follow(stream, other.last, status);
    return status.ok() ? take(begin) : nullptr;
  }

  void* captured(size_t size, const char* what, Status& status, uint64_t capture, Stream stream) {
    for (auto& [memory, pinned] : pinned_)
      if (!pinned.lent && pinned.size == size && pinned.capture == capture && pinned.stream == stream) {
        pinned.lent = true;
        return memory;
      }
    const driver::Relaxed relaxed;  // what is waited for is no part of the capture
    auto [kept, end] = kept_.equal_range(size);
    for (auto other = kept; other != end; ++other)
      if (other->second.idle) kept = other;
    if (kept == end) {
      status.fail("ERR_AFFUSE_CAPTURE",
                  "expected %zu bytes for %s from an earlier call, got none, and none can be allocated while a stream is "
                  "captured. Make the same calls once before capturing them.",
                  size, what);
      return nullptr;
    }
    wait_for(kept->second);
    void* const memory = take(kept);
    pinned_[memory] = {size, capture, stream, true};
    in_use_ += size;
    return memory;
  }

  Stream own_{};
  std::multimap<size_t, Kept> kept_;
  std::unordered_map<void*, size_t> sizes_;
  std::unordered_map<void*, Pinned> pinned_;  // for as long as the device is open
  std::vector<driver::Event> spare_;
  size_t in_use_ = 0;
};

}  // namespace affuse::cuda
