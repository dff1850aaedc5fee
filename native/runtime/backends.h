// The device libraries, found beside this code and opened when a device of theirs is first wanted. Nothing is probed before.
#pragma once
#include <condition_variable>
#include <mutex>
#include <vector>

#include "check.h"
#include "native/backend/backend.h"

namespace affuse {

// A device that was opened; what is here belongs to the holder of its lock.
struct OpenDevice {
  std::mutex mutex;
  Backend* backend = nullptr;
  int blocks = 0;      // that runs have
  uint64_t ended = 0;  // how many a run has given back
  std::condition_variable given_back;
};

// An open device and the right to use it: one thread at a time.
class DeviceLock {
 public:
  DeviceLock() = default;
  explicit DeviceLock(OpenDevice& device) : device_(&device), backend_(device.backend), lock_(device.mutex) {}
  explicit operator bool() const { return backend_ != nullptr; }
  Backend* operator->() const { return backend_; }
  Backend& operator*() const { return *backend_; }

  // After an attempt that found too little memory and has given everything back: true when a run has given its own back
  // since, so that another attempt may find more; false, with nothing to wait for, where no run has any. So runs that are
  // queued one behind another fail only where they would fail one by one, and so does what comes between them.
  bool wait_for_memory(const Status& attempt);
  // For a run that has its block and will launch what never was launched, for which CUDA takes memory itself: whether that
  // might not be there, while other runs have some that they will give back.
  bool cramped() { return device_->blocks > 1 && backend_->scarce(); }

  // Lets others use the device meanwhile.
  void pause() { lock_.unlock(); }
  void resume() { lock_.lock(); }

 private:
  friend struct DeviceBlock;
  OpenDevice* device_ = nullptr;
  Backend* backend_ = nullptr;
  std::unique_lock<std::mutex> lock_;
};

// Opens the device if need be. Empty only with an error: ERR_AFFUSE_CUDA_UNAVAILABLE (no library, or disabled),
// ERR_AFFUSE_CUDA_DRIVER, ERR_AFFUSE_CUDA_NO_DEVICE, ERR_AFFUSE_CUDA_ARCHITECTURE, ERR_AFFUSE_BACKEND (another version).
DeviceLock lock_device(Device device, Status& status);

// What a run has of a device: memory there, and page-locked memory of the host for what it fetches. Whoever has one needs no
// more of the device's memory to come to its end. Given back from wherever it ends: with the device not locked by this
// thread.
struct DeviceBlock {
  explicit DeviceBlock(Device device) : device(device) {}
  DeviceBlock(const DeviceBlock&) = delete;
  ~DeviceBlock();

  // Memory that no queued work uses.
  bool allocate(DeviceLock& backend, size_t bytes, const char* what, Status& status);
  // Before the lock under which it was allocated was let go: as if it had not been.
  void give_back(DeviceLock& backend);
  // Gives it back, and tells those who wait for memory.
  void end(DeviceLock& backend);

  const Device device;
  char* data = nullptr;
  void* slot = nullptr;  // Backend::make_slot()
  bool idle = false;     // nothing that is queued uses it
};

// Whether a program could use this kind of device; otherwise why not. Opens the library and counts devices. The names of the
// operators that have kernels there, null at the end; null with an error.
const char* const* device_operators(Device::Kind kind, Status& status);

}  // namespace affuse
