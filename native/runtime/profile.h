// What programs did, and when: recorded while a Recorder is on, read afterwards.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "invoke.h"

namespace affuse {

class Program;

// Nanoseconds of the steady clock.
int64_t clock_ns();

// One stretch of time on one thread. Instructions count from 0; the other steps of a run are negative.
enum RunStep : int32_t { kWholeRun = -1, kFeedStep = -2, kFetchStep = -3, kPackStep = -4 };
struct Span {
  int32_t step;  // instruction or RunStep
  int64_t begin, end;
  double flops = 0, read = 0, written = 0;  // of an instruction with the lengths that this run had; bytes
};
// One task of a parallel region: `worker` as in Workers, 0 being the thread that runs the program.
struct TaskSpan {
  int32_t step, worker;
  int64_t begin, end;
};

// The work of a call. FLOPs by the operator's formula, bytes as every input read once and every wanted output written once.
// Operators with an input `lengths` do no work for padding and read none: their figures are those of the frames that
// there are.
struct Work {
  double flops, read, written;
};
Work work_of(const OpDef& op, const Tensor* in, const TensorDesc* out, const Attr* attr);

// A finished run.
struct RunRecord {
  std::shared_ptr<const Program> program;
  std::vector<Span> spans;
  std::vector<TaskSpan> tasks;
};

// Records one run; made by the run, handed to the Recorder at its end.
class RunRecorder final : public TaskListener {
 public:
  RunRecorder(bool tasks, int threads) : with_tasks_(tasks), lanes_(size_t(tasks ? threads : 0)) {}

  void add(int32_t step, int64_t begin, int64_t end, Work work = {0, 0, 0}) {
    spans_.push_back({step, begin, end, work.flops, work.read, work.written});
  }
  void begin_step(int32_t step) { step_ = step; }
  TaskListener* listener() { return with_tasks_ ? this : nullptr; }
  // A worker number has one user at a time, and regions follow one another.
  void ran(int worker, int64_t begin, int64_t end) override {
    std::vector<TaskSpan>& lane = lanes_[size_t(worker)];
    if (lane.size() < kMostTasks) lane.push_back({step_, worker, begin, end});
  }
  RunRecord finish(std::shared_ptr<const Program> program);

 private:
  static constexpr size_t kMostTasks = 200000;  // per worker and run: 6 MB
  bool with_tasks_;
  int32_t step_ = 0;
  std::vector<Span> spans_;
  std::vector<std::vector<TaskSpan>> lanes_;  // per worker
};

// Collects the runs of an environment from start to stop. Any thread.
class Recorder {
 public:
  explicit Recorder(bool tasks) : tasks(tasks), started(clock_ns()) {}
  void add(RunRecord record) {
    std::lock_guard lock(mutex_);
    runs_.push_back(std::move(record));
  }
  std::vector<RunRecord> take() {
    std::lock_guard lock(mutex_);
    return std::exchange(runs_, {});
  }

  const bool tasks;
  const int64_t started;
  std::atomic<int> pending{0};  // runs submitted and not yet added

 private:
  std::mutex mutex_;
  std::vector<RunRecord> runs_;
};

}  // namespace affuse
