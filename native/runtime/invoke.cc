#include "invoke.h"

#include <cstdlib>
#include <cstring>

#include "cpu.h"

namespace affuse {
namespace {

constexpr size_t round_up(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

bool is_set(const char* variable) {
  const char* text = getenv(variable);
  return text && !strcmp(text, "1");
}

void poison(void* data, size_t bytes) { memset(data, 0xff, bytes); }

// An output that shares memory with an input holds that input's data.
bool aliases_input(const OpDef& op, const Tensor* in, const Tensor& out) {
  for (int i = 0; i < op.input_count; ++i)
    if (in[i].data == out.data) return true;
  return false;
}

// Float inputs as float64 copies, where they are not float64 already.
bool widen(const OpDef& op, const Tensor* in, Tensor* wide, Memory* copies, Status& status) {
  for (int i = 0; i < op.input_count; ++i) {
    wide[i] = in[i];
    if (in[i].dtype != DType::f32) continue;
    wide[i].dtype = DType::f64;
    const int64_t count = in[i].count();
    if (count == 0) continue;
    if (!copies[i].allocate(size_t(count) * sizeof(double), "a float64 copy of an input", status)) return false;
    auto* to = static_cast<double*>(copies[i].data());
    const float* from = in[i].f32();
    for (int64_t e = 0; e < count; ++e) to[e] = from[e];
    wide[i].data = to;
  }
  return true;
}

// Whether helpers that sleep would come before the caller is done by itself. Only time depends on this, never a result.
// AFFUSE_WAKE=1 wakes them always, so that tests see small operators on several threads.
bool worth_waking(const OpDef& op, const OpShape& shape) {
  static const bool always = is_set("AFFUSE_WAKE");
  return always || estimated_microseconds(op, shape) > 20;
}

void invoke_as_given(const OpDef& op, Device device, const Tensor* in, const TensorDesc* made, const Tensor* out,
                     const Attr* attr, const void* const* packed, int threads, Scratch& scratch, Status& status,
                     TaskListener* listener) {
  const bool reference = device == Device::reference;
  // Descriptions as the kernel sees them, and what the unwanted but necessary outputs need.
  Tensor outputs[kMaxOutputs];
  TensorDesc in_desc[kMaxInputs], out_desc[kMaxOutputs];
  size_t spare = 0;
  bool anything = false;
  for (int i = 0; i < op.input_count; ++i) in_desc[i] = in[i];
  for (int i = 0; i < op.output_count; ++i) {
    outputs[i] = out[i];
    if (!out[i].given() && made[i].given() && must_exist(op, i)) {
      static_cast<TensorDesc&>(outputs[i]) = made[i];
      spare += round_up(made[i].bytes());
    }
    out_desc[i] = outputs[i];
    anything |= outputs[i].count() > 0;
  }

  const OpShape shape{in_desc, out_desc, attr};
  const Crew crew(threads, threads > 1 && worth_waking(op, shape), listener);
  OpCall call;
  call.in = in;
  call.out = outputs;
  call.attr = attr;
  call.packed = packed;
  call.workers = &crew.workers();
  if (op.validate) {
    op.validate(call, status);
    if (!status.ok()) return;
  }
  // A backward of which nobody wants a gradient (kernels may rely on having one output), or outputs without elements: the
  // other dimensions can then be so large that loops over them, or a workspace by them, would never come to an end.
  if (!anything) return;

  const size_t workspace = !reference && op.workspace ? round_up(op.workspace(shape, threads)) : 0;
  char* memory = nullptr;
  if (workspace + spare) {
    memory = static_cast<char*>(scratch.reserve(workspace + spare, status));
    if (!memory) return;
  }
  if (poisoning()) {
    if (memory) poison(memory, workspace + spare);
    for (int i = 0; i < op.output_count; ++i)
      if (outputs[i].data && !aliases_input(op, in, outputs[i])) poison(outputs[i].data, outputs[i].bytes());
  }
  call.workspace = workspace ? memory : nullptr;
  char* place = memory + workspace;
  for (int i = 0; i < op.output_count; ++i) {
    if (out[i].given() || !outputs[i].given() || outputs[i].count() == 0) continue;
    outputs[i].data = place;
    place += round_up(outputs[i].bytes());
  }
  (reference ? op.reference : cpu_kernel(op))(call);
}

}  // namespace

bool poisoning() {
  static const bool on = is_set("AFFUSE_POISON");
  return on;
}

double estimated_microseconds(const OpDef& op, const OpShape& shape) {
  size_t bytes = 0;
  for (int i = 0; i < op.input_count; ++i) bytes += shape.in[i].bytes();
  for (int i = 0; i < op.output_count; ++i) bytes += shape.out[i].bytes();
  return (op.flop_count ? op.flop_count(shape) : 0) / 50e3 + double(bytes) / 32e3;
}

KernelFn cpu_kernel(const OpDef& op) {
  for (int level = cpu_info().isa; level > kBaseline; --level)
    if (op.cpu[level]) return op.cpu[level];
  return op.cpu[kBaseline];
}

auto cpu_pack(const OpDef& op) -> void (*)(const OpShape&, int, const void*, void*, const Workers&) {
  for (int level = cpu_info().isa; level > kBaseline; --level)
    if (op.pack[level]) return op.pack[level];
  return op.pack[kBaseline];
}

void invoke(const OpDef& op, Device device, const Tensor* in, const TensorDesc* made, const Tensor* out, const Attr* attr,
            const void* const* packed, int threads, Scratch& scratch, Status& status, TaskListener* listener) {
  if (device == Device::cpu)
    return invoke_as_given(op, device, in, made, out, attr, packed, threads, scratch, status, listener);
  if (device.has_backend()) return invoke_on_device(op, device, in, made, out, attr, status);
  if (!op.reference) return status.fail("ERR_AFFUSE_DEVICE", "expected an operator with a reference, got %s", op.name);
  Tensor wide[kMaxInputs];
  Memory copies[kMaxInputs];
  if (widen(op, in, wide, copies, status))
    invoke_as_given(op, device, wide, made, out, attr, nullptr, 1, scratch, status, nullptr);
}

}  // namespace affuse
