#include "instance.h"

#include "native/runtime/pool.h"

namespace affuse::addon {
namespace {

std::mutex counting;
int instances = 0;

}  // namespace

// --- jobs --------------------------------------------------------------------------------------------------------------

void PromiseJob::run(Scratch& scratch, const std::atomic<bool>& cancelled) {
  try {
    work(scratch, cancelled, status_);
  } catch (const std::bad_alloc&) {
    status_.fail("ERR_AFFUSE_MEMORY", "expected more memory for a run, got none from the system");
  }
  done();
}

void PromiseJob::finished(std::shared_ptr<Job> self) {
  instance_->enqueue(std::static_pointer_cast<PromiseJob>(std::move(self)));
}

void PromiseJob::settle(napi_env env) noexcept {
  napi_handle_scope scope;
  if (napi_open_handle_scope(env, &scope) != napi_ok) return;
  const napi_value value = guarded(env, [&]() -> napi_value {
    check(status_);
    return result(env);
  });
  // What fails from here on fails because the environment is ending: nobody is left to see it.
  if (value) {
    napi_resolve_deferred(env, deferred_, value);
  } else {
    napi_value error = nullptr;
    if (napi_get_and_clear_last_exception(env, &error) == napi_ok && error) napi_reject_deferred(env, deferred_, error);
  }
  napi_close_handle_scope(env, scope);
}

// --- instance ----------------------------------------------------------------------------------------------------------

void Instance::create(napi_env env) {
  auto* self = new Instance(env);
  {
    std::lock_guard lock(counting);
    ++instances;
  }
  require(napi_set_instance_data(
      env, self, [](napi_env, void* data, void*) { delete static_cast<Instance*>(data); }, nullptr));
  require(napi_create_threadsafe_function(env, nullptr, nullptr, make(env, "affuse"), 0, 1, nullptr, nullptr, self, deliver,
                                          &self->wake_));
  require(napi_unref_threadsafe_function(env, self->wake_));
  // Hooks run in reverse order: this one before the function above is taken down, so that drivers never call a dead one.
  require(napi_add_env_cleanup_hook(env, tear_down, self));
}

Instance& Instance::of(napi_env env) {
  void* data = nullptr;
  require(napi_get_instance_data(env, &data));
  return *static_cast<Instance*>(data);
}

// The environment ends, perhaps in the middle of runs: they stop at their next instruction, and nothing is settled any more.
void Instance::tear_down(void* data) {
  auto* self = static_cast<Instance*>(data);
  self->scheduler_.reset();
  self->settled_.clear();
  std::lock_guard lock(counting);
  if (--instances == 0) Pool::instance().stop();
}

napi_value Instance::submit(std::shared_ptr<PromiseJob> job) {
  if (!scheduler_) raise("ERR_AFFUSE_CANCELLED", "expected a living environment, got one that is shutting down");
  napi_value promise;
  require(napi_create_promise(env_, &job->deferred_, &promise));
  job->instance_ = this;
  if (outstanding_++ == 0) napi_ref_threadsafe_function(env_, wake_);
  if (!scheduler_->submit(job)) {
    job->status_.fail("ERR_AFFUSE_THREADS", "expected a thread to run on, got none from the system");
    job->done();
    enqueue(std::move(job));
  }
  return promise;
}

void Instance::enqueue(std::shared_ptr<PromiseJob> job) {
  bool first;
  {
    std::lock_guard lock(mutex_);
    first = settled_.empty();
    settled_.push_back(std::move(job));
  }
  if (first) napi_call_threadsafe_function(wake_, nullptr, napi_tsfn_nonblocking);
}

void Instance::deliver(napi_env env, napi_value, void* data, void*) {
  if (!env) return;
  auto* self = static_cast<Instance*>(data);
  std::vector<std::shared_ptr<PromiseJob>> settled;
  {
    std::lock_guard lock(self->mutex_);
    settled.swap(self->settled_);
  }
  self->outstanding_ -= settled.size();
  if (self->outstanding_ == 0) napi_unref_threadsafe_function(env, self->wake_);
  for (const auto& job : settled) job->settle(env);
}

}  // namespace affuse::addon
