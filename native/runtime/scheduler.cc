#include "scheduler.h"

#include <algorithm>
#include <system_error>

namespace affuse {
namespace {

bool share(const Job& a, const Job& b) {
  for (const void* resource : a.resources)
    if (std::find(b.resources.begin(), b.resources.end(), resource) != b.resources.end()) return true;
  return false;
}

}  // namespace

void Job::placed() {
  {
    const std::lock_guard lock(scheduler_->mutex_);
    state_ = running;
  }
  scheduler_->wake_.notify_one();
}

Scheduler::~Scheduler() {
  {
    std::lock_guard lock(mutex_);
    cancelled_ = true;
  }
  wake_.notify_all();
  for (std::thread& driver : drivers_) driver.join();
}

bool Scheduler::submit(std::shared_ptr<Job> job) {
  job->scheduler_ = this;
  {
    std::lock_guard lock(mutex_);
    if (int(waiting_.size()) >= idle_ && int(drivers_.size()) < limit_) {
      try {
        drivers_.emplace_back([this] { drive(); });
      } catch (const std::system_error&) {
        if (drivers_.empty()) return false;  // with a driver the job merely waits longer
      }
    }
    waiting_.push_back(std::move(job));
  }
  wake_.notify_one();
  return true;
}

// Whether the job shares something with one that runs, or with one that waits before it.
bool Scheduler::conflicts(const Job& job, size_t before) const {
  for (const auto& other : running_)
    if (share(job, *other)) return true;
  for (size_t i = 0; i < before; ++i)
    if (share(job, *waiting_[i])) return true;
  return false;
}

std::shared_ptr<Job> Scheduler::next() {
  for (size_t i = 0; i < waiting_.size(); ++i) {
    if (waiting_[i]->state_ == Job::preparing || conflicts(*waiting_[i], i)) continue;
    std::shared_ptr<Job> job = std::move(waiting_[i]);
    waiting_.erase(waiting_.begin() + ptrdiff_t(i));
    return job;
  }
  return nullptr;
}

// One at a time, and no other before that one has started and has its memory: preparing takes some.
std::shared_ptr<Job> Scheduler::next_to_prepare() const {
  for (const auto& job : waiting_)
    if (job->state_ != Job::fresh) return nullptr;
  for (const auto& job : running_)
    if (job->state_ == Job::starting) return nullptr;
  const auto found = std::find_if(waiting_.begin(), waiting_.end(), [](const auto& job) { return job->prepares(); });
  return found == waiting_.end() ? nullptr : *found;
}

void Scheduler::drive() {
  Scratch scratch;
  std::unique_lock lock(mutex_);
  while (!cancelled_) {
    std::shared_ptr<Job> job = next();
    if (!job) {
      if (const std::shared_ptr<Job> early = next_to_prepare()) {
        early->state_ = Job::preparing;
        lock.unlock();
        early->prepare();
        lock.lock();
        early->state_ = Job::prepared;
        wake_.notify_all();
        continue;
      }
      ++idle_;
      wake_.wait(lock);
      --idle_;
      continue;
    }
    job->state_ = job->prepares() ? Job::starting : Job::running;
    running_.push_back(job);
    lock.unlock();
    job->run(scratch, cancelled_);
    job->finished(job);
    lock.lock();
    running_.erase(std::find(running_.begin(), running_.end(), job));
    wake_.notify_all();  // what waited for this job's resources may start, perhaps on another driver
  }
}

}  // namespace affuse
