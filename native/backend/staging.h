// Feeding and fetching beside computing. Feeding: host memory goes to the device on a stream of its own, through two
// page-locked blocks in turn. While one is on its way, the other is filled; the queue waits only where it needs what was fed.
// Included by backend.cu only.
#pragma once
#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <unordered_map>

#include "driver.h"

namespace affuse::cuda {

class Staging {
 public:
  // From any thread; several wait for each other.
  void feed(void* to, const void* host, size_t bytes, Status& status) {
    const std::lock_guard lock(mutex_);
    if (!open_ && !open(status)) return;
    for (size_t at = 0; at < bytes && status.ok(); at += driver::kStagingBlock) {
      Block& block = blocks_[next_];
      next_ ^= 1;
      const size_t part = std::min(driver::kStagingBlock, bytes - at);
      driver::wait_event(block.sent, status);  // until what it held has left it
      if (!status.ok()) return;
      memcpy(block.memory, static_cast<const char*>(host) + at, part);
      driver::copy_in(static_cast<char*>(to) + at, block.memory, part, stream_, status);
      driver::record(block.sent, stream_, status);
    }
  }
  // `queue` goes on when all that feed() has returned from is there. Another feed() may be under way: then, at most, it
  // waits for that one too.
  void arrived(Stream queue, Status& status) {
    if (!open_) return;
    for (const Block& block : blocks_) driver::follow(queue, block.sent, status);
  }

 private:
  struct Block {
    void* memory = nullptr;
    driver::Event sent{};
  };
  bool open(Status& status) {
    if (!stream_ && !driver::make_stream(stream_, status)) return false;
    for (Block& block : blocks_) {
      if (block.memory) continue;
      if (!driver::make_event(block.sent, status)) return false;
      block.memory = driver::allocate_locked(driver::kStagingBlock, status);
      if (block.memory) continue;
      driver::end_event(block.sent);
      status.fail("ERR_AFFUSE_MEMORY", "expected %zu bytes to feed through, got none", driver::kStagingBlock);
      return false;
    }
    open_ = true;
    return true;
  }

  std::mutex mutex_;
  std::atomic<bool> open_{false};
  Stream stream_{};
  Block blocks_[2];
  int next_ = 0;
};

// Page-locked blocks for what is fetched, kept for the next run that fetches as much: locking pages takes longer than a
// step. One thread at a time.
class Slots {
 public:
  // Null: none of this size.
  void* make(size_t bytes) {
    size_t size = kLeast;
    while (size < bytes && size < kMost) size *= 2;
    if (bytes > kMost) return nullptr;
    if (auto kept = kept_.find(size); kept != kept_.end()) {
      void* const memory = kept->second;
      kept_.erase(kept);
      return sizes_[memory] = size, memory;
    }
    Status status;
    void* const memory = driver::allocate_locked(size, status);
    if (memory) sizes_[memory] = size;
    return memory;
  }
  void end(void* memory) {
    const auto found = sizes_.find(memory);
    if (found == sizes_.end()) return;
    // Few sizes are in use at a time; those of programs that are gone would stay for ever.
    if (kept_.size() == kKept) {
      driver::release_locked(kept_.begin()->second);
      kept_.erase(kept_.begin());
    }
    kept_.emplace(found->second, memory);
    sizes_.erase(found);
  }

 private:
  static constexpr size_t kLeast = size_t(4) << 10, kMost = size_t(32) << 20, kKept = 4;
  std::multimap<size_t, void*> kept_;
  std::unordered_map<void*, size_t> sizes_;
};

}  // namespace affuse::cuda
