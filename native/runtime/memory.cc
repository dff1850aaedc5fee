#include "memory.h"

#include <cstdint>
#include <cstdlib>
#include <cstring>
#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace affuse {

namespace {

constexpr size_t kHugePage = size_t(2) << 20, kPage = size_t(64) << 10;  // the largest that systems use

// Whole lines: vector code may read the last line of a tensor to its end. 0: more than can be asked for.
size_t rounded_up(size_t bytes, size_t unit) {
  return bytes > size_t(PTRDIFF_MAX) - 2 * kHugePage ? 0 : ((bytes ? bytes : 1) + unit - 1) / unit * unit;
}

// The part of a block that fills huge pages; the rest stays in small ones and costs no more than it holds.
void ask_for_huge_pages(void* data, size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  if (bytes >= 2 * kHugePage) madvise(data, bytes / kHugePage * kHugePage, MADV_HUGEPAGE);
#else
  (void)data, (void)bytes;
#endif
}

bool refused(size_t bytes, const char* what, Status& status) {
  status.fail("ERR_AFFUSE_MEMORY", "expected %zu bytes for %s, got none from the system", bytes, what);
  return false;
}

// Sanitizers watch the borders of what comes from the allocator only.
#if defined(__linux__) && !defined(__SANITIZE_ADDRESS__)
constexpr size_t kMapped = size_t(1) << 20;  // least bytes of a mapping of its own

// `bytes` in whole pages, from the start of a huge page.
void* map_pages(size_t bytes) {
  const size_t room = bytes + kHugePage;
  void* from = mmap(nullptr, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (from == MAP_FAILED) return nullptr;
  const auto address = reinterpret_cast<uintptr_t>(from);
  const size_t before = (kHugePage - address % kHugePage) % kHugePage;
  char* const data = static_cast<char*>(from) + before;
  if (before) munmap(from, before);
  munmap(data + bytes, room - before - bytes);
  return data;
}
#endif

}  // namespace

bool Memory::allocate(size_t bytes, const char* what, Status& status, bool zero) {
  reset();
  void* data = nullptr;
  const size_t rounded = rounded_up(bytes, kAlignment);
  if (!rounded || posix_memalign(&data, rounded >= 2 * kHugePage ? kHugePage : kAlignment, rounded))
    return refused(bytes, what, status);
  ask_for_huge_pages(data, rounded);
  if (zero) memset(data, 0, rounded);
  data_ = data;
  bytes_ = bytes;
  return true;
}

bool Memory::map(size_t bytes, const char* what, Status& status, bool zero) {
#if defined(__linux__) && !defined(__SANITIZE_ADDRESS__)
  const size_t rounded = rounded_up(bytes, kPage);
  if (!rounded || rounded >= kMapped) {
    reset();
    void* data = rounded ? map_pages(rounded) : nullptr;
    if (!data) return refused(bytes, what, status);
    ask_for_huge_pages(data, rounded);
    data_ = data;
    bytes_ = bytes;
    mapped_ = rounded;
    return true;
  }
#endif
  return allocate(bytes, what, status, zero);
}

void Memory::reset() {
#if defined(__linux__)
  if (mapped_) munmap(data_, mapped_);
#endif
  if (!mapped_) free(data_);
  data_ = nullptr;
  bytes_ = mapped_ = 0;
}

void* Scratch::reserve(size_t bytes, Status& status) {
  if (!memory_.data() || memory_.bytes() < bytes) {
    if (!memory_.map(bytes < 4096 ? 4096 : bytes, "a workspace", status)) return nullptr;
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
  if (!arena->map(bytes, "a program's arena", status)) return nullptr;
  return arena;
}

void ArenaPool::release(std::unique_ptr<Memory> arena) {
  if (!arena) return;
  std::lock_guard lock(mutex_);
  free_.push_back(std::move(arena));
}

}  // namespace affuse
