#include "pool.h"

#include <chrono>
#include <system_error>
#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

#include "placement.h"

namespace affuse {
namespace {

// How long a helper that ran out of work, or a caller that waits for its last helper, looks for news before it sleeps:
// about the cost of waking up, so at most twice the best choice is ever paid.
constexpr auto kSpin = std::chrono::microseconds(50);

inline void pause_briefly() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

// Spins until done() or the time is up; says whether done() held.
template <class F>
bool spin_until(F&& done) {
  const auto deadline = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int i = 0; i < 64; ++i) {
      if (done()) return true;
      pause_briefly();
    }
  } while (std::chrono::steady_clock::now() < deadline);
  return done();
}

int64_t steady_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::atomic<Pool*> current{nullptr};

// After fork() the child has the pool's memory but not its threads: it forgets that pool and makes one when it needs one.
void forget_in_child() { current.store(nullptr); }

}  // namespace

Pool& Pool::instance() {
  Pool* pool = current.load(std::memory_order_acquire);
  if (pool) return *pool;
  static std::mutex making;
  std::lock_guard lock(making);
  pool = current.load(std::memory_order_acquire);
  if (!pool) {
    // Never destroyed: helpers may sleep on it until the process ends.
    pool = new Pool;
    remember_processors();
    current.store(pool, std::memory_order_release);
#if defined(__unix__) || defined(__APPLE__)
    static std::once_flag once;
    std::call_once(once, [] { pthread_atfork(nullptr, nullptr, forget_in_child); });
#endif
  }
  return *pool;
}

void Pool::run(int count, int64_t tasks, Task task, void* arg, bool wake) {
  if (tasks <= 0) return;
  const int useful = tasks < count ? int(tasks) : count;
  Job job{.task = task, .arg = arg, .tasks = tasks, .count = useful};
  if (useful <= 1) return drain(job, 0);
  // Nobody awake and nobody to be woken.
  if (!wake && parked_.load(std::memory_order_relaxed) >= helper_count_.load(std::memory_order_relaxed))
    return drain(job, 0);
  if (wake && helper_count_.load(std::memory_order_relaxed) < useful - 1) start_helpers(useful - 1);
  int sleepers = 0;
  {
    std::lock_guard lock(mutex_);
    job.following = open_;
    open_ = &job;
    epoch_.fetch_add(1, std::memory_order_release);
    if (wake) sleepers = sleeping(useful - 1);
  }
  if (sleepers) make_way();
  for (int i = 0; i < sleepers; ++i) wake_.notify_one();
  drain(job, 0);
  {
    std::lock_guard lock(mutex_);
    Job** link = &open_;
    while (*link != &job) link = &(*link)->following;
    *link = job.following;
  }
  // No helper can join any more; those inside finish the task they hold.
  const auto alone = [&] { return job.helpers.load(std::memory_order_seq_cst) == 0; };
  if (spin_until(alone)) return;
  waiting_callers_.fetch_add(1, std::memory_order_seq_cst);
  {
    std::unique_lock lock(mutex_);
    done_.wait(lock, alone);
  }
  waiting_callers_.fetch_sub(1, std::memory_order_seq_cst);
}

// How many of `wanted` helpers would have to be woken; under the mutex.
int Pool::sleeping(int wanted) const {
  const int parked = parked_.load(std::memory_order_relaxed);
  return parked < wanted ? parked : wanted;
}

// Before helpers are woken: sees to it that they do not wake on this thread's processor. Costs a look at its number
// unless this thread has moved.
void Pool::make_way() {
  const int here = this_processor();
  if (here == callers_processor_.load(std::memory_order_relaxed)) return;
  std::unique_lock lock(growth_, std::try_to_lock);
  if (!lock) return;
  keep_off(threads_, here);
  callers_processor_.store(here, std::memory_order_relaxed);
}

void Pool::rouse(int count) {
  if (count <= 1) return;
  if (helper_count_.load(std::memory_order_relaxed) < count - 1) start_helpers(count - 1);
  int sleepers;
  {
    std::lock_guard lock(mutex_);
    sleepers = sleeping(count - 1);
    if (sleepers) epoch_.fetch_add(1, std::memory_order_release);
  }
  if (sleepers) make_way();
  for (int i = 0; i < sleepers; ++i) wake_.notify_one();
}

void Pool::drain(Job& job, int slot) {
  for (;;) {
    const int64_t index = job.next.fetch_add(1, std::memory_order_relaxed);
    if (index >= job.tasks) return;
    job.task(job.arg, index, slot);
  }
}

// Under the mutex: the open job with the fewest helpers that still has tasks and a free worker number.
Pool::Job* Pool::join_a_job(int& slot) {
  Job* best = nullptr;
  int fewest = 0;
  for (Job* job = open_; job; job = job->following) {
    if (job->slots >= job->count || job->next.load(std::memory_order_relaxed) >= job->tasks) continue;
    const int helpers = job->helpers.load(std::memory_order_relaxed);
    if (!best || helpers < fewest) {
      best = job;
      fewest = helpers;
    }
  }
  if (best) {
    best->helpers.fetch_add(1, std::memory_order_relaxed);
    slot = best->slots++;
  }
  return best;
}

// The job may be gone the moment its count reaches zero: nothing of it is touched afterwards.
void Pool::leave(Job& job) {
  if (job.helpers.fetch_sub(1, std::memory_order_seq_cst) != 1) return;
  if (waiting_callers_.load(std::memory_order_seq_cst) == 0) return;
  { std::lock_guard lock(mutex_); }  // a caller between its check and its wait must be asleep before the call
  done_.notify_all();
}

void Pool::work() {
  become_helper();
  for (;;) {
    Job* job;
    int slot = 0;
    {
      std::unique_lock lock(mutex_);
      while (!(job = join_a_job(slot))) {
        if (stopping_.load(std::memory_order_relaxed)) return;
        const uint64_t seen = epoch_.load(std::memory_order_relaxed);
        const auto news = [&] {
          return epoch_.load(std::memory_order_acquire) != seen || stopping_.load(std::memory_order_relaxed);
        };
        lock.unlock();
        const bool awake = spin_until(news);
        lock.lock();
        if (awake) continue;
        ++parked_;
        wake_.wait(lock, news);
        --parked_;
      }
    }
    drain(*job, slot);
    leave(*job);
  }
}

void Pool::start_helpers(int wanted) {
  std::lock_guard lock(growth_);
  try {
    while (int(threads_.size()) < wanted) threads_.emplace_back([this] { work(); });
  } catch (const std::system_error&) {
    // The system gives no more threads: the call goes on with those there are, the result is the same.
  }
  helper_count_.store(int(threads_.size()), std::memory_order_relaxed);
  callers_processor_.store(-1, std::memory_order_relaxed);  // the new ones may run anywhere yet
}

void Pool::stop() {
  std::lock_guard lock(growth_);
  {
    std::lock_guard inner(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
  helper_count_ = 0;
  stopping_ = false;
}

void Crew::run_watched(void* self, int64_t tasks, Pool::Task task, void* arg) {
  struct Watched {
    Pool::Task task;
    void* arg;
    TaskListener& listener;
  } watched{task, arg, *static_cast<Crew*>(self)->listener_};
  run(self, tasks, [](void* to, int64_t index, int worker) {
    const Watched& w = *static_cast<Watched*>(to);
    const int64_t begin = steady_ns();
    w.task(w.arg, index, worker);
    w.listener.ran(worker, begin, steady_ns());
  }, &watched);
}

}  // namespace affuse
