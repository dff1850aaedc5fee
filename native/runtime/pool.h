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
  // has the fewest. A call never waits for a helper to become free.
  void run(int count, int64_t tasks, Task task, void* arg);

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
  Job* join_a_job(int& slot);
  static void drain(Job& job, int slot);
  void leave(Job& job);

  std::mutex mutex_;
  std::condition_variable wake_;  // helpers wait here for jobs
  std::condition_variable done_;  // callers wait here for their last helper
  Job* open_ = nullptr;
  std::atomic<uint64_t> epoch_{0};  // counts jobs, so that a spinning helper sees a new one without the mutex
  std::atomic<int> waiting_callers_{0};
  int parked_ = 0;
  std::atomic<bool> stopping_{false};
  std::atomic<int> helper_count_{0};
  std::mutex growth_;  // guards threads_
  std::vector<std::thread> threads_;
};

// Workers of one call, for kernels.
class Crew {
 public:
  explicit Crew(int threads) : workers_{threads, this, &Crew::run} {}
  Crew(const Crew&) = delete;
  Crew& operator=(const Crew&) = delete;
  const Workers& workers() const { return workers_; }

 private:
  static void run(void* self, int64_t tasks, Pool::Task task, void* arg) {
    Pool::instance().run(static_cast<Crew*>(self)->workers_.count, tasks, task, arg);
  }
  Workers workers_;
};

}  // namespace affuse
