// What one environment (the main thread or a worker) owns: its driver threads, its arenas and the way results come back.
#pragma once
#include <memory>
#include <mutex>
#include <vector>

#include "convert.h"
#include "native/runtime/memory.h"
#include "native/runtime/scheduler.h"

namespace affuse::addon {

// A job that settles a promise.
class PromiseJob : public Job {
 public:
  // On a driver thread.
  void run(Scratch& scratch, const std::atomic<bool>& cancelled) final;
  void finished(std::shared_ptr<Job> self) final;
  // On the JavaScript thread: settles the promise.
  void settle(napi_env env);

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
  explicit Instance(Napi::Env env);
  ~Instance();
  static Instance& of(napi_env env);

  // Submits the job and returns its promise. While any is outstanding the event loop stays alive.
  napi_value submit(std::shared_ptr<PromiseJob> job);
  bool idle() const { return outstanding_ == 0; }
  ArenaPool& arenas() { return arenas_; }

  Napi::FunctionReference buffer_class, program_class;

 private:
  friend class PromiseJob;
  static void tear_down(void* self);
  static void deliver(napi_env env, napi_value, void* self, void*);
  void enqueue(std::shared_ptr<PromiseJob> job);

  napi_env env_;
  napi_threadsafe_function wake_ = nullptr;  // carries nothing: it only brings deliver() to the JavaScript thread
  std::mutex mutex_;
  std::vector<std::shared_ptr<PromiseJob>> settled_;
  size_t outstanding_ = 0;  // JavaScript thread only
  ArenaPool arenas_;
  std::unique_ptr<Scheduler> scheduler_;
};

}  // namespace affuse::addon
