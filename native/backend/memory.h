// Device memory that is kept for the next request of its size class: cudaMalloc waits for the device, a training step must
// not. Requests are rounded up to 512 bytes below 1 MB and to 2 MB above. What the system refuses is asked for again after
// everything unused has been given back.
#pragma once
#include <map>
#include <unordered_map>

#include "driver.h"

namespace affuse::cuda {

class DeviceMemory {
 public:
  void* allocate(size_t bytes, const char* what, Status& status, bool idle) {
    const size_t size = class_of(bytes);
    void* memory = nullptr;
    for (auto [kept, end] = kept_.equal_range(size); kept != end; ++kept) {
      if (idle && !kept->second.idle) continue;
      memory = kept->second.memory;
      kept_.erase(kept);
      break;
    }
    if (!memory) memory = driver::allocate(size, status);
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
  // idle: no queued work uses it any more.
  void release(void* memory, bool idle) {
    const auto found = sizes_.find(memory);
    if (found == sizes_.end()) return;
    in_use_ -= found->second;
    if (driver::kCaches) kept_.emplace(found->second, Kept{memory, idle});
    else driver::release(memory);
    sizes_.erase(found);
  }
  // The queue is empty.
  void all_idle() {
    for (auto& [size, kept] : kept_) kept.idle = true;
  }

 private:
  struct Kept {
    void* memory;
    bool idle;
  };
  static size_t class_of(size_t bytes) {
    if (!driver::kCaches) return bytes ? bytes : 1;
    const size_t unit = bytes < (size_t(1) << 20) ? 512 : size_t(2) << 20;
    return (bytes + !bytes + unit - 1) / unit * unit;
  }
  void give_back() {
    for (const auto& [size, kept] : kept_) driver::release(kept.memory);
    kept_.clear();
  }

  std::multimap<size_t, Kept> kept_;
  std::unordered_map<void*, size_t> sizes_;
  size_t in_use_ = 0;
};

}  // namespace affuse::cuda
