// A program: a fixed list of operator calls over an arena and shared buffers, checked once and run many times.
#pragma once
#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "buffer.h"
#include "invoke.h"
#include "profile.h"

namespace affuse {

struct ProgramValue : TensorDesc {
  int buffer = -1;    // index into ProgramSpec::buffers; -1: the arena
  size_t offset = 0;  // bytes, multiple of kAlignment
  // In the arena: the fed value whose bytes these are (itself or one that it is a view of), for feeds that a run may read
  // where their owner has them. -1: none.
  int feed = -1;
};

struct ScalarBinding {
  int attribute;
  int scalar;
};

struct ProgramInstruction {
  const OpDef* op = nullptr;
  std::vector<int> inputs, outputs;  // indexes into values, -1: absent; as many as the operator has
  std::vector<Attr> attributes;      // as many as the operator has
  std::vector<ScalarBinding> scalars;
};

// What a front end hands over; Program::create checks all of it.
struct ProgramSpec {
  Device device = Device::cpu;
  size_t arena_bytes = 0;
  std::vector<std::shared_ptr<Buffer>> buffers;
  std::vector<ProgramValue> values;
  std::vector<ProgramInstruction> instructions;
  std::vector<int> feeds, fetches;
  int scalars = 0;
};

// One execution: its inputs and, afterwards, its results.
struct ProgramRun {
  Memory* arena = nullptr;      // at least arena_bytes, the run's own while it lasts
  std::vector<Memory> feeds;    // in the order of ProgramSpec::feeds; one without data was put into the arena already
  // Likewise; where a feed lies if it was not copied. Empty: none is lent.
  std::vector<const void*> lent;
  std::vector<double> scalars;
  std::vector<Memory> fetches;  // filled by Program::run
  // Told when a run on a device is queued there whole, and leaves the program and its buffers to the next; may be none.
  std::function<void()> queued;
  int threads = 1;
  RunRecorder* recorder = nullptr;  // null: nothing is timed
};

// Prefixes an operator's message with its place in the program.
void add_context(Status& status, size_t index, const OpDef& op);

class Program {
 public:
  // ERR_AFFUSE_PROGRAM, or the operator's own code, with the instruction named.
  static std::shared_ptr<Program> create(ProgramSpec spec, Status& status);

  const ProgramSpec& spec() const { return spec_; }
  // Whether this feed may be lent: its value and the views of it say so.
  bool lendable(size_t feed) const { return spec_.values[size_t(spec_.feeds[feed])].feed >= 0; }
  // Where a feed lives in an arena.
  char* place_of(const Memory& arena, int value) const;

  // Runs everything once. The first failing instruction ends the run; buffers keep what was written before it. A set
  // `cancelled` ends the run at the next instruction with ERR_AFFUSE_CANCELLED.
  void run(ProgramRun& run, Scratch& scratch, const std::atomic<bool>& cancelled, Status& status);
  ~Program();

 private:
  // An instruction with everything that does not change between runs worked out.
  struct Step {
    const ProgramInstruction* instruction;
    TensorDesc made[kMaxOutputs];       // what infer says of each output
    std::vector<PackedWeight*> packed;  // per input, null: not packed. Empty: nothing of this step is
    const OpDef& op() const { return *instruction->op; }
  };

  explicit Program(ProgramSpec spec);
  bool check_value(int index, Status& status) const;
  bool check_feed(int index, Status& status);
  char* find(const ProgramRun& run, int value) const;
  bool check_instruction(size_t index, Status& status);
  void keep_no_fleeting_packs();
  bool bind_scalars(const Step& step, const ProgramRun& run, Attr* attr, Status& status) const;
  bool same_results(const Step& step, const Attr* attr, Status& status) const;
  bool pack_inputs(Step& step, const Tensor* in, const Attr* attr, int threads, const void** packed, bool& repacked,
                   Status& status);
  void execute(Step& step, ProgramRun& run, Scratch& scratch, Status& status);

  ProgramSpec spec_;
  std::vector<Step> steps_;
  std::vector<int> feed_of_;  // per value the place of its feed in ProgramSpec::feeds, -1: none
  // On a device with a backend (program_device.cc).
  struct OnDevice;
  bool prepare_device(Status& status);
  void validate_feeds(const ProgramRun& run, Status& status) const;
  void validate_step(size_t index, const ProgramRun& run, const std::vector<std::vector<char>>& stored, Status& status) const;
  void run_on_device(ProgramRun& run, const std::atomic<bool>& cancelled, Status& status);
  Work work_on_device(size_t step, const ProgramRun& run) const;
  // A feed's bytes in host memory.
  static const void* fed(const ProgramRun& run, int feed) {
    const bool lent = !run.lent.empty() && run.lent[size_t(feed)];
    return lent ? run.lent[size_t(feed)] : run.feeds[size_t(feed)].data();
  }

  std::unique_ptr<OnDevice> device_;
  double microseconds_ = 0;  // a rough estimate of one run on one thread
};

}  // namespace affuse
