// The functions of the addon; lib/native/addon.ts documents each.
#pragma once
#include "convert.h"

namespace affuse::addon {

napi_value list_operators(napi_env env, napi_callback_info info);
napi_value list_backends(napi_env env, napi_callback_info info);
napi_value describe_cpu(napi_env env, napi_callback_info info);
napi_value infer(napi_env env, napi_callback_info info);
napi_value cost(napi_env env, napi_callback_info info);
napi_value call(napi_env env, napi_callback_info info);
napi_value call_async(napi_env env, napi_callback_info info);
napi_value create_buffer(napi_env env, napi_callback_info info);
napi_value create_program(napi_env env, napi_callback_info info);
napi_value roof(napi_env env, napi_callback_info info);
napi_value allocate(napi_env env, napi_callback_info info);
napi_value start_profile(napi_env env, napi_callback_info info);
napi_value stop_profile(napi_env env, napi_callback_info info);

// call() as exported: the quick way (fast_call.cc), which turns to call() for everything unusual.
napi_value make_call(napi_env env);
// "none|l2" → ["none", "l2"]
napi_value split_choices(napi_env env, const char* choices);

}  // namespace affuse::addon
