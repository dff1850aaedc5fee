#include "backends.h"

#include <dlfcn.h>

#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>

#include "loadable.h"

namespace affuse {
namespace {

constexpr int kMostDevices = 16;

struct Library {
  Library(const char* file, const char* variable) : file(file), variable(variable) {}

  const char* const file;
  const char* const variable;  // of the environment, names another file
  std::mutex mutex;
  const BackendLibrary* opened = nullptr;
  OpenDevice devices[kMostDevices];
};

Library& library_of(Device::Kind kind) {
  static Library cuda{"libaffuse_cuda.so", "AFFUSE_CUDA_LIBRARY"},
      emulated{"libaffuse_emulated.so", "AFFUSE_EMULATED_LIBRARY"};
  return kind == Device::cuda ? cuda : emulated;
}

// The folder of the file that this code is in.
std::string own_folder() {
  Dl_info info;
  if (!dladdr(reinterpret_cast<const void*>(&own_folder), &info) || !info.dli_fname) return {};
  const std::string path = info.dli_fname;
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? std::string() : path.substr(0, slash + 1);
}

// With library.mutex held.
const BackendLibrary* open_library(Library& library, Device::Kind kind, Status& status) {
  const char* const disabled = getenv("AFFUSE_DISABLE_CUDA");
  if (kind == Device::cuda && disabled && !strcmp(disabled, "1")) {
    status.fail("ERR_AFFUSE_CUDA_UNAVAILABLE",
                "expected the CUDA backend, got AFFUSE_DISABLE_CUDA=1. Unset it, or use cpu.");
    return nullptr;
  }
  if (library.opened) return library.opened;
  const char* const named = getenv(library.variable);
  const std::string path = named && *named ? named : own_folder() + library.file;
  if (const char* const reason = why_not_loadable(path)) {
    status.fail("ERR_AFFUSE_BACKEND", "expected %s as a library for this machine, got %s. Rebuild it with the addon.",
                path.c_str(), reason);
    return nullptr;
  }
  // Local: its symbols are looked up by handle, and another copy of affuse may be in the process.
  void* const handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!handle) {
    const char* const reason = dlerror();
    status.fail("ERR_AFFUSE_CUDA_UNAVAILABLE", "expected %s, got: %.200s. %s", path.c_str(), reason ? reason : "no reason",
                kind == Device::cuda
                    ? "Build it with node scripts/build-native.mjs -DAFFUSE_CUDA=on (needs nvcc), or use cpu."
                    : "Build it with node scripts/build-emulated.mjs.");
    return nullptr;
  }
  const auto entry = reinterpret_cast<const BackendLibrary* (*)()>(dlsym(handle, kBackendSymbol));
  const BackendLibrary* const found = entry ? entry() : nullptr;
  if (!found || found->version != kBackendVersion || strcmp(found->affuse_version, AFFUSE_VERSION)) {
    status.fail("ERR_AFFUSE_BACKEND",
                "expected %s of affuse %s, interface %u, got %s, interface %u. Rebuild it with the addon.", path.c_str(),
                AFFUSE_VERSION, kBackendVersion, found ? found->affuse_version : "another library",
                found ? found->version : 0);
    dlclose(handle);
    return nullptr;
  }
  if (found->emulated != (kind != Device::cuda)) {  // what ran there would be taken for what it is not
    status.fail("ERR_AFFUSE_BACKEND", "expected a library for %s, got %s, which is one for %s. See %s.",
                kind == Device::cuda ? "GPUs" : "the emulator", path.c_str(), found->emulated ? "the emulator" : "GPUs",
                library.variable);
    dlclose(handle);
    return nullptr;
  }
  return library.opened = found;
}

}  // namespace

DeviceLock lock_device(Device device, Status& status) {
  Library& library = library_of(device.kind);
  if (device.index >= kMostDevices) {
    status.fail("ERR_AFFUSE_DEVICE", "expected a device below %d, got %d", kMostDevices, device.index);
    return {};
  }
  OpenDevice& open = library.devices[device.index];
  {
    const std::lock_guard lock(library.mutex);
    const BackendLibrary* const loaded = open_library(library, device.kind, status);
    if (!loaded) return {};
    if (!open.backend) {
      const int count = loaded->count(status);
      if (!status.ok()) return {};
      if (device.index >= count) {
        status.fail("ERR_AFFUSE_CUDA_NO_DEVICE", "expected a device below %d, got %d", count, device.index);
        return {};
      }
      open.backend = loaded->open(device.index, status);
      if (!open.backend) return {};
    }
  }
  return DeviceLock(open);
}

// --- memory ------------------------------------------------------------------------------------------------------------

bool DeviceLock::wait_for_memory(const Status& attempt) {
  if (!attempt.code || strcmp(attempt.code, "ERR_AFFUSE_DEVICE_MEMORY") != 0 || device_->blocks == 0) return false;
  const uint64_t before = device_->ended;
  device_->given_back.wait(lock_, [&] { return device_->ended != before; });
  return true;
}

bool DeviceBlock::allocate(DeviceLock& backend, size_t bytes, const char* what, Status& status) {
  data = static_cast<char*>(backend->allocate(bytes, what, status, true));
  if (data) ++backend.device_->blocks;
  return data != nullptr;
}

void DeviceBlock::give_back(DeviceLock& backend) {
  Status ignored;  // a device that is lost says so to the next call
  if (!data) return;
  if (!idle) backend->await_feeds(ignored);  // whoever has it next comes after what is still on its way to it
  backend->release(std::exchange(data, nullptr), idle);
  if (slot) backend->end_slot(std::exchange(slot, nullptr));
  --backend.device_->blocks;
}

void DeviceBlock::end(DeviceLock& backend) {
  give_back(backend);
  ++backend.device_->ended;
  backend.device_->given_back.notify_all();
}

DeviceBlock::~DeviceBlock() {
  Status ignored;
  if (!data) return;
  if (DeviceLock backend = lock_device(device, ignored)) end(backend);
}

const char* const* device_operators(Device::Kind kind, Status& status) {
  Library& library = library_of(kind);
  const std::lock_guard lock(library.mutex);
  const BackendLibrary* const loaded = open_library(library, kind, status);
  const int count = loaded ? loaded->count(status) : 0;
  if (status.ok() && count == 0) status.fail("ERR_AFFUSE_CUDA_NO_DEVICE", "expected a CUDA device, got none. Use cpu.");
  return status.ok() ? loaded->operators : nullptr;
}

}  // namespace affuse
