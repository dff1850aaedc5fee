// Memory that outlives programs (parameters, gradients, optimiser state) and the packed weights made from it.
#pragma once
#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "memory.h"

namespace affuse {

// One weight in one packed layout, shared by every instruction of every program that wants it so.
struct PackedWeight {
  size_t offset = 0, extent = 0;  // the bytes of the buffer that it was made from
  TensorDesc desc;
  std::string key;
  size_t bytes = 0;
  Memory memory;       // allocated when it is first made
  bool fresh = false;  // false: the weight changed since, or it was never made
};

// Programs that share a buffer run one after another, so that what is here needs no lock of its own; `pending` tells the
// owner's thread whether any such run is outstanding.
class Buffer {
 public:
  static std::shared_ptr<Buffer> create(size_t bytes, Status& status);

  size_t bytes() const { return memory_.bytes(); }
  char* at(size_t offset) { return memory_.at(offset); }

  // The entry for this weight and layout, made empty if there is none.
  PackedWeight& packed(size_t offset, const TensorDesc& desc, const char* key, size_t bytes);
  // To be called after every write to [offset, offset + extent).
  void touched(size_t offset, size_t extent);

  // Runs that were submitted and have not finished.
  std::atomic<int> pending{0};

 private:
  Memory memory_;
  std::vector<std::unique_ptr<PackedWeight>> packed_;
};

}  // namespace affuse
