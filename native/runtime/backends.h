// The device libraries, found beside this code and opened when a device of theirs is first wanted. Nothing is probed before.
#pragma once
#include <mutex>

#include "check.h"
#include "native/backend/backend.h"

namespace affuse {

// An open device and the right to use it: one thread at a time.
class DeviceLock {
 public:
  DeviceLock() = default;
  DeviceLock(Backend* backend, std::mutex& mutex) : backend_(backend), lock_(mutex) {}
  explicit operator bool() const { return backend_ != nullptr; }
  Backend* operator->() const { return backend_; }
  Backend& operator*() const { return *backend_; }
  // Lets others use the device meanwhile.
  void pause() { lock_.unlock(); }
  void resume() { lock_.lock(); }

 private:
  Backend* backend_ = nullptr;
  std::unique_lock<std::mutex> lock_;
};

// Opens the device if need be. Empty only with an error: ERR_AFFUSE_CUDA_UNAVAILABLE (no library, or disabled),
// ERR_AFFUSE_CUDA_DRIVER, ERR_AFFUSE_CUDA_NO_DEVICE, ERR_AFFUSE_CUDA_ARCHITECTURE, ERR_AFFUSE_BACKEND (another version).
DeviceLock lock_device(Device device, Status& status);

// Memory of a device, given back from wherever it ends: with the device not locked by this thread.
struct DeviceBlock {
  explicit DeviceBlock(Device device) : device(device) {}
  DeviceBlock(const DeviceBlock&) = delete;
  ~DeviceBlock() {
    Status ignored;
    if (!data) return;
    const DeviceLock backend = lock_device(device, ignored);
    if (!backend) return;
    if (!idle) backend->await_feeds(ignored);  // whoever has it next comes after what is still on its way to it
    backend->release(data, idle);
  }
  const Device device;
  char* data = nullptr;
  bool idle = false;  // nothing that is queued uses it
};

// Whether a program could use this kind of device; otherwise why not. Opens the library and counts devices. The names of the
// operators that have kernels there, null at the end; null with an error.
const char* const* device_operators(Device::Kind kind, Status& status);

}  // namespace affuse
