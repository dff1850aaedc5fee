// Entry of affuse.node.
#include "addon.h"

#include "instance.h"
#include "native/runtime/cpu.h"

namespace affuse::addon {
namespace {

napi_value set_threads(napi_env env, napi_callback_info info) {
  return guarded(env, [&]() -> napi_value {
    const Arguments args(env, info);
    if (is_nullish(env, args[0]))
      raise("ERR_AFFUSE_THREADS", "expected a thread count in [1, %d], got nothing", kMaxThreads);
    set_default_threads(threads_of(env, args[0]));
    return undefined(env);
  });
}

void initialise(napi_env env, napi_value exports) {
  Instance::create(env);
  set(env, exports, "version", make(env, AFFUSE_VERSION));
  const struct {
    const char* name;
    napi_callback callback;
  } functions[] = {
      {"operators", list_operators},
      {"backends", list_backends},
      {"cpu", describe_cpu},
      {"setThreads", set_threads},
      {"infer", infer},
      {"cost", cost},
      {"callAsync", call_async},
      {"createBuffer", create_buffer},
      {"createProgram", create_program},
      {"allocate", allocate},
      {"roof", roof},
      {"startProfile", start_profile},
      {"stopProfile", stop_profile},
  };
  for (const auto& function : functions)
    set(env, exports, function.name, make_function(env, function.name, function.callback));
  set(env, exports, "call", make_call(env));
}

}  // namespace
}  // namespace affuse::addon

NAPI_MODULE_INIT() {
  return affuse::addon::guarded(env, [&]() -> napi_value {
    affuse::addon::initialise(env, exports);
    return exports;
  });
}
