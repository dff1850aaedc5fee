// The device libraries, found beside this code and opened when a device of theirs is first wanted. Nothing is probed before.
#pragma once
#include <atomic>
#include <mutex>
#include <vector>

#include "check.h"
#include "native/backend/backend.h"

namespace affuse {

struct DeviceBlock;

// A device that was opened; what is here belongs to the holder of its lock.
struct OpenDevice {
  std::mutex mutex;
  Backend* backend = nullptr;
  std::vector<DeviceBlock*> early;  // held for runs whose turn has not come
};

// An open device and the right to use it: one thread at a time.
class DeviceLock {
 public:
  DeviceLock() = default;
  explicit DeviceLock(OpenDevice& device) : device_(&device), backend_(device.backend), lock_(device.mutex) {}
  explicit operator bool() const { return backend_ != nullptr; }
  Backend* operator->() const { return backend_; }
  Backend& operator*() const { return *backend_; }

  // Backend::allocate for whatever has started. It has what it would have if no run were prepared before its turn: where
  // there is no room, blocks held early are taken back, and their runs feed again when their turns come.
  void* allocate(size_t bytes, const char* what, Status& status, bool idle = false);
  // The same before something is launched that never was: CUDA takes memory of its own for code and for graphs.
  void make_room();

  // Lets others use the device meanwhile.
  void pause() { lock_.unlock(); }
  void resume() { lock_.lock(); }

 private:
  friend struct DeviceBlock;
  bool take_back();
  OpenDevice* device_ = nullptr;
  Backend* backend_ = nullptr;
  std::unique_lock<std::mutex> lock_;
};

// Opens the device if need be. Empty only with an error: ERR_AFFUSE_CUDA_UNAVAILABLE (no library, or disabled),
// ERR_AFFUSE_CUDA_DRIVER, ERR_AFFUSE_CUDA_NO_DEVICE, ERR_AFFUSE_CUDA_ARCHITECTURE, ERR_AFFUSE_BACKEND (another version).
DeviceLock lock_device(Device device, Status& status);

// Memory of a device, given back from wherever it ends: with the device not locked by this thread.
//
// One that is held early, for a run whose turn has not come, may be taken back between fed() and claim(): it is then empty.
struct DeviceBlock {
  explicit DeviceBlock(Device device) : device(device) {}
  DeviceBlock(const DeviceBlock&) = delete;
  ~DeviceBlock();

  // Memory that no queued work uses. early: only if there is room besides, and held early from now on.
  bool allocate(DeviceLock& backend, size_t bytes, const char* what, bool early, Status& status);
  // Backend::feed() into it has returned for the last time.
  void fed();
  // The run's turn has come: whether the block is still there, from now on for good.
  bool claim();

  const Device device;
  char* data = nullptr;
  bool idle = false;  // nothing that is queued uses it

 private:
  friend class DeviceLock;
  bool taken_ = false;  // it had memory
  std::atomic<bool> feeding_{false};
};

// Whether a program could use this kind of device; otherwise why not. Opens the library and counts devices. The names of the
// operators that have kernels there, null at the end; null with an error.
const char* const* device_operators(Device::Kind kind, Status& status);

}  // namespace affuse
