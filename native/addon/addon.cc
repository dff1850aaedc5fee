// Entry of affuse.node.
#include "addon.h"
#include "tensors.h"

#include "native/runtime/cpu.h"
#include "programs.h"

namespace affuse::addon {
namespace {

Napi::Value set_threads(const Napi::CallbackInfo& info) {
  if (info[0].IsUndefined())
    raise(info.Env(), "ERR_AFFUSE_THREADS", "expected a thread count in [1, %d], got nothing", kMaxThreads);
  set_default_threads(read_threads(info.Env(), info[0]));
  return info.Env().Undefined();
}

Napi::Object initialise(Napi::Env env, Napi::Object exports) {
  exports["version"] = AFFUSE_VERSION;
  exports["operators"] = Napi::Function::New(env, list_operators, "operators");
  exports["backends"] = Napi::Function::New(env, list_backends, "backends");
  exports["cpu"] = Napi::Function::New(env, describe_cpu, "cpu");
  exports["setThreads"] = Napi::Function::New(env, set_threads, "setThreads");
  exports["infer"] = Napi::Function::New(env, infer, "infer");
  exports["cost"] = Napi::Function::New(env, cost, "cost");
  exports["callAsync"] = Napi::Function::New(env, call_async, "callAsync");
  exports["createBuffer"] = Napi::Function::New(env, create_buffer, "createBuffer");
  exports["createProgram"] = Napi::Function::New(env, create_program, "createProgram");
  auto* instance = new Instance(env);
  env.SetInstanceData(instance);
  instance->buffer_class = Napi::Persistent(BufferObject::define(env));
  instance->program_class = Napi::Persistent(ProgramObject::define(env));
  napi_value function;
  require(env, napi_create_function(env, "call", NAPI_AUTO_LENGTH, call, nullptr, &function));
  exports["call"] = function;
  return exports;
}

}  // namespace
}  // namespace affuse::addon

static Napi::Object initialise_module(Napi::Env env, Napi::Object exports) {
  return affuse::addon::initialise(env, exports);
}
NODE_API_MODULE(affuse, initialise_module)
