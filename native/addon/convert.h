// Between JavaScript values and the runtime's types. Everything here throws Napi::Error, coded where the caller is to blame.
#pragma once
#include <napi.h>

#include <string>
#include <vector>

#include "native/runtime/check.h"

namespace affuse::addon {

// An Error whose `code` is the status's code; lib/native turns it into an AffuseError.
Napi::Error coded_error(napi_env env, const Status& status);
[[noreturn]] void raise(napi_env env, const Status& status);
[[noreturn]] __attribute__((format(printf, 3, 4))) void raise(napi_env env, const char* code, const char* format, ...);
inline void check(napi_env env, const Status& status) {
  if (!status.ok()) raise(env, status);
}
// Turns a failed Node-API call into the exception that it left pending, or a plain error.
void require(napi_env env, napi_status status);

const OpDef& operator_of(napi_env env, napi_value name);
Device device_of(napi_env env, napi_value name);

napi_value make_string(napi_env env, std::string_view text);
napi_value make_number(napi_env env, double number);
// {dtype, shape} and, unless null, data.
napi_value make_tensor(napi_env env, const TensorDesc& desc, napi_value data);

// Reads `shape` of an object; `label` names the tensor in messages ("input x of fbp").
void read_shape(napi_env env, napi_value shape, TensorDesc& desc, const char* label);
// {dtype, shape} or null/undefined.
TensorDesc read_desc(napi_env env, napi_value value, const char* label);
DType read_dtype(napi_env env, napi_value value, const char* label);

// Overwrites the defaults in `attr` with the own enumerable properties of an object; undefined values count as not given.
void read_attributes(napi_env env, const OpDef& op, napi_value object, Attr* attr);
bool is_nullish(napi_env env, napi_value value);

// A typed array, seen at one moment: valid until JavaScript runs again.
struct View {
  DType dtype = DType::none;
  int64_t length = 0;
  void* data = nullptr;   // null when length is 0
  bool shared = false;    // over a SharedArrayBuffer
  napi_value array = nullptr;
};
// ERR_AFFUSE_DTYPE when the value is no Float32Array, Float64Array or Int32Array; ERR_AFFUSE_DETACHED when its memory is gone.
View view_of(napi_env env, napi_value value, const char* label);

// A fresh typed array over `bytes` of native memory, which it takes over (release_memory).
napi_value make_array(napi_env env, const TensorDesc& desc, void* data);
// A fresh typed array of zeros, and its memory.
napi_value make_array(napi_env env, const TensorDesc& desc, void** data);

std::string label(const char* kind, const char* tensor, const char* op);

}  // namespace affuse::addon
