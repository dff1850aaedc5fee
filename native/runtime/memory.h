// Aligned memory whose failure is an error code, not an exception.
#pragma once
#include <cstddef>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "kernels/common/op.h"

namespace affuse {

constexpr size_t kAlignment = 64;

// One aligned block. Contents are undefined unless zeroed; large blocks ask for huge pages, as far as they fill them.
class Memory {
 public:
  Memory() = default;
  Memory(Memory&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)),
        mapped_(std::exchange(other.mapped_, 0)) {}
  Memory& operator=(Memory&& other) noexcept {
    if (this != &other) {
      reset();
      data_ = std::exchange(other.data_, nullptr);
      bytes_ = std::exchange(other.bytes_, 0);
      mapped_ = std::exchange(other.mapped_, 0);
    }
    return *this;
  }
  ~Memory() { reset(); }

  // ERR_AFFUSE_MEMORY when the system refuses. `what` names the purpose in the message.
  bool allocate(size_t bytes, const char* what, Status& status, bool zero = false);
  // The same for what lives long: a large block comes from the system and goes back to it at once, so that what was freed
  // does not stay with the allocator; its pages are made, and zero, when they are first touched.
  bool map(size_t bytes, const char* what, Status& status, bool zero = false);
  void reset();
  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  char* at(size_t offset) const { return static_cast<char*>(data_) + offset; }

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;
  size_t mapped_ = 0;  // bytes of the mapping; 0: the allocator's
};

// Workspace that grows to the largest size asked for. One per thread that runs operators.
class Scratch {
 public:
  // At least `bytes` (may be 0), 64-byte aligned; holds garbage. Null only with an error.
  void* reserve(size_t bytes, Status& status);
  // Frees what exceeds `keep` bytes.
  void trim(size_t keep) {
    if (memory_.bytes() > keep) memory_.reset();
  }

 private:
  Memory memory_;
};

// The calling thread's own, for calls that run on it; trimmed to kKeptScratch after each.
Scratch& thread_scratch();
constexpr size_t kKeptScratch = size_t(64) << 20;

// Arenas lent to runs. Programs keep nothing in their arena between runs, so that many programs of different sizes share
// one; there are as many as runs at the same time.
class ArenaPool {
 public:
  // The smallest free arena of at least `bytes`; null only with an error.
  std::unique_ptr<Memory> acquire(size_t bytes, Status& status);
  void release(std::unique_ptr<Memory> arena);

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<Memory>> free_;
};

}  // namespace affuse
