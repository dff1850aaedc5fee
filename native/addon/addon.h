// The functions of the addon; lib/native/addon.ts documents each.
#pragma once
#include "convert.h"

namespace affuse::addon {

Napi::Value list_operators(const Napi::CallbackInfo& info);
Napi::Value list_backends(const Napi::CallbackInfo& info);
Napi::Value describe_cpu(const Napi::CallbackInfo& info);
Napi::Value infer(const Napi::CallbackInfo& info);
Napi::Value cost(const Napi::CallbackInfo& info);
Napi::Value call_async(const Napi::CallbackInfo& info);
napi_value call(napi_env env, napi_callback_info info);

}  // namespace affuse::addon
