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
  // On the same thread, when it has run: in the order of submission of jobs that share resources.
  virtual void finished(std::shared_ptr<Job> self) = 0;

  // Jobs that share any of these run one after another in the order of submission; others may run side by side.
  std::vector<const void*> resources;
  // A queue that keeps what is given to it in order, 0: none. The next job of the same one may start behind a job that has
  // said queued() and waits for the queue to come there; one at a time, as each holds memory.
  int queue = 0;

 protected:
  // In run(): what is left is to wait. The resources are another job's from here on.
  void queued();

 private:
  friend class Scheduler;
  bool queued_ = false;
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
  enum Turn { now, behind, later };
  Turn turn_of(const Job& job, size_t before) const;

  std::mutex mutex_;
  std::condition_variable wake_, ended_;  // drivers without a job; those whose job may not have finished yet
  std::deque<std::shared_ptr<Job>> waiting_;
  std::vector<std::shared_ptr<Job>> running_;
  std::vector<std::thread> drivers_;
  std::atomic<bool> cancelled_{false};
  int idle_ = 0;
  const int limit_;
};

}  // namespace affuse
