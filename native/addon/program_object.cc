#include <cstring>

#include "native/runtime/cpu.h"
#include "programs.h"

namespace affuse::addon {
namespace {

class ProgramJob : public PromiseJob {
 public:
  ProgramJob(std::shared_ptr<Program> program, ArenaPool& arenas) : program_(std::move(program)), arenas_(arenas) {
    run_.feeds.resize(program_->spec().feeds.size());
    run_.threads = default_threads();
    resources.push_back(program_.get());
    for (const auto& buffer : program_->spec().buffers) {
      resources.push_back(buffer.get());
      buffer->pending.fetch_add(1, std::memory_order_relaxed);
    }
  }
  ~ProgramJob() override { done(); }

  std::vector<double>& scalars() { return run_.scalars; }

  // Straight into the arena when nothing else can be running; otherwise aside, until the run has an arena.
  bool reserve_arena(Status& status) {
    arena_ = arenas_.acquire(program_->spec().arena_bytes, status);
    return status.ok();
  }
  bool feed(size_t index, const void* data, size_t bytes, Status& status) {
    if (!bytes) return true;
    char* to;
    if (arena_) {
      to = program_->place_of(*arena_, program_->spec().feeds[index]);
    } else {
      if (!run_.feeds[index].allocate(bytes, "a copy of a feed", status)) return false;
      to = static_cast<char*>(run_.feeds[index].data());
    }
    memcpy(to, data, bytes);
    return true;
  }

 protected:
  void work(Scratch& scratch, const std::atomic<bool>& cancelled, Status& status) override {
    if (!arena_ && !reserve_arena(status)) return;
    run_.arena = arena_.get();
    program_->run(run_, scratch, cancelled, status);
  }

  void done() override {
    arenas_.release(std::move(arena_));
    if (std::exchange(counted_, false))
      for (const auto& buffer : program_->spec().buffers) buffer->pending.fetch_sub(1, std::memory_order_release);
  }

  napi_value result(napi_env env) override {
    napi_value list;
    const auto& fetches = program_->spec().fetches;
    require(env, napi_create_array_with_length(env, fetches.size(), &list));
    for (size_t i = 0; i < fetches.size(); ++i) {
      const ProgramValue& value = program_->spec().values[size_t(fetches[i])];
      require(env, napi_set_element(env, list, uint32_t(i), make_array(env, value, run_.fetches[i].release())));
    }
    return list;
  }

 private:
  std::shared_ptr<Program> program_;
  ArenaPool& arenas_;
  std::unique_ptr<Memory> arena_;
  ProgramRun run_;
  bool counted_ = true;
};

}  // namespace

Napi::Function ProgramObject::define(Napi::Env env) {
  return DefineClass(env, "NativeProgram",
                     {InstanceMethod<&ProgramObject::run>("run"), InstanceMethod<&ProgramObject::dispose>("dispose")});
}

ProgramObject::ProgramObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<ProgramObject>(info) {
  const Napi::Env env = info.Env();
  check(env, cpu_info().error);
  Status status;
  program_ = Program::create(read_program(env, info[0]), status);
  check(env, status);
  // An arena that cannot be had is found out now rather than at the first run.
  ArenaPool& arenas = Instance::of(env).arenas();
  arenas.release(arenas.acquire(program_->spec().arena_bytes, status));
  check(env, status);
}

Napi::Value ProgramObject::run(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!program_) raise(env, "ERR_AFFUSE_DISPOSED", "expected a live program to run, got a disposed one");
  const ProgramSpec& spec = program_->spec();
  if (!info[0].IsArray() || info[0].As<Napi::Array>().Length() != spec.feeds.size())
    raise(env, "ERR_AFFUSE_FEED", "expected %zu feeds in an array", spec.feeds.size());
  if (!info[1].IsArray() || info[1].As<Napi::Array>().Length() != uint32_t(spec.scalars))
    raise(env, "ERR_AFFUSE_SCALAR", "expected %d scalars in an array", spec.scalars);
  Instance& instance = Instance::of(env);
  std::vector<napi_value> feeds(spec.feeds.size());
  for (uint32_t i = 0; i < feeds.size(); ++i) require(env, napi_get_element(env, info[0], i, &feeds[i]));

  auto job = std::make_shared<ProgramJob>(program_, instance.arenas());
  for (uint32_t i = 0; i < uint32_t(spec.scalars); ++i) {
    napi_value element;
    double number = 0;
    require(env, napi_get_element(env, info[1], i, &element));
    if (napi_get_value_double(env, element, &number) != napi_ok)
      raise(env, "ERR_AFFUSE_SCALAR", "expected scalar %u as a number", i);
    job->scalars().push_back(number);
  }
  Status status;
  if (instance.idle()) job->reserve_arena(status);
  for (size_t i = 0; i < feeds.size() && status.ok(); ++i) {
    const ProgramValue& value = spec.values[size_t(spec.feeds[i])];
    const std::string name = "feed " + std::to_string(i);
    const View view = view_of(env, feeds[i], name.c_str());
    if (view.dtype != value.dtype || view.length != value.count())
      raise(env, "ERR_AFFUSE_FEED", "expected %s as %lld elements of %s, got %lld of %s", name.c_str(), (long long)value.count(),
            dtype_name(value.dtype), (long long)view.length, dtype_name(view.dtype));
    job->feed(i, view.data, value.bytes(), status);
  }
  check(env, status);
  return {env, instance.submit(std::move(job))};
}

Napi::Value ProgramObject::dispose(const Napi::CallbackInfo& info) {
  program_.reset();
  return info.Env().Undefined();
}

Napi::Value create_program(const Napi::CallbackInfo& info) {
  return Instance::of(info.Env()).program_class.New({info[0]});
}

}  // namespace affuse::addon
