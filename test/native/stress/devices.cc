// Programs on a device with room for one of their runs, whoever else is about to need it: runs that are queued behind others,
// schedulers that end in the middle, single operators beside them. The device is test/cuda/stand_in.cc, which
// brings what is fed and fetched only when it is waited for.
#include <cstdlib>
#include <cstring>
#include <thread>

#include "native/runtime/program.h"
#include "native/runtime/registry.h"
#include "native/runtime/scheduler.h"
#include "stress.h"

namespace {

using namespace affuse;

constexpr size_t kLargest = 1024, kBuffer = 256, kCall = 512;

// y = 2 x with an arena of so many bytes.
std::shared_ptr<Program> twice(size_t arena, const std::shared_ptr<Buffer>& buffer) {
  const auto value = [](size_t offset, int feed) {
    ProgramValue v;
    v.dtype = DType::f32;
    v.rank = 1;
    v.dim[0] = 16;
    v.offset = offset;
    v.feed = feed;
    return v;
  };
  const OpDef* const scale = find_operator("scale");
  std::vector<Attr> attributes(1);
  default_attributes(*scale, attributes.data());
  ProgramSpec spec;
  spec.device = Device::cuda;
  spec.arena_bytes = arena;
  spec.buffers = {buffer};
  spec.values = {value(0, 0), value(64, -1)};
  spec.instructions = {{scale, {0}, {1}, attributes, {}}};
  spec.feeds = {0};
  spec.fetches = {1};
  Status status;
  const auto program = Program::create(std::move(spec), status);
  require(program != nullptr, status.message);
  return program;
}

struct Tight : Job {
  std::shared_ptr<Program> program;
  std::atomic<int>& ended;
  ProgramRun state;
  float factor;
  Tight(std::shared_ptr<Program> p, const Buffer* shared, std::atomic<int>& e, float f)
      : program(std::move(p)), ended(e), factor(f) {
    resources = {shared};
    state.feeds.resize(1);
    Status status;
    state.feeds[0].allocate(64, "a feed", status);
    for (int i = 0; i < 16; ++i) static_cast<float*>(state.feeds[0].data())[i] = f * float(i);
    state.queued = [this] { queued(); };
    queue = 1;
  }
  void run(Scratch& scratch, const std::atomic<bool>& cancelled) override {
    Status status;
    program->run(state, scratch, cancelled, status);
    if (status.code && !strcmp(status.code, "ERR_AFFUSE_CANCELLED")) return;
    require(status.ok(), status.message);
    for (int i = 0; i < 16; ++i)
      require(static_cast<float*>(state.fetches[0].data())[i] == 2 * factor * float(i), "a run reads what it was fed");
  }
  void finished(std::shared_ptr<Job>) override { ++ended; }
};

}  // namespace

void devices(int rounds) {
  setenv("AFFUSE_CUDA_LIBRARY", STAND_IN, 1);
  setenv("AFFUSE_STAND_IN_BYTES", std::to_string(kLargest + kBuffer + kCall).c_str(), 1);
  Status status;
  const auto buffer = Buffer::create(64, status);
  const std::shared_ptr<Program> programs[] = {twice(512, buffer), twice(kLargest, buffer), twice(768, buffer)};
  std::atomic<bool> over{false};
  std::thread calls([&] {
    while (!over) {
      float x[64] = {1}, y[64];
      const int64_t dim[] = {64};
      const affuse_tensor in = affuse_tensor_f32(x, 1, dim), out = affuse_tensor_f32(y, 1, dim);
      affuse_error error;
      require(!affuse_run("scale", "cuda", &in, 1, nullptr, 0, &out, 1, 1, &error) && y[0] == 2, error.message);
      // On a stream of the caller's; the output that nobody wants is made all the same, and is that stream's.
      require(!affuse_queue("scale", "cuda", &in, 1, nullptr, 0, nullptr, 0, y, &error), error.message);
    }
  });
  for (int round = 0; round < rounds; ++round) {
    constexpr int kJobs = 12;
    std::atomic<int> ended{0};
    Scheduler scheduler(4);
    for (int i = 0; i < kJobs; ++i)
      scheduler.submit(std::make_shared<Tight>(programs[(i * i + round) % 3], buffer.get(), ended, float(round + i)));
    if (round % 4 == 3) std::this_thread::sleep_for(std::chrono::microseconds(round * 37 % 300));
    else
      while (ended < kJobs) std::this_thread::sleep_for(std::chrono::microseconds(20));
  }
  over = true;
  calls.join();
}
