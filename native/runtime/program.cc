#include "program.h"

#include <cstring>

#include "cpu.h"
#include "kernels/common/shape.h"

namespace affuse {

namespace {

// A run that is estimated to take longer than this many microseconds on one thread wakes the helpers before it begins.
constexpr double kWorthRousing = 50;

struct Range {
  int buffer;
  size_t begin, end;
  bool overlaps(const Range& other) const { return buffer == other.buffer && begin < other.end && other.begin < end; }
};

Range range_of(const ProgramValue& value) { return {value.buffer, value.offset, value.offset + value.bytes()}; }

}  // namespace

void add_context(Status& status, size_t index, const OpDef& op) {
  char message[sizeof status.message];
  snprintf(message, sizeof message, "instruction %zu (%s): ", index, op.name);
  const size_t used = strlen(message);
  memcpy(message + used, status.message, sizeof message - used);
  message[sizeof message - 1] = 0;
  memcpy(status.message, message, sizeof message);
}

// --- checking ----------------------------------------------------------------------------------------------------------

bool Program::check_value(int index, Status& status) const {
  const ProgramValue& value = spec_.values[size_t(index)];
  const bool known = value.buffer >= -1 && value.buffer < int(spec_.buffers.size());
  const size_t room = !known ? 0 : value.buffer < 0 ? spec_.arena_bytes : spec_.buffers[size_t(value.buffer)]->bytes();
  if (!known || !value.given() || value.offset % kAlignment || value.offset > room || value.bytes() > room - value.offset)
    status.fail("ERR_AFFUSE_PROGRAM",
                "expected value %d %s within its memory at a multiple of %zu, got buffer %d, offset %zu of %zu bytes", index,
                ShapeText(value).text, kAlignment, value.buffer, value.offset, room);
  return status.ok();
}

// A view of a feed is the feed's bytes and nothing else, and nobody writes them.
bool Program::check_feed(int index, Status& status) {
  const ProgramValue& value = spec_.values[size_t(index)];
  feed_of_.push_back(-1);
  if (value.feed == -1) return true;
  for (size_t i = 0; i < spec_.feeds.size(); ++i)
    if (spec_.feeds[i] == value.feed) feed_of_.back() = int(i);
  const ProgramValue* fed = feed_of_.back() < 0 ? nullptr : &spec_.values[size_t(value.feed)];
  if (fed && fed->feed == value.feed && value.buffer < 0 && value.offset == fed->offset && value.bytes() == fed->bytes() &&
      value.dtype == fed->dtype)
    return true;
  status.fail("ERR_AFFUSE_PROGRAM", "expected value %d to be a view of a fed value, got feed %d", index, value.feed);
  return false;
}

bool Program::check_instruction(size_t index, Status& status) {
  const ProgramInstruction& instruction = spec_.instructions[index];
  const OpDef& op = *instruction.op;
  steps_.push_back(Step{&instruction, {}, {}});
  Step& step = steps_.back();
  const int values = int(spec_.values.size());
  TensorDesc in[kMaxInputs];
  for (int i = 0; i < op.input_count; ++i) {
    const int value = instruction.inputs[size_t(i)];
    if (value < -1 || value >= values) {
      status.fail("ERR_AFFUSE_PROGRAM", "expected input %s as a value below %d or -1, got %d", op.inputs[i].name, values,
                  value);
      return false;
    }
    if (value >= 0) in[i] = spec_.values[size_t(value)];
  }
  for (const ScalarBinding& binding : instruction.scalars) {
    const AttrKind kind = op.attrs[binding.attribute].kind;
    if (binding.scalar < 0 || binding.scalar >= spec_.scalars || kind == AttrKind::choice || kind == AttrKind::boolean) {
      status.fail("ERR_AFFUSE_PROGRAM", "expected a numeric attribute and a scalar below %d, got attribute %s and scalar %d",
                  spec_.scalars, op.attrs[binding.attribute].name, binding.scalar);
      return false;
    }
  }
  if (!check_inputs(op, in, spec_.device, status) ||
      !infer_outputs(op, in, instruction.attributes.data(), spec_.device, step.made, status))
    return false;
  if (spec_.device == Device::reference && !op.reference) {
    status.fail("ERR_AFFUSE_DEVICE", "expected an operator with a reference");
    return false;
  }
  for (int i = 0; i < op.output_count; ++i) {
    const int value = instruction.outputs[size_t(i)];
    if (value == -1) continue;
    if (value < 0 || value >= values) {
      status.fail("ERR_AFFUSE_PROGRAM", "expected output %s as a value below %d or -1, got %d", op.outputs[i].name, values,
                  value);
      return false;
    }
    const ProgramValue& target = spec_.values[size_t(value)];
    if (target.feed >= 0) {
      status.fail("ERR_AFFUSE_PROGRAM", "expected output %s in memory of its own, got a fed value", op.outputs[i].name);
      return false;
    }
    // On the reference device a float32 value receives the float64 result rounded.
    const bool fits =
        step.made[i].given() && same_shape(step.made[i], target) &&
        (target.dtype == step.made[i].dtype || (step.made[i].dtype == DType::f64 && target.dtype == DType::f32));
    if (!fits) {
      status.fail("ERR_AFFUSE_PROGRAM", "expected output %s as %s %s, got a value of %s %s", op.outputs[i].name,
                  dtype_name(step.made[i].dtype), ShapeText(step.made[i]).text, dtype_name(target.dtype),
                  ShapeText(target).text);
      return false;
    }
    const Range range = range_of(target);
    for (int j = 0; j < op.input_count; ++j) {
      const int source = instruction.inputs[size_t(j)];
      if (source < 0 || !range.overlaps(range_of(spec_.values[size_t(source)]))) continue;
      const Range other = range_of(spec_.values[size_t(source)]);
      if (alias_of(op, i) == j && other.begin == range.begin && other.end == range.end) continue;
      status.fail("ERR_AFFUSE_OVERLAP", "expected output %s in memory of its own, got memory that overlaps input %s",
                  op.outputs[i].name, op.inputs[j].name);
      return false;
    }
    for (int j = 0; j < i; ++j) {
      const int other = instruction.outputs[size_t(j)];
      if (other < 0 || !range.overlaps(range_of(spec_.values[size_t(other)]))) continue;
      status.fail("ERR_AFFUSE_OVERLAP", "expected outputs %s and %s in separate memory, got overlapping memory",
                  op.outputs[j].name, op.outputs[i].name);
      return false;
    }
  }
  TensorDesc out[kMaxOutputs];
  for (int i = 0; i < op.output_count; ++i)
    if (instruction.outputs[size_t(i)] >= 0 || must_exist(op, i)) out[i] = step.made[i];
  const OpShape shape{in, out, instruction.attributes.data()};
  microseconds_ += estimated_microseconds(op, shape);
  if (!op.pack_bytes || spec_.device != Device::cpu) return true;

  // Weights in persistent memory are packed once per change rather than once per call.
  for (int i = 0; i < op.input_count; ++i) {
    if (!in[i].given()) continue;
    const ProgramValue& value = spec_.values[size_t(instruction.inputs[size_t(i)])];
    const size_t bytes = value.buffer < 0 ? 0 : op.pack_bytes(shape, i);
    if (!bytes) continue;
    step.packed.resize(size_t(op.input_count), nullptr);
    step.packed[size_t(i)] = &spec_.buffers[size_t(value.buffer)]->packed(value.offset, value, op.pack_key(shape, i), bytes);
  }
  return true;
}

// A weight that the program itself changes, packed for one instruction, would be packed anew in every run and never read
// twice: training packs in the workspace, which all instructions share, and the weights lie in memory once.
void Program::keep_no_fleeting_packs() {
  const auto written = [&](const Range& range) {
    for (const Step& step : steps_)
      for (const int output : step.instruction->outputs)
        if (output >= 0 && range.overlaps(range_of(spec_.values[size_t(output)]))) return true;
    return false;
  };
  const auto users = [&](const PackedWeight* weight) {
    size_t count = 0;
    for (const Step& step : steps_)
      for (const PackedWeight* other : step.packed) count += other == weight;
    return count;
  };
  std::vector<PackedWeight*> fleeting;
  for (const Step& step : steps_)
    for (size_t i = 0; i < step.packed.size(); ++i) {
      PackedWeight* weight = step.packed[i];
      if (weight && users(weight) == 1 && written(range_of(spec_.values[size_t(step.instruction->inputs[i])])))
        fleeting.push_back(weight);
    }
  for (Step& step : steps_) {
    bool any = false;
    for (PackedWeight*& weight : step.packed) {
      for (const PackedWeight* other : fleeting)
        if (weight == other) weight = nullptr;
      any |= weight != nullptr;
    }
    if (!any) step.packed.clear();
  }
}

std::shared_ptr<Program> Program::create(ProgramSpec spec, Status& status) {
  auto program = std::shared_ptr<Program>(new Program(std::move(spec)));
  const ProgramSpec& own = program->spec_;
  for (size_t i = 0; i < own.values.size(); ++i)
    if (!program->check_value(int(i), status)) return nullptr;
  for (const auto* list : {&own.feeds, &own.fetches})
    for (int value : *list)
      if (value < 0 || value >= int(own.values.size())) {
        status.fail("ERR_AFFUSE_PROGRAM", "expected feeds and fetches below %zu, got %d", own.values.size(), value);
        return nullptr;
      }
  for (int value : own.feeds)
    if (own.values[size_t(value)].buffer >= 0) {
      status.fail("ERR_AFFUSE_PROGRAM", "expected fed values in the arena, got value %d in a buffer; write() fills buffers",
                  value);
      return nullptr;
    }
  for (size_t i = 0; i < own.values.size(); ++i)
    if (!program->check_feed(int(i), status)) return nullptr;
  program->steps_.reserve(own.instructions.size());
  for (size_t i = 0; i < own.instructions.size(); ++i)
    if (!program->check_instruction(i, status)) {
      add_context(status, i, *own.instructions[i].op);
      return nullptr;
    }
  program->keep_no_fleeting_packs();
  if (own.device.has_backend() && !program->prepare_device(status)) return nullptr;
  return program;
}

// --- running -----------------------------------------------------------------------------------------------------------

char* Program::place_of(const Memory& arena, int index) const {
  const ProgramValue& value = spec_.values[size_t(index)];
  return value.buffer < 0 ? arena.at(value.offset) : spec_.buffers[size_t(value.buffer)]->at(value.offset);
}

char* Program::find(const ProgramRun& run, int value) const {
  const int feed = run.lent.empty() ? -1 : feed_of_[size_t(value)];
  if (feed >= 0 && run.lent[size_t(feed)]) return static_cast<char*>(const_cast<void*>(run.lent[size_t(feed)]));
  return place_of(*run.arena, value);
}

// Memory was laid out for the attributes that the program was made with: a stride or a size must not make other shapes of it.
bool Program::same_results(const Step& step, const Attr* attr, Status& status) const {
  const OpDef& op = step.op();
  TensorDesc in[kMaxInputs], made[kMaxOutputs];
  for (int i = 0; i < op.input_count; ++i)
    if (const int value = step.instruction->inputs[size_t(i)]; value >= 0) in[i] = spec_.values[size_t(value)];
  if (!infer_outputs(op, in, attr, spec_.device, made, status)) return false;
  for (int i = 0; i < op.output_count && status.ok(); ++i)
    if (!same_shape(made[i], step.made[i]))
      status.fail("ERR_AFFUSE_SCALAR", "expected scalars with which output %s of %s is %s as before, got some that make it %s",
                  op.outputs[i].name, op.name, ShapeText(step.made[i]).text, ShapeText(made[i]).text);
  return status.ok();
}

bool Program::bind_scalars(const Step& step, const ProgramRun& run, Attr* attr, Status& status) const {
  const OpDef& op = step.op();
  memcpy(attr, step.instruction->attributes.data(), step.instruction->attributes.size() * sizeof(Attr));
  bool counted = false;
  for (const ScalarBinding& binding : step.instruction->scalars) {
    AttrValue value;
    value.real = run.scalars[size_t(binding.scalar)];
    if (!set_attribute(op, op.attrs[binding.attribute].name, value, attr, status)) return false;
    counted |= op.attrs[binding.attribute].kind == AttrKind::integer;
  }
  return !counted || same_results(step, attr, status);
}

bool Program::pack_inputs(Step& step, const Tensor* in, const Attr* attr, int threads, const void** packed,
                          bool& repacked, Status& status) {
  const OpDef& op = step.op();
  TensorDesc in_desc[kMaxInputs], out_desc[kMaxOutputs];
  bool described = false;
  for (int i = 0; i < op.input_count; ++i) {
    PackedWeight* weight = step.packed[size_t(i)];
    packed[i] = nullptr;
    if (!weight) continue;
    if (!weight->fresh) {
      if (!weight->memory.data() && !weight->memory.map(weight->bytes, "a packed weight", status)) return false;
      if (!described) {
        for (int j = 0; j < op.input_count; ++j) in_desc[j] = in[j];
        for (int j = 0; j < op.output_count; ++j)
          if (step.instruction->outputs[size_t(j)] >= 0 || must_exist(op, j)) out_desc[j] = step.made[j];
        described = true;
      }
      const Crew crew(threads);
      cpu_pack(op)(OpShape{in_desc, out_desc, attr}, i, in[i].data, weight->memory.data(), crew.workers());
      weight->fresh = repacked = true;
    }
    packed[i] = weight->memory.data();
  }
  return true;
}

void Program::execute(Step& step, ProgramRun& run, Scratch& scratch, Status& status) {
  const OpDef& op = step.op();
  Tensor in[kMaxInputs], out[kMaxOutputs];
  const auto place = [&](const std::vector<int>& values, Tensor* tensors) {
    for (size_t i = 0; i < values.size(); ++i) {
      if (values[i] < 0) continue;
      static_cast<TensorDesc&>(tensors[i]) = spec_.values[size_t(values[i])];
      tensors[i].data = tensors[i].count() ? find(run, values[i]) : nullptr;
    }
  };
  place(step.instruction->inputs, in);
  place(step.instruction->outputs, out);
  Attr attr[kMaxAttrs];
  if (!bind_scalars(step, run, attr, status)) return;
  const void* packed[kMaxInputs];
  const bool packs = !step.packed.empty();
  RunRecorder* const recorder = run.recorder;
  const int32_t index = int32_t(&step - steps_.data());
  if (packs) {
    const int64_t from = recorder ? clock_ns() : 0;
    bool repacked = false;
    if (!pack_inputs(step, in, attr, run.threads, packed, repacked, status)) return;
    if (recorder && repacked) recorder->add(kPackStep, from, clock_ns());
  }

  // float64 results for float32 values are made aside and rounded.
  Memory wide[kMaxOutputs];
  void* narrow[kMaxOutputs] = {};
  for (int i = 0; i < op.output_count; ++i) {
    if (!out[i].data || out[i].dtype == step.made[i].dtype) continue;
    narrow[i] = out[i].data;
    out[i].dtype = step.made[i].dtype;
    if (!wide[i].allocate(out[i].bytes(), "a float64 result", status)) return;
    out[i].data = wide[i].data();
  }
  const void* const* given = packs ? packed : nullptr;
  if (!recorder) {
    invoke(op, spec_.device, in, step.made, out, attr, given, run.threads, scratch, status);
  } else {
    TensorDesc made[kMaxOutputs];
    for (int i = 0; i < op.output_count; ++i) made[i] = out[i];
    recorder->begin_step(index);
    const int64_t from = clock_ns();
    invoke(op, spec_.device, in, step.made, out, attr, given, run.threads, scratch, status, recorder->listener());
    const int64_t to = clock_ns();
    if (status.ok()) recorder->add(index, from, to, work_of(op, in, made, attr));
  }
  for (int i = 0; i < op.output_count; ++i) {
    if (!narrow[i] || !status.ok()) continue;
    const int64_t count = out[i].count();
    for (int64_t e = 0; e < count; ++e) static_cast<float*>(narrow[i])[e] = float(out[i].f64()[e]);
  }
  for (const int index : step.instruction->outputs) {
    if (index < 0) continue;
    const ProgramValue& value = spec_.values[size_t(index)];
    if (value.buffer >= 0) spec_.buffers[size_t(value.buffer)]->touched(value.offset, value.bytes());
  }
}

void Program::run(ProgramRun& run, Scratch& scratch, const std::atomic<bool>& cancelled, Status& status) {
  if (device_) return run_on_device(run, cancelled, status);
  for (const auto& buffer : spec_.buffers)
    if (!buffer->to_host(status)) return;
  RunRecorder* const recorder = run.recorder;
  const int64_t begin = recorder ? clock_ns() : 0;
  if (microseconds_ > kWorthRousing) Pool::instance().rouse(run.threads);
  for (size_t i = 0; i < run.feeds.size(); ++i) {
    if (run.feeds[i].data()) memcpy(place_of(*run.arena, spec_.feeds[i]), run.feeds[i].data(), run.feeds[i].bytes());
    run.feeds[i].reset();
  }
  if (recorder && !run.feeds.empty()) recorder->add(kFeedStep, begin, clock_ns());
  for (size_t i = 0; i < steps_.size(); ++i) {
    if (cancelled.load(std::memory_order_relaxed)) return status.fail("ERR_AFFUSE_CANCELLED", "the run was cancelled");
    execute(steps_[i], run, scratch, status);
    if (!status.ok()) return add_context(status, i, steps_[i].op());
  }
  const int64_t computed = recorder ? clock_ns() : 0;
  run.fetches.resize(spec_.fetches.size());
  for (size_t i = 0; i < spec_.fetches.size(); ++i) {
    const ProgramValue& value = spec_.values[size_t(spec_.fetches[i])];
    if (!run.fetches[i].allocate(value.bytes(), "a fetched value", status)) return;
    memcpy(run.fetches[i].data(), find(run, spec_.fetches[i]), value.bytes());
  }
  if (!recorder) return;
  const int64_t end = clock_ns();
  recorder->add(kFetchStep, computed, end);
  recorder->add(kWholeRun, begin, end);
}

}  // namespace affuse
