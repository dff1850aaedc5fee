// Driver threads: they take jobs in order and run each on themselves plus the pool, so that whoever submitted goes on.
#pragma once
#include <atomic>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "memory.h"

namespace affuse {

class Job {
 public:
  virtual ~Job() = default;
  // On a driver thread. `cancelled` turns true when the scheduler shuts down: the job should end soon.
  virtual void run(Scratch& scratch, const std::atomic<bool>& cancelled) = 0;
  // For jobs that can do something before their turn, beside those that they have to wait for: once, before run(), or
  // never. One at a time, and while every other such job that runs has said placed().
  virtual bool prepares() const { return false; }
  virtual void prepare() {}
  // On the same thread, when it has run and before any job that had to wait for it starts.
  virtual void finished(std::shared_ptr<Job> self) = 0;

  // Jobs that share any of these run one after another in the order of submission; others may run side by side.
  std::vector<const void*> resources;

 protected:
  // In run(), of a job that prepares: it has the memory that it needs. Until then what the next one took could be taken
  // back from it at once.
  void placed();

 private:
  friend class Scheduler;
  enum { fresh, preparing, prepared, starting, running } state_ = fresh;
  class Scheduler* scheduler_ = nullptr;
};

class Scheduler {
 public:
  explicit Scheduler(int drivers) : limit_(drivers) {}
  // Cancels running jobs, drops waiting ones and joins.
  ~Scheduler();

  // False, with the job not taken, when the system gives no thread to run it.
  bool submit(std::shared_ptr<Job> job);

 private:
  friend class Job;
  void drive();
  std::shared_ptr<Job> next();
  std::shared_ptr<Job> next_to_prepare() const;
  bool conflicts(const Job& job, size_t before) const;

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::shared_ptr<Job>> waiting_;
  std::vector<std::shared_ptr<Job>> running_;
  std::vector<std::thread> drivers_;
  std::atomic<bool> cancelled_{false};
  int idle_ = 0;
  const int limit_;
};

}  // namespace affuse
