// What one environment (the main thread or a worker) owns: its driver threads, its arenas and the way results come back.
#pragma once
#include <memory>
#include <mutex>
#include <vector>

#include "convert.h"
#include "native/runtime/memory.h"
#include "native/runtime/profile.h"
#include "native/runtime/scheduler.h"

namespace affuse::addon {

// A job that settles a promise.
class PromiseJob : public Job {
 public:
  // On a driver thread.
  void run(Scratch& scratch, const std::atomic<bool>& cancelled) final;
  void finished(std::shared_ptr<Job> self) final;
  // On the JavaScript thread: settles the promise.
  void settle(napi_env env) noexcept;

 protected:
  virtual void work(Scratch& scratch, const std::atomic<bool>& cancelled, Status& status) = 0;
  // On the driver thread after work(), whatever became of it.
  virtual void done() {}
  virtual napi_value result(napi_env env) = 0;

 private:
  friend class Instance;
  Status status_;
  napi_deferred deferred_ = nullptr;
  class Instance* instance_ = nullptr;
};

class Instance {
 public:
  static void create(napi_env env);
  static Instance& of(napi_env env);

  // Submits the job and returns its promise. While any is outstanding the event loop stays alive.
  napi_value submit(std::shared_ptr<PromiseJob> job);
  bool idle() const { return outstanding_ == 0; }
  ArenaPool& arenas() { return arenas_; }

  // Null unless a profile is being made; runs submitted meanwhile keep it.
  std::shared_ptr<Recorder> recorder;

  // The classes of buffers and programs; made when the first is.
  napi_ref buffer_class = nullptr, program_class = nullptr;

 private:
  friend class PromiseJob;
  explicit Instance(napi_env env) : env_(env), scheduler_(std::make_unique<Scheduler>(kDrivers)) {}
  static void tear_down(void* self);
  static void deliver(napi_env env, napi_value, void* self, void*);
  void enqueue(std::shared_ptr<PromiseJob> job);

  // Jobs that share no memory may run side by side; beyond a few they would only take each other's cores.
  static constexpr int kDrivers = 4;

  napi_env env_;
  napi_threadsafe_function wake_ = nullptr;  // carries nothing: it only brings deliver() to the JavaScript thread
  std::mutex mutex_;
  std::vector<std::shared_ptr<PromiseJob>> settled_;
  size_t outstanding_ = 0;  // JavaScript thread only
  ArenaPool arenas_;
  std::unique_ptr<Scheduler> scheduler_;
};

}  // namespace affuse::addon
