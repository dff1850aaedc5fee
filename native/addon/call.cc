// infer, cost and call: one operator at a time, on the calling thread.
#include <string>

#include "addon.h"
#include "native/runtime/cpu.h"
#include "native/runtime/invoke.h"
#include "tensors.h"

namespace affuse::addon {
namespace {

struct Inferred {
  const OpDef& op;
  TensorDesc in[kMaxInputs];
  TensorDesc out[kMaxOutputs];
  Attr attr[kMaxAttrs];
};

// (op, inputs, attributes) → everything that follows from descriptions alone.
Inferred infer_call(napi_env env, const Arguments& args) {
  Inferred result{operator_of(env, args[0]), {}, {}, {}};
  const OpDef& op = result.op;
  const uint32_t count = list_length(env, args[1], "inputs", op.name, op.input_count);
  Device device = Device::cpu;
  for (uint32_t i = 0; i < count; ++i) {
    const std::string label = std::string("input ") + op.inputs[i].name + " of " + op.name;
    result.in[i] = read_desc(env, get(env, args[1], i), label.c_str());
    if (result.in[i].dtype == DType::f64) device = Device::reference;  // who describes float64 means the reference
  }
  read_attributes(env, op, args[2], result.attr);
  Status status;
  if (check_inputs(op, result.in, device, status)) infer_outputs(op, result.in, result.attr, device, result.out, status);
  check(status);
  return result;
}

}  // namespace

napi_value infer(napi_env env, napi_callback_info info) {
  return guarded(env, [&]() -> napi_value {
    const Inferred inferred = infer_call(env, Arguments(env, info));
    napi_value list = make_array(env, size_t(inferred.op.output_count));
    for (int i = 0; i < inferred.op.output_count; ++i) {
      const TensorDesc& t = inferred.out[i];
      set(env, list, uint32_t(i), t.given() ? make_tensor(env, t, nullptr) : null(env));
    }
    return list;
  });
}

napi_value cost(napi_env env, napi_callback_info info) {
  return guarded(env, [&]() -> napi_value {
    const Inferred inferred = infer_call(env, Arguments(env, info));
    const OpDef& op = inferred.op;
    TensorDesc made[kMaxOutputs];
    double bytes = 0;
    for (int i = 0; i < op.input_count; ++i) bytes += double(inferred.in[i].bytes());
    for (int i = 0; i < op.output_count; ++i) {
      if (op.outputs[i].optional) continue;
      made[i] = inferred.out[i];
      bytes += double(made[i].bytes());
    }
    napi_value result = make_object(env);
    set(env, result, "flops", make(env, op.flop_count ? op.flop_count(OpShape{inferred.in, made, inferred.attr}) : 0.0));
    set(env, result, "bytes", make(env, bytes));
    return result;
  });
}

napi_value call(napi_env env, napi_callback_info info) {
  return guarded(env, [&]() -> napi_value {
    const Arguments args(env, info);
    const Device device = device_of(env, args[0]);
    const OpDef& op = operator_of(env, args[1]);
    check(cpu_info().error);
    Attr attr[kMaxAttrs];
    read_attributes(env, op, args[3], attr);
    const int threads = threads_of(env, args[5]);

    // All JavaScript that this may run (getters, proxies) runs before any pointer is taken.
    InputValues inputs(env, op, args[2]);
    OutputValues outputs(env, op, args[4]);
    Tensor in[kMaxInputs], out[kMaxOutputs];
    TensorDesc in_desc[kMaxInputs], made[kMaxOutputs];
    inputs.take(in);
    for (int i = 0; i < op.input_count; ++i) in_desc[i] = in[i];
    Status status;
    if (check_inputs(op, in_desc, device, status)) infer_outputs(op, in_desc, attr, device, made, status);
    check(status);
    outputs.take(made, in, out);
    const SharedCopies copies(op, inputs, in);

    Scratch& scratch = thread_scratch();
    invoke(op, device, in, made, out, attr, nullptr, threads, scratch, status);
    scratch.trim(kKeptScratch);
    check(status);
    return outputs.result(made);
  });
}

}  // namespace affuse::addon
