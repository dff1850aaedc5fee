// The device library: backend.h over driver.h and the kernels of the rooms. Compiled by nvcc into libaffuse_cuda and by
// g++ into libaffuse_emulated.
#include "backend.h"

#include <cstring>
#include <memory>

#include "device_rooms.inc"
#include "driver.h"
#include "memory.h"
#include "ranges.h"
#include "recording.h"
#include "staging.h"

namespace affuse::cuda {
namespace {

// Does nothing: whether the library has code for a device is asked of it.
AFFUSE_GLOBAL(32, 1) probe() {}

class Device final : public Backend {
 public:
  bool open(int index, Status& status) {
    index_ = index;
    if (!driver::describe(index, facts_, status) || !driver::most_shared(index, &shared_, status) ||
        !driver::use(index, status) || !driver::has_code(probe, facts_, status) || !driver::make_stream(stream_, status))
      return false;
    memory_.open(stream_);
    return true;
  }

  const DeviceFacts& facts() const override { return facts_; }

  int find(const char* op) const override {
    for (int i = 0; kDeviceOps[i]; ++i)
      if (!strcmp(kDeviceOps[i]->name, op)) return i;
    return -1;
  }
  size_t workspace(int op, const OpShape& shape) const override {
    const DeviceOp& entry = *kDeviceOps[op];
    if (entry.workspace_by_cache) return entry.workspace_by_cache(shape, facts_.processors, facts_.cache);
    return entry.workspace ? entry.workspace(shape, facts_.processors) : 0;
  }
  void run(int op, const OpCall& call, Status& status, void* stream) override {
    if (!driver::use(index_, status)) return;
    const Range range(kDeviceOps[op]->name);
    if (recording_) recording_->note(kDeviceOps[op]->name);
    Queue queue{given(stream), facts_.processors, facts_.cache, &status, recording_.get(), shared_};
    kDeviceOps[op]->run(call, queue);
  }

  void begin_recording(Status& status) override {
    if (!driver::use(index_, status)) return;
    recording_ = std::make_unique<RecordedLaunches>();
    if (!recording_->begin(status)) recording_.reset();
  }
  void name_step(int step) override {
    if (recording_) recording_->append(step);
  }
  Recording* end_recording(Status& status) override {
    std::unique_ptr<RecordedLaunches> made = std::move(recording_);
    return made && status.ok() && made->end(status) ? made.release() : nullptr;
  }
  void update(Recording& recording, int step, int op, const OpCall& call, Status& status) override {
    if (!driver::use(index_, status)) return;
    const Range range(kDeviceOps[op]->name);
    auto& launches = static_cast<RecordedLaunches&>(recording);
    launches.replace(step);
    Queue queue{stream_, facts_.processors, facts_.cache, &status, &launches, shared_};
    kDeviceOps[op]->run(call, queue);
    if (status.ok() && !launches.complete())
      status.fail("ERR_AFFUSE_INTERNAL", "expected step %d to launch what it did before, got less", step);
  }
  void replay(Recording& recording, Status& status) override {
    auto& launches = static_cast<RecordedLaunches&>(recording);
    const Range range(launches.name());
    if (driver::use(index_, status)) launches.replay(stream_, status);
  }

  void* allocate(size_t bytes, const char* what, Status& status, bool idle, void* stream) override {
    return driver::use(index_, status) ? memory_.allocate(bytes, what, status, idle, given(stream)) : nullptr;
  }
  void release(void* memory, bool idle, void* stream) override {
    Status ignored;  // it says so to the next call
    driver::use(index_, ignored);
    memory_.release(memory, idle, given(stream));
  }
  bool scarce() override {
    if (!driver::scarce(index_)) return false;
    memory_.give_back();
    return driver::scarce(index_);
  }
  void copy_in(void* to, const void* host, size_t bytes, Status& status) override {
    if (bytes && driver::use(index_, status)) driver::copy_in(to, host, bytes, stream_, status);
  }
  void copy_out(void* host, const void* from, size_t bytes, Status& status) override {
    if (!driver::use(index_, status)) return;
    if (bytes) driver::copy_out(host, from, bytes, stream_, status);
    if (status.ok()) finish(status);
  }
  void fill(void* memory, int byte, size_t bytes, Status& status, void* stream) override {
    if (bytes && driver::use(index_, status)) driver::fill(memory, byte, bytes, given(stream), status);
  }
  void finish(Status& status) override {
    if (!driver::use(index_, status)) return;
    driver::wait(stream_, status);
    if (status.ok()) memory_.all_idle();
  }

  void feed(void* to, const void* host, size_t bytes, Status& status) override {
    if (bytes && driver::use(index_, status)) staging_.feed(to, host, bytes, status);
  }
  void await_feeds(Status& status) override {
    if (driver::use(index_, status)) staging_.arrived(stream_, status);
  }
  void* make_slot(size_t bytes) override {
    Status none;
    return driver::use(index_, none) ? slots_.make(bytes) : nullptr;
  }
  void end_slot(void* slot) override { slots_.end(slot); }
  void fetch(void* slot, const void* from, size_t bytes, Status& status) override {
    if (bytes && driver::use(index_, status)) driver::copy_out(slot, from, bytes, stream_, status);
  }
  void* mark(Status& status) override {
    auto made = std::make_unique<driver::Event>();
    if (!driver::use(index_, status) || !driver::make_event(*made, status)) return nullptr;
    driver::record(*made, stream_, status);
    return made.release();
  }
  void wait(void* mark, Status& status) override {
    const std::unique_ptr<driver::Event> event(static_cast<driver::Event*>(mark));
    if (driver::use(index_, status)) driver::wait_event(*event, status);
    driver::end_event(*event);
  }

 private:
  Stream given(void* stream) const { return stream ? static_cast<Stream>(stream) : stream_; }

  int index_ = 0;
  DeviceFacts facts_;
  Stream stream_ = nullptr;
  size_t shared_ = 0;
  DeviceMemory memory_;
  Staging staging_;
  Slots slots_;
  std::unique_ptr<RecordedLaunches> recording_;
};

Backend* open(int index, Status& status) {
  auto* device = new Device;  // never closed: kernels in flight at exit may still use it
  if (device->open(index, status)) return device;
  delete device;
  return nullptr;
}

const char* const* operator_names() {
  static const char* names[sizeof kDeviceOps / sizeof *kDeviceOps];
  for (int i = 0; kDeviceOps[i]; ++i) names[i] = kDeviceOps[i]->name;
  return names;
}

}  // namespace
}  // namespace affuse::cuda

extern "C" __attribute__((visibility("default"))) const affuse::BackendLibrary* affuse_backend_library() {
  using namespace affuse::cuda;
  static const affuse::BackendLibrary library{affuse::kBackendVersion, driver::kEmulated, AFFUSE_VERSION,
                                              operator_names(),        &driver::count,    &open};
  return &library;
}
