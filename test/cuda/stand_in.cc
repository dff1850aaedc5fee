// A device library in the place of libaffuse_cuda.so that fails in the way that AFFUSE_STAND_IN names, with memory of the
// host, as many bytes of it as AFFUSE_STAND_IN_BYTES says, and one operator, "scale" ("slow": for AFFUSE_STAND_IN_MS each, and
// with AFFUSE_STAND_IN_RUNS, how many runs come, until another is queued behind it, be the machine as slow as it may).
// For errors.test.ts: what a machine with a GPU says when something is wrong with it. And for the stress program
// (test/native/stress/devices.cc).
#include <algorithm>
#include <atomic>
#include <chrono>
#include <climits>
#include <cmath>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include <unistd.h>

#include "native/backend/backend.h"

namespace {

using namespace affuse;

bool mode(const char* name) {
  const char* const asked = getenv("AFFUSE_STAND_IN");
  return asked && !strcmp(asked, name);
}

// In one piece: the script writes to the same pipe, and standard output has no buffer in Node.
void say(const char* line) {
  if (write(STDOUT_FILENO, line, strlen(line)) < 0) abort();
}

int number(const char* variable, int otherwise) {
  const char* const asked = getenv(variable);
  return asked ? atoi(asked) : otherwise;
}

// y = 2 x.
struct Scale {
  const float* x;
  float* y;
  int64_t count;
  void go() const {
    for (int64_t i = 0; i < count; ++i) y[i] = mode("wrong") ? x[i] : 2 * x[i];
  }
};

struct Recorded final : Recording {
  std::vector<Scale> steps;
};

class StandIn final : public Backend {
 public:
  const DeviceFacts& facts() const override { return facts_; }
  int find(const char* op) const override { return strcmp(op, "scale") ? -1 : 0; }
  size_t workspace(int, const OpShape&) const override { return 0; }
  void run(int, const OpCall& call, Status& status, void* stream) override {
    if (mode("lost")) lost_ = true;
    if (gone(status)) return;
    const auto made = streams_.find(call.out[0].data);
    if (made != streams_.end() && made->second != stream) abort();  // memory that is another stream's
    const Scale step{call.in[0].f32(), call.out[0].f32(), call.in[0].count()};
    if (recording_) recording_->steps.push_back(step);
    else go(step, status);
  }
  void begin_recording(Status&) override { recording_ = new Recorded; }
  void name_step(int) override {}
  Recording* end_recording(Status&) override { return std::exchange(recording_, nullptr); }
  void update(Recording&, int, int, const OpCall&, Status&) override {}
  void replay(Recording& recording, Status& status) override {
    for (const Scale& step : static_cast<Recorded&>(recording).steps) go(step, status);
  }
  void* allocate(size_t bytes, const char* what, Status& status, bool, void* stream) override {
    if (gone(status)) return nullptr;
    const size_t size = (bytes + 255) / 256 * 256;
    if (!mode("memory") && size <= left_) {
      void* const memory = aligned_alloc(256, size);
      sizes_[memory] = size;
      streams_[memory] = stream;
      left_ -= size;
      return memory;
    }
    status.fail("ERR_AFFUSE_DEVICE_MEMORY", "expected %zu bytes of device memory for %s, got none", bytes, what);
    return nullptr;
  }
  void release(void* memory, bool, void* stream) override {
    if (streams_[memory] != stream) abort();
    streams_.erase(memory);
    left_ += sizes_[memory];
    sizes_.erase(memory);
    free(memory);
  }
  bool scarce() override { return false; }
  void copy_in(void* to, const void* host, size_t bytes, Status& status) override {
    if (!gone(status)) memcpy(to, host, bytes);
  }
  void copy_out(void* host, const void* from, size_t bytes, Status& status) override {
    if (!gone(status)) memcpy(host, from, bytes);
  }
  void fill(void* memory, int byte, size_t bytes, Status&, void*) override { memset(memory, byte, bytes); }
  void finish(Status& status) override { gone(status); }
  void feed(void* to, const void* host, size_t bytes, Status& status) override {
    if (gone(status)) return;
    if (slow()) say("fed\n");
    const char* const from = static_cast<const char*>(host);
    const std::lock_guard lock(feeding_);
    under_way_.emplace_back(to, std::vector<char>(from, from + bytes));
  }
  void await_feeds(Status&) override {  // no sooner: who does not wait finds memory without what was fed
    const std::lock_guard lock(feeding_);
    for (const auto& [to, bytes] : under_way_) memcpy(to, bytes.data(), bytes.size());
    under_way_.clear();
  }
  void* make_slot(size_t bytes) override { return malloc(bytes); }
  void end_slot(void* slot) override { free(slot); }
  void fetch(void* slot, const void* from, size_t bytes, Status& status) override {
    if (gone(status)) return;
    const char* const begin = static_cast<const char*>(from);
    const std::lock_guard lock(feeding_);
    fetched_.push_back({queued_.load(), slot, std::vector<char>(begin, begin + bytes)});
  }
  void* mark(Status& status) override {
    if (gone(status)) return nullptr;
    if (slow()) say("queued\n");
    return new int(queued_++);  // after it is said: who waits for this goes on to say something else
  }
  void wait(void* mark, Status& status) override {  // what is fetched is there no sooner
    const std::unique_ptr<int> behind(static_cast<int*>(mark));
    std::unique_lock turn(computing_);
    in_order_.wait(turn, [&] { return computed_ == *behind; });  // a stream's: whichever thread comes here first
    if (slow()) {  // as long as a step computes
      say("computing\n");
      const int behind_it = std::min(number("AFFUSE_STAND_IN_RUNS", 0), *behind + 2);
      std::this_thread::sleep_for(std::chrono::milliseconds(number("AFFUSE_STAND_IN_MS", 150)));
      for (int ms = 0; queued_ < behind_it && ms < 20000; ++ms) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      say("computed\n");
    } else {  // others have their turns
      std::this_thread::sleep_for(std::chrono::microseconds(20));
    }
    ++computed_;
    in_order_.notify_all();
    if (*behind >= fatal_) lost_ = true;
    if (gone(status)) return;
    const std::lock_guard lock(feeding_);
    std::erase_if(fetched_, [&](const Fetched& one) {
      if (one.behind > *behind) return false;
      memcpy(one.slot, one.bytes.data(), one.bytes.size());
      return true;
    });
  }

 private:
  // A step of -1 cannot be queued; one of NaN loses the device when it has been waited for.
  void go(const Scale& step, Status& status) {
    if (*step.x == -1) return status.fail("ERR_AFFUSE_CUDA", "expected a launch, got an invalid argument");
    if (std::isnan(*step.x)) fatal_ = std::min(fatal_.load(), queued_.load());
    step.go();
  }
  static bool slow() { return mode("slow"); }
  static size_t room() {
    const char* const bytes = getenv("AFFUSE_STAND_IN_BYTES");
    return bytes ? size_t(atoll(bytes)) : SIZE_MAX;
  }
  bool gone(Status& status) {
    if (lost_) status.fail("ERR_AFFUSE_DEVICE_LOST", "expected the device to finish its work, got an illegal memory access");
    return lost_;
  }
  DeviceFacts facts_;
  Recorded* recording_ = nullptr;
  std::atomic<bool> lost_{false};
  size_t left_ = room();
  std::map<void*, size_t> sizes_;
  std::map<void*, void*> streams_;
  std::mutex computing_;
  std::condition_variable in_order_;
  int computed_ = 0;
  std::mutex feeding_;
  std::vector<std::pair<void*, std::vector<char>>> under_way_;
  struct Fetched {
    int behind;  // how many marks there were
    void* slot;
    std::vector<char> bytes;
  };
  std::vector<Fetched> fetched_;
  std::atomic<int> queued_{0};
  std::atomic<int> fatal_{INT_MAX};
};

int count(Status& status) {
  if (mode("no driver")) status.fail("ERR_AFFUSE_CUDA_DRIVER", "expected an NVIDIA driver of CUDA 13.0 or newer, got none");
  if (mode("old driver")) status.fail("ERR_AFFUSE_CUDA_DRIVER", "expected an NVIDIA driver of CUDA 13.0 or newer, got 11.4");
  return mode("no device") || !status.ok() ? 0 : 1;
}

Backend* open(int, Status& status) {
  if (!mode("architecture")) return new StandIn;
  status.fail("ERR_AFFUSE_CUDA_ARCHITECTURE", "expected kernels for compute capability 7.5 (T4), got a library for 8.0");
  return nullptr;
}

}  // namespace

extern "C" __attribute__((visibility("default"))) const BackendLibrary* affuse_backend_library() {
  static const char* const operators[] = {"scale", nullptr};
  const uint32_t version = mode("version") ? kBackendVersion + 1 : kBackendVersion;
  static const BackendLibrary library{version, false, STAND_IN_VERSION, operators, &count, &open};
  return &library;
}
