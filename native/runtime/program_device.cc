// Programs on a device. Their arena, workspace and buffers are device memory; feeds are copied in, fetches out. The first
// run queues operator after operator and so finds errors where they are; the second records the launches, and from then
// on a run is one replay, before which the steps whose attributes follow scalars (learning rate, step) get new arguments.
// What a run fetches is copied into page-locked memory behind its launches. It leaves the program to the next run when all
// that is queued, and waits for no more than its own mark: so the device has a step to go on with when one ends, and two
// runs of a program have an arena each, with a recording.
#include <algorithm>
#include <cstring>
#include <iterator>

#include "backends.h"
#include "program.h"

namespace affuse {

struct Program::OnDevice {
  std::vector<int> operators;  // of each step, in the library
  std::vector<size_t> checked;  // steps whose lengths, labels or widths lie in buffers: each run waits for the queue
  size_t workspace = 0, spare = 0;  // bytes of the largest step: scratch; outputs that nobody reads but the kernel writes
  bool ran = false;
  struct Recorded {
    std::unique_ptr<Recording> recording;
    std::vector<const char*> bases;  // arena and buffers as recorded
  };
  Recorded recorded[2];
  int oldest = 0;
};

namespace {

constexpr size_t kUnit = 256;
size_t rounded(size_t bytes) { return (bytes + kUnit - 1) / kUnit * kUnit; }

}  // namespace

Program::Program(ProgramSpec spec) : spec_(std::move(spec)) {}
Program::~Program() = default;

bool Program::prepare_device(Status& status) {
  const DeviceLock backend = lock_device(spec_.device, status);
  if (!backend) return false;
  device_ = std::make_unique<OnDevice>();
  for (const Step& step : steps_) {
    const OpDef& op = step.op();
    device_->operators.push_back(backend->find(op.name));
    if (device_->operators.back() < 0) {
      status.fail("ERR_AFFUSE_DEVICE", "expected operators with CUDA kernels, got %s, which has none yet. Use cpu.",
                  op.name);
      return false;
    }
    TensorDesc in[kMaxInputs], out[kMaxOutputs];
    size_t spare = 0;
    for (int i = 0; i < op.input_count; ++i)
      if (const int value = step.instruction->inputs[size_t(i)]; value >= 0) in[i] = spec_.values[size_t(value)];
    for (int i = 0; i < op.output_count; ++i) {
      const bool wanted = step.instruction->outputs[size_t(i)] >= 0;
      if (!step.made[i].given() || !(wanted || must_exist(op, i))) continue;
      out[i] = step.made[i];
      if (!wanted) spare += rounded(out[i].bytes());
    }
    const size_t workspace =
        backend->workspace(device_->operators.back(), OpShape{in, out, step.instruction->attributes.data()});
    const auto stored = [&](int value) {
      return value >= 0 && spec_.values[size_t(value)].buffer >= 0 && spec_.values[size_t(value)].dtype == DType::i32;
    };
    if (op.validate && std::any_of(step.instruction->inputs.begin(), step.instruction->inputs.end(), stored))
      device_->checked.push_back(size_t(&step - steps_.data()));
    device_->workspace = std::max(device_->workspace, rounded(workspace));
    device_->spare = std::max(device_->spare, spare);
  }
  return true;
}

// Lengths, labels and widths are checked on the host: as they are fed, or as `stored` has them, those of each input that
// lies in a buffer. Those that operators make follow from them.
void Program::validate_step(size_t index, const ProgramRun& run, const std::vector<std::vector<char>>& stored,
                            Status& status) const {
  const OpDef& op = steps_[index].op();
  Tensor in[kMaxInputs], out[kMaxOutputs];
  for (int i = 0; i < op.input_count; ++i) {
    const int value = steps_[index].instruction->inputs[size_t(i)];
    if (value < 0) continue;
    static_cast<TensorDesc&>(in[i]) = spec_.values[size_t(value)];
    const int feed = feed_of_[size_t(value)];
    if (feed >= 0) in[i].data = const_cast<void*>(fed(run, feed));
    else if (size_t(i) < stored.size() && !stored[size_t(i)].empty()) in[i].data = const_cast<char*>(stored[size_t(i)].data());
    else if (in[i].dtype == DType::i32 && in[i].count()) return;
  }
  OpCall call;
  call.in = in;
  call.out = out;
  call.attr = steps_[index].instruction->attributes.data();
  op.validate(call, status);
  if (!status.ok()) add_context(status, index, op);
}
void Program::validate_feeds(const ProgramRun& run, Status& status) const {
  for (size_t index = 0; index < steps_.size() && status.ok(); ++index)
    if (steps_[index].op().validate) validate_step(index, run, {}, status);
}

void Program::run_on_device(ProgramRun& run, const std::atomic<bool>& cancelled, Status& status) {
  RunRecorder* const recorder = run.recorder;
  const int64_t begin = recorder ? clock_ns() : 0;
  validate_feeds(run, status);
  std::vector<size_t> places;  // of what is fetched, in the slot
  size_t fetched = 0;
  run.fetches.resize(spec_.fetches.size());
  for (size_t i = 0; i < spec_.fetches.size() && status.ok(); ++i) {
    const size_t bytes = spec_.values[size_t(spec_.fetches[i])].bytes();
    run.fetches[i].allocate(bytes, "a fetched value", status);
    places.push_back(fetched);
    fetched += rounded(bytes);
  }
  for (const auto& buffer : spec_.buffers)
    if (status.ok()) buffer->off_others(spec_.device, status);
  if (!status.ok()) return;
  DeviceBlock block(spec_.device);  // before the lock, so that it is given back after it
  DeviceLock backend = lock_device(spec_.device, status);
  if (!backend) return;
  OnDevice& own = *device_;
  const size_t arena = rounded(spec_.arena_bytes), bytes = arena + own.workspace + own.spare;
  std::vector<const char*> bases;
  const auto fits = [&](const auto& recorded) { return recorded.recording && recorded.bases == bases; };
  OnDevice::Recorded* kept;
  for (;;) {  // all the memory that the run needs, or none
    Status tried;
    bases.clear();
    if (block.allocate(backend, bytes, "a program's arena", tried)) bases.push_back(block.data);
    for (size_t i = 0; i < spec_.buffers.size() && tried.ok(); ++i)
      bases.push_back(spec_.buffers[i]->on(spec_.device, backend, tried));
    kept = std::find_if(std::begin(own.recorded), std::end(own.recorded), fits);
    const bool anew = recorder || !own.ran || kept == std::end(own.recorded);
    if (tried.ok() && anew && backend.cramped())
      tried.fail("ERR_AFFUSE_DEVICE_MEMORY", "expected device memory for launches, got almost none");
    if (tried.ok()) break;
    block.give_back(backend);
    if (backend.wait_for_memory(tried)) continue;
    status = tried;
    return;
  }
  if (fetched) block.slot = backend->make_slot(fetched);
  if (poisoning()) {
    backend->fill(block.data, 0xff, bytes, status);
    backend->finish(status);
  }
  backend.pause();  // what runs before may end, and others may queue, while feeds travel
  for (size_t i = 0; i < spec_.feeds.size() && status.ok(); ++i) {
    const ProgramValue& value = spec_.values[size_t(spec_.feeds[i])];
    backend->feed(block.data + value.offset, fed(run, int(i)), value.bytes(), status);
  }
  backend.resume();
  backend->await_feeds(status);
  // Nothing of this run is queued when its arena goes back, which could not be another run's otherwise.
  const auto settle = [&] {
    Status ignored;
    if (!status.ok()) backend->finish(ignored);
    block.idle = true;
  };
  if (!status.ok()) return settle();
  const auto at = [&](int value) {
    const ProgramValue& v = spec_.values[size_t(value)];
    return const_cast<char*>(bases[size_t(v.buffer + 1)]) + v.offset;
  };
  for (const size_t index : own.checked) {
    const auto& inputs = steps_[index].instruction->inputs;
    std::vector<std::vector<char>> stored(inputs.size());
    for (size_t i = 0; i < inputs.size() && status.ok(); ++i) {
      if (inputs[i] < 0) continue;
      const ProgramValue& value = spec_.values[size_t(inputs[i])];
      if (value.buffer < 0 || value.dtype != DType::i32) continue;
      stored[i].resize(value.bytes());
      backend->copy_out(stored[i].data(), at(inputs[i]), value.bytes(), status);
    }
    if (status.ok()) validate_step(index, run, stored, status);
    if (!status.ok()) return settle();
  }
  if (recorder && status.ok()) {
    backend->finish(status);
    recorder->add(kFeedStep, begin, clock_ns());
  }

  // Calls go(index, call, …) with the step's tensors and the attributes of this run.
  const auto with_call = [&](size_t index, auto&& go) {
    const Step& step = steps_[index];
    const OpDef& op = step.op();
    Tensor in[kMaxInputs], out[kMaxOutputs];
    for (int i = 0; i < op.input_count; ++i) {
      const int value = step.instruction->inputs[size_t(i)];
      if (value < 0) continue;
      static_cast<TensorDesc&>(in[i]) = spec_.values[size_t(value)];
      if (in[i].count()) in[i].data = at(value);
    }
    char* spare = block.data + arena + own.workspace;
    bool anything = false;
    for (int i = 0; i < op.output_count; ++i) {
      const int value = step.instruction->outputs[size_t(i)];
      if (value < 0 && !(step.made[i].given() && must_exist(op, i))) continue;
      static_cast<TensorDesc&>(out[i]) = step.made[i];
      if (out[i].count() == 0) continue;
      anything = true;
      out[i].data = value >= 0 ? at(value) : spare;
      if (value < 0) spare += rounded(out[i].bytes());
    }
    Attr attr[kMaxAttrs];
    if (!bind_scalars(step, run, attr, status)) return add_context(status, index, op);
    if (!step.instruction->scalars.empty()) {  // scratch was laid out for what they were when the program was made
      TensorDesc from[kMaxInputs], to[kMaxOutputs];
      std::copy(in, in + op.input_count, from);
      std::copy(out, out + op.output_count, to);
      const size_t wanted = backend->workspace(own.operators[index], OpShape{from, to, attr});
      if (wanted > own.workspace)
        status.fail("ERR_AFFUSE_SCALAR", "expected scalars with which %s needs %zu bytes of scratch at most, got some that make it %zu",
                    op.name, own.workspace, wanted);
      if (!status.ok()) return add_context(status, index, op);
    }
    if (!anything) return;
    OpCall call;
    call.in = in;
    call.out = out;
    call.attr = attr;
    call.workspace = own.workspace ? block.data + arena : nullptr;
    go(call);
    if (!status.ok()) add_context(status, index, op);
  };
  const auto each = [&](auto&& go) {
    for (size_t i = 0; i < steps_.size() && status.ok(); ++i) with_call(i, [&](const OpCall& call) { go(i, call); });
  };

  if (recorder || !own.ran) {
    each([&](size_t i, const OpCall& call) {
      if (cancelled.load(std::memory_order_relaxed)) return status.fail("ERR_AFFUSE_CANCELLED", "the run was cancelled");
      const int64_t from = recorder ? clock_ns() : 0;
      backend->run(own.operators[i], call, status);
      if (!recorder || !status.ok()) return;
      backend->finish(status);  // a profiled run waits for every operator
      recorder->add(int32_t(i), from, clock_ns(), work_on_device(i, run));
    });
    own.ran = status.ok();
  } else if (status.ok()) {
    if (kept != std::end(own.recorded)) {
      each([&](size_t i, const OpCall& call) {
        if (steps_[i].instruction->scalars.empty()) return;
        backend->update(*kept->recording, int(i), own.operators[i], call, status);
      });
    } else {
      kept = &own.recorded[own.oldest];
      own.oldest ^= 1;
      kept->recording.reset();
      backend->begin_recording(status);
      each([&](size_t i, const OpCall& call) {
        backend->name_step(int(i));
        backend->run(own.operators[i], call, status);
      });
      kept->recording.reset(backend->end_recording(status));
      kept->bases = bases;
    }
    if (kept->recording && status.ok()) backend->replay(*kept->recording, status);
    if (!status.ok()) kept->recording.reset();
  }

  const int64_t computed = recorder ? clock_ns() : 0;
  for (size_t i = 0; i < spec_.fetches.size() && status.ok(); ++i) {
    const char* const from = at(spec_.fetches[i]);
    if (block.slot) backend->fetch(static_cast<char*>(block.slot) + places[i], from, run.fetches[i].bytes(), status);
    else backend->copy_out(run.fetches[i].data(), from, run.fetches[i].bytes(), status);
  }
  if (void* const mark = status.ok() ? backend->mark(status) : nullptr) {
    backend.pause();
    if (run.queued) run.queued();  // from here on program and buffers are the next run's
    backend->wait(mark, status);
    for (size_t i = 0; i < places.size() && block.slot && status.ok(); ++i)
      memcpy(run.fetches[i].data(), static_cast<const char*>(block.slot) + places[i], run.fetches[i].bytes());
    backend.resume();
  }
  settle();
  block.end(backend);
  if (!recorder) return;
  const int64_t end = clock_ns();
  recorder->add(kFetchStep, computed, end);
  recorder->add(kWholeRun, begin, end);
}

Work Program::work_on_device(size_t index, const ProgramRun& run) const {
  const Step& step = steps_[index];
  const OpDef& op = step.op();
  Tensor in[kMaxInputs];
  TensorDesc out[kMaxOutputs];
  for (int i = 0; i < op.input_count; ++i) {
    const int value = step.instruction->inputs[size_t(i)];
    if (value < 0) continue;
    static_cast<TensorDesc&>(in[i]) = spec_.values[size_t(value)];
    const int feed = feed_of_[size_t(value)];
    if (feed >= 0) in[i].data = const_cast<void*>(fed(run, feed));  // lengths say how much of a clip is there
  }
  for (int i = 0; i < op.output_count; ++i)
    if (step.instruction->outputs[size_t(i)] >= 0) out[i] = step.made[i];
  return work_of(op, in, out, step.instruction->attributes.data());
}

}  // namespace affuse
