// callAsync: a copy of the inputs, a driver thread, fresh outputs.
#include <cstring>

#include "addon.h"
#include "instance.h"
#include "native/runtime/cpu.h"
#include "native/runtime/invoke.h"
#include "tensors.h"

namespace affuse::addon {
namespace {

class CallJob : public PromiseJob {
 public:
  CallJob(const OpDef& op, Device device, int threads) : op_(op), device_(device), threads_(threads) {}

  Attr attr[kMaxAttrs];
  Tensor in[kMaxInputs];
  TensorDesc made[kMaxOutputs];
  bool wanted[kMaxOutputs] = {};

  // Moves the inputs, which point into JavaScript's memory, to copies.
  void copy_inputs(Status& status) {
    for (int i = 0; i < op_.input_count; ++i) {
      if (!in[i].data) continue;
      if (!memory_[i].allocate(in[i].bytes(), "a copy of an input", status)) return;
      memcpy(memory_[i].data(), in[i].data, in[i].bytes());
      in[i].data = memory_[i].data();
    }
  }

 protected:
  void work(Scratch& scratch, const std::atomic<bool>& cancelled, Status& status) override {
    if (cancelled.load(std::memory_order_relaxed)) return;
    Tensor out[kMaxOutputs];
    for (int i = 0; i < op_.output_count; ++i) {
      if (!wanted[i]) continue;
      if (!results_[i].allocate(made[i].bytes(), "an output", status)) return;
      static_cast<TensorDesc&>(out[i]) = made[i];
      out[i].data = made[i].count() ? results_[i].data() : nullptr;
    }
    invoke(op_, device_, in, made, out, attr, nullptr, threads_, scratch, status);
    for (Memory& memory : memory_) memory.reset();
  }

  napi_value result(napi_env env) override {
    napi_value list = make_array(env, size_t(op_.output_count)), nothing = null(env);
    for (int i = 0; i < op_.output_count; ++i) {
      napi_value value = nothing;
      if (wanted[i]) value = make_tensor(env, made[i], adopt_array(env, made[i], std::move(results_[i])));
      set(env, list, uint32_t(i), value);
    }
    return list;
  }

 private:
  const OpDef& op_;
  const Device device_;
  const int threads_;
  Memory memory_[kMaxInputs], results_[kMaxOutputs];
};

}  // namespace

napi_value call_async(napi_env env, napi_callback_info info) {
  return guarded(env, [&]() -> napi_value {
    const Arguments args(env, info);
    const Device device = device_of(env, args[0]);
    const OpDef& op = operator_of(env, args[1]);
    check(cpu_info().error);
    auto job = std::make_shared<CallJob>(op, device, threads_of(env, args[5]));
    read_attributes(env, op, args[3], job->attr);
    InputValues inputs(env, op, args[2]);
    const OutputValues outputs(env, op, args[4]);
    inputs.take(job->in);
    TensorDesc in_desc[kMaxInputs];
    for (int i = 0; i < op.input_count; ++i) in_desc[i] = job->in[i];
    Status status;
    if (check_inputs(op, in_desc, device, status)) infer_outputs(op, in_desc, job->attr, device, job->made, status);
    check(status);
    for (int i = 0; i < op.output_count; ++i) job->wanted[i] = outputs.wants_fresh(i, job->made[i]);
    job->copy_inputs(status);
    check(status);
    return Instance::of(env).submit(std::move(job));
  });
}

}  // namespace affuse::addon
