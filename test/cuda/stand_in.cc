// A device library in the place of libaffuse_cuda.so that fails in the way that AFFUSE_STAND_IN names, with memory of the
// host and one operator, "scale". For errors.test.ts: what a machine with a GPU says when something is wrong with it.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "native/backend/backend.h"

namespace {

using namespace affuse;

bool mode(const char* name) {
  const char* const asked = getenv("AFFUSE_STAND_IN");
  return asked && !strcmp(asked, name);
}

class StandIn final : public Backend {
 public:
  const DeviceFacts& facts() const override { return facts_; }
  int find(const char* op) const override { return strcmp(op, "scale") ? -1 : 0; }
  size_t workspace(int, const OpShape&) const override { return 0; }
  void run(int, const OpCall& call, Status& status, void*) override {
    lost_ |= mode("lost");
    if (gone(status)) return;
    const float* const x = static_cast<const float*>(call.in[0].data);
    float* const y = static_cast<float*>(call.out[0].data);
    for (int64_t i = 0; i < call.in[0].count(); ++i) y[i] = mode("wrong") ? x[i] : 2 * x[i];
  }
  void begin_recording(Status&) override {}
  void name_step(int) override {}
  Recording* end_recording(Status&) override { return new Recording; }
  void update(Recording&, int, int, const OpCall&, Status&) override {}
  void replay(Recording&, Status&) override {}
  void* allocate(size_t bytes, const char* what, Status& status, bool) override {
    if (gone(status)) return nullptr;
    if (!mode("memory")) return aligned_alloc(256, (bytes + 256) / 256 * 256);
    status.fail("ERR_AFFUSE_DEVICE_MEMORY", "expected %zu bytes of device memory for %s, got none", bytes, what);
    return nullptr;
  }
  void release(void* memory, bool) override { free(memory); }
  void copy_in(void* to, const void* host, size_t bytes, Status& status) override {
    if (!gone(status)) memcpy(to, host, bytes);
  }
  void copy_out(void* host, const void* from, size_t bytes, Status& status) override {
    if (!gone(status)) memcpy(host, from, bytes);
  }
  void fill(void* memory, int byte, size_t bytes, Status&) override { memset(memory, byte, bytes); }
  void finish(Status& status) override { gone(status); }
  void feed(void* to, const void* host, size_t bytes, Status& status) override {
    if (slow()) puts("fed");
    copy_in(to, host, bytes, status);
  }
  void await_feeds(Status&) override {}
  void* mark(Status&) override { return this; }
  void wait(void*, Status& status) override {
    if (slow()) {  // as long as a step computes
      puts("computing");
      std::this_thread::sleep_for(std::chrono::milliseconds(400));
      puts("computed");
    }
    gone(status);
  }

 private:
  static bool slow() { return mode("slow"); }
  bool gone(Status& status) {
    if (lost_) status.fail("ERR_AFFUSE_DEVICE_LOST", "expected the device to finish its work, got an illegal memory access");
    return lost_;
  }
  DeviceFacts facts_;
  bool lost_ = false;
};

int count(Status& status) {
  if (mode("no driver")) status.fail("ERR_AFFUSE_CUDA_DRIVER", "expected an NVIDIA driver of CUDA 13.0 or newer, got none");
  if (mode("old driver")) status.fail("ERR_AFFUSE_CUDA_DRIVER", "expected an NVIDIA driver of CUDA 13.0 or newer, got 11.4");
  return mode("no device") || !status.ok() ? 0 : 1;
}

Backend* open(int, Status& status) {
  if (!mode("architecture")) return new StandIn;
  status.fail("ERR_AFFUSE_CUDA_ARCHITECTURE", "expected kernels for compute capability 7.5 (T4), got a library without");
  return nullptr;
}

}  // namespace

extern "C" __attribute__((visibility("default"))) const BackendLibrary* affuse_backend_library() {
  static const char* const operators[] = {"scale", nullptr};
  const uint32_t version = mode("version") ? kBackendVersion + 1 : kBackendVersion;
  static const BackendLibrary library{version, STAND_IN_VERSION, operators, &count, &open};
  return &library;
}
