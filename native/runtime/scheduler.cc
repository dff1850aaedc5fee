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

void Job::queued() {
  {
    const std::lock_guard lock(scheduler_->mutex_);
    queued_ = true;
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
Scheduler::Turn Scheduler::turn_of(const Job& job, size_t before) const {
  Turn turn = now;
  for (const auto& other : running_) {
    if (!share(job, *other)) continue;
    if (turn == behind || !job.queue || job.queue != other->queue || !other->queued_) return later;
    turn = behind;
  }
  for (size_t i = 0; i < before; ++i)
    if (share(job, *waiting_[i])) return later;
  return turn;
}

// Jobs that can run before jobs that can only be queued: these need a driver too, and do not end sooner for it.
std::shared_ptr<Job> Scheduler::next() {
  for (const Turn wanted : {now, behind})
    for (size_t i = 0; i < waiting_.size(); ++i) {
      if (turn_of(*waiting_[i], i) != wanted) continue;
      std::shared_ptr<Job> job = std::move(waiting_[i]);
      waiting_.erase(waiting_.begin() + ptrdiff_t(i));
      return job;
    }
  return nullptr;
}

void Scheduler::drive() {
  Scratch scratch;
  std::unique_lock lock(mutex_);
  while (!cancelled_) {
    const std::shared_ptr<Job> job = next();
    if (!job) {
      ++idle_;
      wake_.wait(lock);
      --idle_;
      continue;
    }
    running_.push_back(job);
    lock.unlock();
    job->run(scratch, cancelled_);
    lock.lock();
    ended_.wait(lock, [&] {  // for the one that this one was queued behind
      for (auto other = running_.begin(); *other != job; ++other)
        if (share(*job, **other)) return false;
      return true;
    });
    lock.unlock();
    job->finished(job);
    lock.lock();
    running_.erase(std::find(running_.begin(), running_.end(), job));
    wake_.notify_all();  // what waited for this job's resources may start, perhaps on another driver
    ended_.notify_all();
  }
}

}  // namespace affuse
