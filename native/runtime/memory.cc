#include "memory.h"

#include <cstdint>
#include <cstdlib>
#include <cstring>
#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace affuse {

namespace {
constexpr size_t kHugePage = size_t(2) << 20;
}

bool Memory::allocate(size_t bytes, const char* what, Status& status, bool zero) {
  reset();
  const bool huge = bytes >= 2 * kHugePage;
  const size_t alignment = huge ? kHugePage : kAlignment;
  // Rounded up: aligned_alloc wants a multiple, and vector code may read the whole last line of a tensor.
  const size_t rounded = bytes > SIZE_MAX - 2 * alignment ? 0 : ((bytes ? bytes : 1) + alignment - 1) / alignment * alignment;
  void* data = rounded && rounded <= size_t(PTRDIFF_MAX) ? aligned_alloc(alignment, rounded) : nullptr;
  if (!data) {
    status.fail("ERR_AFFUSE_MEMORY", "expected %zu bytes for %s, got none from the system", bytes, what);
    return false;
  }
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  if (huge) madvise(data, rounded, MADV_HUGEPAGE);
#endif
  if (zero) memset(data, 0, rounded);
  data_ = data;
  bytes_ = bytes;
  return true;
}

void Memory::reset() {
  release_memory(data_);
  data_ = nullptr;
  bytes_ = 0;
}

void release_memory(void* data) { free(data); }

void* Scratch::reserve(size_t bytes, Status& status) {
  if (!memory_.data() || memory_.bytes() < bytes) {
    if (!memory_.allocate(bytes < 4096 ? 4096 : bytes, "a workspace", status)) return nullptr;
  }
  return memory_.data();
}

Scratch& thread_scratch() {
  static thread_local Scratch scratch;
  return scratch;
}

std::unique_ptr<Memory> ArenaPool::acquire(size_t bytes, Status& status) {
  {
    std::lock_guard lock(mutex_);
    auto best = free_.end();
    for (auto it = free_.begin(); it != free_.end(); ++it)
      if ((*it)->bytes() >= bytes && (best == free_.end() || (*it)->bytes() < (*best)->bytes())) best = it;
    if (best != free_.end()) {
      std::unique_ptr<Memory> arena = std::move(*best);
      free_.erase(best);
      return arena;
    }
    // A larger one is made instead of, not beside, those that have become too small.
    free_.clear();
  }
  auto arena = std::make_unique<Memory>();
  if (!arena->allocate(bytes, "a program's arena", status)) return nullptr;
  return arena;
}

void ArenaPool::release(std::unique_ptr<Memory> arena) {
  if (!arena) return;
  std::lock_guard lock(mutex_);
  free_.push_back(std::move(arena));
}

}  // namespace affuse
