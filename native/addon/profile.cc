// startProfile and stopProfile: what the environment's programs did in between.
#include "native/runtime/profile.h"

#include <cstring>
#include <map>
#include <string>

#include "addon.h"
#include "instance.h"
#include "native/runtime/program.h"

namespace affuse::addon {
namespace {

// An array of doubles in JavaScript's memory, and where to write them.
napi_value doubles(napi_env env, size_t count, double** data) {
  void* memory = nullptr;
  napi_value buffer, array;
  require(napi_create_arraybuffer(env, count * sizeof(double), &memory, &buffer));
  require(napi_create_typedarray(env, napi_float64_array, count, buffer, 0, &array));
  *data = static_cast<double*>(memory);
  return array;
}

// "x[32,200,1024] W[256,1024]"
std::string shapes(const Program& program, const ProgramInstruction& instruction) {
  std::string text;
  for (size_t i = 0; i < instruction.inputs.size(); ++i) {
    if (instruction.inputs[i] < 0) continue;
    const TensorDesc& desc = program.spec().values[size_t(instruction.inputs[i])];
    if (!text.empty()) text += ' ';
    text += instruction.op->inputs[i].name;
    text += '[';
    for (int d = 0; d < desc.rank; ++d) {
      if (d) text += ',';
      text += std::to_string(desc.dim[d]);
    }
    text += ']';
  }
  return text;
}

// Whether an output lies where an input lies: what it writes was read before.
bool in_place(const Program& program, const ProgramInstruction& instruction) {
  for (int out : instruction.outputs)
    for (int in : instruction.inputs) {
      if (out < 0 || in < 0) continue;
      const ProgramValue &a = program.spec().values[size_t(out)], &b = program.spec().values[size_t(in)];
      if (a.buffer == b.buffer && a.offset == b.offset) return true;
    }
  return false;
}

napi_value describe(napi_env env, const Program& program) {
  napi_value list = make_array(env, program.spec().instructions.size());
  uint32_t i = 0;
  for (const ProgramInstruction& instruction : program.spec().instructions) {
    const Scope scope(env);
    napi_value entry = make_object(env);
    set(env, entry, "op", make(env, instruction.op->name));
    set(env, entry, "shapes", make(env, shapes(program, instruction).c_str()));
    set(env, entry, "inPlace", make(env, in_place(program, instruction)));
    set(env, list, i++, entry);
  }
  return list;
}

}  // namespace

napi_value start_profile(napi_env env, napi_callback_info info) {
  return guarded(env, [&]() -> napi_value {
    const Arguments args(env, info);
    Instance& instance = Instance::of(env);
    if (instance.recorder) raise("ERR_AFFUSE_BUSY", "expected no profile in progress, got one; stopProfile() ends it");
    bool tasks = false;
    if (!is_nullish(env, args[0]) && napi_get_value_bool(env, args[0], &tasks) != napi_ok)
      raise("ERR_AFFUSE_ATTRIBUTE", "expected tasks as true or false");
    instance.recorder = std::make_shared<Recorder>(tasks);
    return undefined(env);
  });
}

napi_value stop_profile(napi_env env, napi_callback_info info) {
  return guarded(env, [&]() -> napi_value {
    Arguments(env, info);
    Instance& instance = Instance::of(env);
    if (!instance.recorder)
      raise("ERR_AFFUSE_PROFILE", "expected a profile in progress, got none; startProfile() begins one");
    if (const int pending = instance.recorder->pending.load(std::memory_order_acquire))
      raise("ERR_AFFUSE_BUSY", "expected no unfinished run in the profile, got %d; await them first", pending);
    const std::shared_ptr<Recorder> recorder = std::exchange(instance.recorder, nullptr);
    const std::vector<RunRecord> runs = recorder->take();
    const double zero = double(recorder->started);
    napi_value result = make_object(env), programs = make_array(env, 0), list = make_array(env, runs.size());
    std::map<const Program*, uint32_t> known;
    for (uint32_t r = 0; r < runs.size(); ++r) {
      const Scope scope(env);
      const RunRecord& run = runs[r];
      const auto [place, fresh] = known.try_emplace(run.program.get(), uint32_t(known.size()));
      if (fresh) set(env, programs, place->second, describe(env, *run.program));
      napi_value entry = make_object(env);
      double *spans, *tasks;
      set(env, entry, "program", make(env, double(place->second)));
      set(env, entry, "spans", doubles(env, run.spans.size() * 6, &spans));
      for (const Span& span : run.spans) {
        const double values[] = {double(span.step), double(span.begin) - zero, double(span.end) - zero,
                                 span.flops, span.read, span.written};
        memcpy(spans, values, sizeof values);
        spans += 6;
      }
      set(env, entry, "tasks", doubles(env, run.tasks.size() * 4, &tasks));
      for (const TaskSpan& span : run.tasks) {
        const double values[] = {double(span.step), double(span.worker), double(span.begin) - zero, double(span.end) - zero};
        memcpy(tasks, values, sizeof values);
        tasks += 4;
      }
      set(env, list, r, entry);
    }
    set(env, result, "programs", programs);
    set(env, result, "runs", list);
    return result;
  });
}

}  // namespace affuse::addon
