// Memory that outlives programs (parameters, gradients, optimiser state) and the packed weights made from it.
#pragma once
#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "check.h"
#include "memory.h"

namespace affuse {

class DeviceLock;

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
//
// A buffer is in one place at a time: in host memory, or on the device whose programs use it. It moves when a program of
// another place wants it, so parameters stay on the device between steps; read() and write() reach it where it is.
class Buffer {
 public:
  static std::shared_ptr<Buffer> create(size_t bytes, Status& status);
  ~Buffer();

  size_t bytes() const { return bytes_; }
  // In host memory; moved there if need be.
  bool to_host(Status& status);
  char* at(size_t offset) { return memory_.at(offset); }
  // Nowhere but on this device or in host memory. To be called while no device is locked: two programs whose buffers are on
  // each other's device would wait for each other.
  bool off_others(Device device, Status& status) { return !remote_ || device_ == device || to_host(status); }
  // On the device, which the caller has locked; moved there from host memory if need be. Null only with an error.
  char* on(Device device, DeviceLock& backend, Status& status);

  void read(size_t offset, void* to, size_t bytes, Status& status);
  void write(size_t offset, const void* from, size_t bytes, Status& status);

  // The entry for this weight and layout, made empty if there is none.
  PackedWeight& packed(size_t offset, const TensorDesc& desc, const char* key, size_t bytes);
  // To be called after every write to [offset, offset + extent) of host memory.
  void touched(size_t offset, size_t extent);

  // Runs that were submitted and have not finished.
  std::atomic<int> pending{0};

 private:
  size_t bytes_ = 0;
  Memory memory_;           // while it is in host memory
  void* remote_ = nullptr;  // else
  Device device_;
  std::vector<std::unique_ptr<PackedWeight>> packed_;
};

}  // namespace affuse
