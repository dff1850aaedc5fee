// infer, cost and call: one operator at a time, on the calling thread.
#include <cstring>

#include "addon.h"
#include "native/runtime/cpu.h"
#include "native/runtime/invoke.h"
#include "tensors.h"

namespace affuse::addon {
namespace {

void read_descs(napi_env env, const OpDef& op, napi_value list, TensorDesc* in) {
  const uint32_t count = list_length(env, list, "inputs", op.name, op.input_count);
  for (uint32_t i = 0; i < count; ++i) {
    napi_value value;
    require(env, napi_get_element(env, list, i, &value));
    in[i] = read_desc(env, value, label("input", op.inputs[i].name, op.name).c_str());
  }
}

struct Inferred {
  const OpDef& op;
  TensorDesc in[kMaxInputs];
  TensorDesc out[kMaxOutputs];
  Attr attr[kMaxAttrs];
};

Inferred infer_call(const Napi::CallbackInfo& info) {
  const napi_env env = info.Env();
  Inferred result{operator_of(env, info[0]), {}, {}, {}};
  read_descs(env, result.op, info[1], result.in);
  read_attributes(env, result.op, info[2], result.attr);
  // float64 descriptions are the reference's.
  Device device = Device::cpu;
  for (const TensorDesc& t : result.in)
    if (t.dtype == DType::f64) device = Device::reference;
  Status status;
  if (check_inputs(result.op, result.in, device, status))
    infer_outputs(result.op, result.in, result.attr, device, result.out, status);
  check(env, status);
  return result;
}

}  // namespace

Napi::Value infer(const Napi::CallbackInfo& info) {
  const Inferred inferred = infer_call(info);
  Napi::Array list = Napi::Array::New(info.Env(), size_t(inferred.op.output_count));
  for (int i = 0; i < inferred.op.output_count; ++i) {
    const TensorDesc& t = inferred.out[i];
    list[uint32_t(i)] = t.given() ? Napi::Value(info.Env(), make_tensor(info.Env(), t, nullptr)) : info.Env().Null();
  }
  return list;
}

Napi::Value cost(const Napi::CallbackInfo& info) {
  const Inferred inferred = infer_call(info);
  const OpDef& op = inferred.op;
  TensorDesc made[kMaxOutputs];
  double bytes = 0;
  for (int i = 0; i < op.input_count; ++i) bytes += double(inferred.in[i].bytes());
  for (int i = 0; i < op.output_count; ++i) {
    if (op.outputs[i].optional) continue;
    made[i] = inferred.out[i];
    bytes += double(made[i].bytes());
  }
  Napi::Object result = Napi::Object::New(info.Env());
  result["flops"] = op.flop_count ? op.flop_count(OpShape{inferred.in, made, inferred.attr}) : 0.0;
  result["bytes"] = bytes;
  return result;
}

napi_value call(napi_env env, napi_callback_info info) {
  return Napi::details::WrapCallback(env, [&]() -> napi_value {
    napi_value args[6];
    size_t count = 6;
    require(env, napi_get_cb_info(env, info, &count, args, nullptr, nullptr));
    const Device device = device_of(env, args[0]);
    const OpDef& op = operator_of(env, args[1]);
    check(env, cpu_info().error);
    Attr attr[kMaxAttrs];
    read_attributes(env, op, args[3], attr);
    const int threads = read_threads(env, args[5]);

    // All JavaScript that this may run (getters, proxies) runs before any pointer is taken.
    InputValues inputs(env, op, args[2]);
    OutputValues outputs(env, op, args[4]);
    Tensor in[kMaxInputs], out[kMaxOutputs];
    TensorDesc in_desc[kMaxInputs], made[kMaxOutputs];
    inputs.take(in);
    for (int i = 0; i < op.input_count; ++i) in_desc[i] = in[i];
    Status status;
    if (check_inputs(op, in_desc, device, status)) infer_outputs(op, in_desc, attr, device, made, status);
    check(env, status);
    outputs.take(made, in, out);
    SharedCopies copies(env, op, inputs, in);

    static thread_local Scratch scratch;
    invoke(op, device, in, made, out, attr, nullptr, threads, scratch, status);
    scratch.trim(size_t(64) << 20);
    check(env, status);
    return outputs.result(made);
  });
}

}  // namespace affuse::addon
