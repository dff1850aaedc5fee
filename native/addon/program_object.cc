// NativeProgram.
#include <cstring>
#include <string>

#include "addon.h"
#include "instance.h"
#include "lendable.h"
#include "native/runtime/cpu.h"
#include "program_desc.h"
#include "tensors.h"
#include "wrapped.h"

namespace affuse::addon {
namespace {

class ProgramJob : public PromiseJob {
 public:
  ProgramJob(std::shared_ptr<Program> program, Instance& instance)
      : program_(std::move(program)), arenas_(instance.arenas()), recorder_(instance.recorder) {
    if (recorder_) recorder_->pending.fetch_add(1, std::memory_order_relaxed);
    run_.feeds.resize(program_->spec().feeds.size());
    run_.threads = default_threads();
    resources.push_back(program_.get());
    // Not where runs are profiled: theirs are timed alone.
    const Device device = program_->spec().device;
    if (device.has_backend() && !recorder_) queue = 1 + device.kind * 256 + device.index;
    for (const auto& buffer : program_->spec().buffers) {
      resources.push_back(buffer.get());
      buffer->pending.fetch_add(1, std::memory_order_relaxed);
    }
  }
  ~ProgramJob() override { done(); }

  std::vector<double>& scalars() { return run_.scalars; }

  // Straight into the arena when nothing else can be running; otherwise aside, until the run has an arena.
  void reserve_arena(Status& status) {
    if (has_arena()) arena_ = arenas_.acquire(program_->spec().arena_bytes, status);
  }
  // A device has memory of its own: feeds wait aside until the run copies them there.
  bool has_arena() const { return !program_->spec().device.has_backend(); }
  // A feed of allocate()'s memory can be lent; the run then reads it in place and keeps the memory until it is done.
  void feed(size_t index, const View& view, size_t bytes, bool lend, Status& status) {
    if (!bytes) return;
    if (lend && view.dtype == DType::f32 && program_->lendable(index)) {
      if (std::shared_ptr<void> owner = affuse::addon::lendable(view.data, bytes)) {
        run_.lent.resize(run_.feeds.size());
        run_.lent[index] = view.data;
        owners_.push_back(std::move(owner));
        return;
      }
    }
    char* to;
    if (arena_) {
      to = program_->place_of(*arena_, program_->spec().feeds[index]);
    } else {
      if (!run_.feeds[index].allocate(bytes, "a copy of a feed", status)) return;
      to = static_cast<char*>(run_.feeds[index].data());
    }
    memcpy(to, view.data, bytes);
  }

 protected:
  void work(Scratch& scratch, const std::atomic<bool>& cancelled, Status& status) override {
    if (!arena_) reserve_arena(status);
    if (!status.ok()) return;
    run_.arena = arena_.get();
    run_.queued = [this] { queued(); };
    if (!recorder_) return program_->run(run_, scratch, cancelled, status);
    RunRecorder record(recorder_->tasks, run_.threads);
    run_.recorder = &record;
    program_->run(run_, scratch, cancelled, status);
    recorder_->add(record.finish(program_));
  }

  void done() override {
    owners_.clear();
    arenas_.release(std::move(arena_));
    if (const auto recorder = std::exchange(recorder_, nullptr)) recorder->pending.fetch_sub(1, std::memory_order_release);
    if (std::exchange(counted_, false))
      for (const auto& buffer : program_->spec().buffers) buffer->pending.fetch_sub(1, std::memory_order_release);
  }

  napi_value result(napi_env env) override {
    const auto& fetches = program_->spec().fetches;
    napi_value list = make_array(env, fetches.size());
    for (size_t i = 0; i < fetches.size(); ++i) {
      const ProgramValue& value = program_->spec().values[size_t(fetches[i])];
      set(env, list, uint32_t(i), adopt_array(env, value, std::move(run_.fetches[i])));
    }
    return list;
  }

 private:
  std::shared_ptr<Program> program_;
  ArenaPool& arenas_;
  std::shared_ptr<Recorder> recorder_;
  std::unique_ptr<Memory> arena_;
  ProgramRun run_;
  std::vector<std::shared_ptr<void>> owners_;  // of lent feeds
  bool counted_ = true;
};

napi_value construct(napi_env env, napi_callback_info info) {
  return guarded(env, [&]() -> napi_value {
    const Arguments args(env, info);
    check(cpu_info().error);
    Status status;
    std::shared_ptr<Program> program = Program::create(read_program(env, args[0]), status);
    check(status);
    // An arena that cannot be had is found out now rather than at the first run.
    if (!program->spec().device.has_backend()) {
      ArenaPool& arenas = Instance::of(env).arenas();
      arenas.release(arenas.acquire(program->spec().arena_bytes, status));
      check(status);
    }
    wrap(env, args.self, std::move(program));
    return args.self;
  });
}

napi_value run(napi_env env, napi_callback_info info) {
  return guarded(env, [&]() -> napi_value {
    const Arguments args(env, info);
    // A copy: a getter among the feeds may dispose of the program.
    const std::shared_ptr<Program> program = self_of<Program>(env, args, "NativeProgram");
    if (!program) raise("ERR_AFFUSE_DISPOSED", "expected a live program to run, got a disposed one");
    const ProgramSpec& spec = program->spec();
    if (!is_array(env, args[0]) || array_length(env, args[0]) != spec.feeds.size())
      raise("ERR_AFFUSE_FEED", "expected %zu feeds in an array", spec.feeds.size());
    if (!is_array(env, args[1]) || array_length(env, args[1]) != uint32_t(spec.scalars))
      raise("ERR_AFFUSE_SCALAR", "expected %d scalars in an array", spec.scalars);
    bool lend = false;
    if (!is_nullish(env, args[2]) && napi_get_value_bool(env, args[2], &lend) != napi_ok)
      raise("ERR_AFFUSE_USAGE", "expected true or false for whether feeds are lent");
    // All that may run JavaScript first, then the pointers.
    std::vector<napi_value> feeds(spec.feeds.size());
    for (uint32_t i = 0; i < feeds.size(); ++i) feeds[i] = get(env, args[0], i);
    Instance& instance = Instance::of(env);
    const auto job = std::make_shared<ProgramJob>(program, instance);
    for (uint32_t i = 0; i < uint32_t(spec.scalars); ++i) {
      napi_value element = get(env, args[1], i);
      if (type_of(env, element) != napi_number) raise("ERR_AFFUSE_SCALAR", "expected scalar %u as a number", i);
      job->scalars().push_back(number_or_nan(env, element));
    }
    Status status;
    if (instance.idle()) job->reserve_arena(status);
    for (size_t i = 0; i < feeds.size() && status.ok(); ++i) {
      const ProgramValue& value = spec.values[size_t(spec.feeds[i])];
      const std::string name = "feed " + std::to_string(i);
      const View view = view_of(env, feeds[i], name.c_str());
      if (view.dtype != value.dtype || view.length != value.count())
        raise("ERR_AFFUSE_FEED", "expected %s as %lld elements of %s, got %lld of %s", name.c_str(),
              (long long)value.count(), dtype_name(value.dtype), (long long)view.length, dtype_name(view.dtype));
      job->feed(i, view, value.bytes(), lend, status);
    }
    check(status);
    return instance.submit(job);
  });
}

napi_value dispose(napi_env env, napi_callback_info info) {
  return guarded(env, [&]() -> napi_value {
    self_of<Program>(env, Arguments(env, info), "NativeProgram").reset();
    return undefined(env);
  });
}

}  // namespace

napi_value create_program(napi_env env, napi_callback_info info) {
  return guarded(env, [&]() -> napi_value {
    return new_instance(env, Instance::of(env).program_class, "NativeProgram", construct,
                        {{"run", nullptr, run, nullptr, nullptr, nullptr, napi_default_method, nullptr},
                         {"dispose", nullptr, dispose, nullptr, nullptr, nullptr, napi_default_method, nullptr}},
                        Arguments(env, info)[0]);
  });
}

}  // namespace affuse::addon
