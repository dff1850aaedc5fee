// The C interface (affuse.h) over the runtime.
#include "affuse/affuse.h"

#include <climits>
#include <cstdio>
#include <cstring>
#include <new>

#include "check.h"
#include "backends.h"
#include "cpu.h"
#include "invoke.h"
#include "kernels/common/shape.h"
#include "registry.h"

namespace affuse {
namespace {

static_assert(AFFUSE_MAX_RANK == kMaxRank && AFFUSE_MAX_INPUTS == kMaxInputs && AFFUSE_MAX_OUTPUTS == kMaxOutputs);

int report(const Status& status, affuse_error* error) {
  if (status.ok()) return 0;
  if (error) {
    snprintf(error->code, sizeof error->code, "%s", status.code);
    snprintf(error->message, sizeof error->message, "%s", status.message);
  }
  return -1;
}

const OpDef* lookup(const char* name, Status& status) {
  const OpDef* op = name ? find_operator(name) : nullptr;
  if (!op)
    status.fail("ERR_AFFUSE_UNKNOWN_OPERATOR", "expected the name of an operator, got \"%s\"", name ? name : "(null)");
  return op;
}

bool in_range(int index, int count, const char* what, Status& status) {
  if (index < 0 || index >= count)
    status.fail("ERR_AFFUSE_RANGE", "expected the index of %s in [0, %d), got %d", what, count, index);
  return status.ok();
}

// A pointer that something is read from or written to. ERR_AFFUSE_USAGE for NULL.
bool given(const void* pointer, const char* what, Status& status) {
  if (!pointer) status.fail("ERR_AFFUSE_USAGE", "expected %s, got NULL", what);
  return status.ok();
}

// A list and its length.
bool check_list(const void* list, int count, int most, const char* what, const OpDef& op, Status& status) {
  if (count < 0 || count > most)
    status.fail("ERR_AFFUSE_USAGE", "expected at most %d %s of %s, got %d", most, what, op.name, count);
  else if (count && !list)
    status.fail("ERR_AFFUSE_USAGE", "expected the %d %s of %s, got NULL", count, what, op.name);
  return status.ok();
}

// Sizes are checked so that no product of dimensions overflows later.
bool import(const affuse_tensor& from, const char* name, Tensor& to, Status& status) {
  if (from.dtype == AFFUSE_NONE) return true;
  if (from.dtype != AFFUSE_F32 && from.dtype != AFFUSE_F64 && from.dtype != AFFUSE_I32) {
    status.fail("ERR_AFFUSE_DTYPE", "expected %s with a dtype of affuse_dtype, got %d", name, int(from.dtype));
    return false;
  }
  to.dtype = from.dtype == AFFUSE_F32 ? DType::f32 : from.dtype == AFFUSE_F64 ? DType::f64 : DType::i32;
  if (from.rank < 0 || from.rank > kMaxRank) {
    status.fail("ERR_AFFUSE_RANK", "expected %s with at most %d dimensions, got %d", name, kMaxRank, int(from.rank));
    return false;
  }
  to.rank = from.rank;
  bool negative = false;
  for (int i = 0; i < to.rank; ++i) {
    to.dim[i] = from.dim[i];
    negative |= from.dim[i] < 0;
  }
  if (negative || extent(to) > kElementLimit) {
    status.fail("ERR_AFFUSE_SHAPE", "expected %s with dimensions >= 0 and at most %g elements, got %s", name, kElementLimit,
                ShapeText(to).text);
    return false;
  }
  to.data = to.count() ? from.data : nullptr;
  return true;
}

struct Call {
  const OpDef* op = nullptr;
  Device device = Device::cpu;
  Attr attr[kMaxAttrs];
  Tensor in[kMaxInputs];
  TensorDesc made[kMaxOutputs];

  bool prepare(const char* name, const char* device_name, const affuse_tensor* inputs, int input_count,
               const affuse_attribute* attributes, int attribute_count, Status& status) {
    op = lookup(name, status);
    if (!op || !parse_device(device_name ? device_name : "cpu", device, status)) return false;
    if (cpu_info().error.code) {
      status = cpu_info().error;
      return false;
    }
    if (!check_list(inputs, input_count, op->input_count, "inputs", *op, status) ||
        !check_list(attributes, attribute_count, INT_MAX, "attributes", *op, status))
      return false;
    default_attributes(*op, attr);
    for (int i = 0; i < attribute_count; ++i) {
      if (!attributes[i].name || !attributes[i].value) {
        status.fail("ERR_AFFUSE_ATTRIBUTE", "expected attribute %d of %s with a name and a value, got NULL", i, op->name);
        return false;
      }
      if (!parse_attribute(*op, attributes[i].name, attributes[i].value, attr, status)) return false;
    }
    TensorDesc desc[kMaxInputs];
    for (int i = 0; i < input_count; ++i) {
      if (!import(inputs[i], op->inputs[i].name, in[i], status)) return false;
      desc[i] = in[i];
    }
    return check_inputs(*op, desc, device, status) && infer_outputs(*op, desc, attr, device, made, status);
  }

  bool take_outputs(const affuse_tensor* outputs, int output_count, Tensor* out, Status& status) {
    if (!check_list(outputs, output_count, op->output_count, "outputs", *op, status)) return false;
    for (int i = 0; i < op->input_count; ++i)
      if (in[i].count() && !in[i].data) {
        status.fail("ERR_AFFUSE_MISSING", "expected data of input %s of %s, got NULL", op->inputs[i].name, op->name);
        return false;
      }
    for (int i = 0; i < output_count; ++i) {
      if (!import(outputs[i], op->outputs[i].name, out[i], status)) return false;
      if (!out[i].given()) continue;
      if (out[i].dtype != made[i].dtype || !same_shape(out[i], made[i]) || (out[i].count() && !out[i].data)) {
        status.fail("ERR_AFFUSE_SHAPE", "expected output %s of %s as %s %s with data, got %s %s%s", op->outputs[i].name,
                    op->name, dtype_name(made[i].dtype), ShapeText(made[i]).text, dtype_name(out[i].dtype),
                    ShapeText(out[i]).text, out[i].data || !out[i].count() ? "" : " with NULL");
        return false;
      }
    }
    return check_overlap(*op, in, out, status);
  }

  bool run(const affuse_tensor* outputs, int output_count, int threads, Status& status) {
    if (threads < 0 || threads > kMaxThreads) {
      status.fail("ERR_AFFUSE_THREADS", "expected threads in [0, %d], got %d", kMaxThreads, threads);
      return false;
    }
    Tensor out[kMaxOutputs];
    if (!take_outputs(outputs, output_count, out, status)) return false;
    Scratch& scratch = thread_scratch();
    invoke(*op, device, in, made, out, attr, nullptr, threads ? threads : default_threads(), scratch, status);
    scratch.trim(kKeptScratch);
    return status.ok();
  }
};

// As the device's kernels want it: memory of the device for everything, the outputs that must exist included.
void queue(Call& call, const affuse_tensor* outputs, int output_count, void* stream, Status& status) {
  if (!call.device.has_backend())
    return status.fail("ERR_AFFUSE_DEVICE",
                       "expected a device with memory of its own, such as cuda; affuse_run() is for the others");
  Tensor out[kMaxOutputs];
  if (call.take_outputs(outputs, output_count, out, status))
    queue_on_device(*call.op, call.device, call.in, call.made, out, call.attr, stream, status);
}

// Nothing of C++ leaves the library, an exhausted allocator included.
template <class F>
int guarded(affuse_error* error, F&& body) {
  Status status;
  try {
    body(status);
  } catch (const std::bad_alloc&) {
    status.fail("ERR_AFFUSE_MEMORY", "expected more memory, got none from the system");
  }
  return report(status, error);
}

constexpr const char* kForResult = "memory for the result";

void describe(const OpDef& op, affuse_operator* result) {
  *result = {op.name, op.summary, op.backward, op.flops, op.bytes, op.input_count, op.output_count, op.attr_count};
}

void describe(const TensorRule& rule, affuse_tensor_rule* result) {
  *result = {rule.name, rule.shape, rule.doc, rule.dtype == DType::i32 ? AFFUSE_I32 : AFFUSE_F32, rule.optional};
}

}  // namespace
}  // namespace affuse

using namespace affuse;

extern "C" {

int affuse_abi_version(void) { return AFFUSE_ABI_VERSION; }
const char* affuse_version(void) { return AFFUSE_VERSION; }

int affuse_operator_count(void) { return int(operators().size()); }

int affuse_operator_at(int index, affuse_operator* result, affuse_error* error) {
  return guarded(error, [&](Status& status) {
    if (in_range(index, affuse_operator_count(), "an operator", status) && given(result, kForResult, status))
      describe(*operators()[size_t(index)], result);
  });
}

int affuse_operator_find(const char* name, affuse_operator* result, affuse_error* error) {
  return guarded(error, [&](Status& status) {
    const OpDef* op = lookup(name, status);
    if (op && given(result, kForResult, status)) describe(*op, result);
  });
}

int affuse_operator_input(const char* name, int index, affuse_tensor_rule* result, affuse_error* error) {
  return guarded(error, [&](Status& status) {
    const OpDef* op = lookup(name, status);
    if (op && in_range(index, op->input_count, "an input", status) && given(result, kForResult, status))
      describe(op->inputs[index], result);
  });
}

int affuse_operator_output(const char* name, int index, affuse_tensor_rule* result, affuse_error* error) {
  return guarded(error, [&](Status& status) {
    const OpDef* op = lookup(name, status);
    if (op && in_range(index, op->output_count, "an output", status) && given(result, kForResult, status))
      describe(op->outputs[index], result);
  });
}

int affuse_operator_attribute(const char* name, int index, affuse_attribute_rule* result, affuse_error* error) {
  return guarded(error, [&](Status& status) {
    const OpDef* op = lookup(name, status);
    if (!op || !in_range(index, op->attr_count, "an attribute", status) || !given(result, kForResult, status)) return;
    const AttrRule& rule = op->attrs[index];
    *result = {rule.name, rule.choices, rule.doc, int32_t(rule.kind), rule.fallback, rule.low, rule.high};
  });
}

const char* affuse_cpu_level(void) { return isa_name(cpu_info().isa); }
int affuse_threads(void) { return default_threads(); }

int affuse_set_threads(int count, affuse_error* error) {
  return guarded(error, [&](Status& status) {
    if (count < 1 || count > kMaxThreads)
      status.fail("ERR_AFFUSE_THREADS", "expected threads in [1, %d], got %d", kMaxThreads, count);
    else
      set_default_threads(count);
  });
}

void affuse_shutdown(void) { Pool::instance().stop(); }

int affuse_infer(const char* name, const char* device, const affuse_tensor* inputs, int input_count,
                 const affuse_attribute* attributes, int attribute_count, affuse_tensor* outputs, int output_count,
                 affuse_error* error) {
  return guarded(error, [&](Status& status) {
    Call call;
    if (!call.prepare(name, device, inputs, input_count, attributes, attribute_count, status)) return;
    if (output_count > 0 && !given(outputs, "memory for the outputs", status)) return;
    for (int i = 0; i < output_count; ++i) {
      affuse_tensor& to = outputs[i];
      const TensorDesc made = i < call.op->output_count ? call.made[i] : TensorDesc{};
      to.dtype = made.dtype == DType::f32   ? AFFUSE_F32
                 : made.dtype == DType::f64 ? AFFUSE_F64
                 : made.dtype == DType::i32 ? AFFUSE_I32
                                            : AFFUSE_NONE;
      to.rank = made.rank;
      for (int d = 0; d < kMaxRank; ++d) to.dim[d] = made.dim[d];
    }
  });
}

int affuse_run(const char* name, const char* device, const affuse_tensor* inputs, int input_count,
               const affuse_attribute* attributes, int attribute_count, const affuse_tensor* outputs, int output_count,
               int threads, affuse_error* error) {
  return guarded(error, [&](Status& status) {
    Call call;
    if (call.prepare(name, device, inputs, input_count, attributes, attribute_count, status))
      call.run(outputs, output_count, threads, status);
  });
}

int affuse_queue(const char* name, const char* device, const affuse_tensor* inputs, int input_count,
                 const affuse_attribute* attributes, int attribute_count, const affuse_tensor* outputs, int output_count,
                 void* stream, affuse_error* error) {
  return guarded(error, [&](Status& status) {
    Call call;
    if (call.prepare(name, device, inputs, input_count, attributes, attribute_count, status))
      queue(call, outputs, output_count, stream, status);
  });
}

int affuse_finish(const char* device, affuse_error* error) {
  return guarded(error, [&](Status& status) {
    Device parsed;
    if (!parse_device(device ? device : "cuda", parsed, status) || !parsed.has_backend()) return;
    if (const DeviceLock backend = lock_device(parsed, status)) backend->finish(status);
  });
}

}  // extern "C"
