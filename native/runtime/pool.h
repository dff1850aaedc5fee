// The process's one thread pool. Whoever has tasks also works on them; helpers join in as they are free.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include "kernels/common/op.h"

namespace affuse {

class Pool {
 public:
  using Task = void (*)(void* arg, int64_t index, int worker);

  static Pool& instance();

  // Calls task(arg, index, worker) for every index in [0, tasks) on at most `count` threads, the caller among them (as
  // worker 0), and returns when all are done. Any number of threads may call this at once; helpers go to the call that
  // has the fewest. A call never waits for a helper to become free. Without `wake` it takes those helpers that are awake
  // and wakes none: for work that would be over before they come (waking takes some 5 us, and 2 us of the caller's time).
  void run(int count, int64_t tasks, Task task, void* arg, bool wake = true);

  // Wakes the helpers of `count` threads ahead of work that comes in many small pieces.
  void rouse(int count);

  // Ends and joins every helper; the next run starts new ones. No run may be in progress.
  void stop();

 private:
  struct Job {
    Task task;
    void* arg;
    int64_t tasks;
    int count;
    std::atomic<int64_t> next{0};
    std::atomic<int> helpers{0};  // inside right now; joins only under the pool's mutex
    int slots = 1;                // worker numbers given out; under the mutex
    Job* following = nullptr;     // list of open jobs; under the mutex
  };

  void work();
  void start_helpers(int wanted);
  void make_way();
  int sleeping(int wanted) const;
  Job* join_a_job(int& slot);
  static void drain(Job& job, int slot);
  void leave(Job& job);

  std::mutex mutex_;
  std::condition_variable wake_;  // helpers wait here for jobs
  std::condition_variable done_;  // callers wait here for their last helper
  Job* open_ = nullptr;
  std::atomic<uint64_t> epoch_{0};  // counts jobs, so that a spinning helper sees a new one without the mutex
  std::atomic<int> waiting_callers_{0};
  std::atomic<int> parked_{0};  // changes under the mutex
  std::atomic<bool> stopping_{false};
  std::atomic<int> helper_count_{0};
  std::atomic<int> callers_processor_{-1};  // which one the helpers are kept off
  std::mutex growth_;                       // guards threads_
  std::vector<std::thread> threads_;
};

// Sees every task of a call: what a profiler listens to.
class TaskListener {
 public:
  // On the thread that ran the task; times in nanoseconds of the steady clock.
  virtual void ran(int worker, int64_t begin, int64_t end) = 0;

 protected:
  ~TaskListener() = default;
};

// Workers of one call, for kernels.
class Crew {
 public:
  // wake: as in Pool::run. listener: null, or told of every task.
  explicit Crew(int threads, bool wake = true, TaskListener* listener = nullptr)
      : workers_{threads, this, listener ? &Crew::run_watched : &Crew::run}, wake_(wake), listener_(listener) {}
  Crew(const Crew&) = delete;
  Crew& operator=(const Crew&) = delete;
  const Workers& workers() const { return workers_; }

 private:
  static void run(void* self, int64_t tasks, Pool::Task task, void* arg) {
    const Crew& crew = *static_cast<Crew*>(self);
    Pool::instance().run(crew.workers_.count, tasks, task, arg, crew.wake_);
  }
  static void run_watched(void* self, int64_t tasks, Pool::Task task, void* arg);
  Workers workers_;
  const bool wake_;
  TaskListener* const listener_;
};

}  // namespace affuse
