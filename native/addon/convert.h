// Between JavaScript values and the runtime's types, on plain Node-API.
//
// Not node-addon-api: when a worker is terminated, every Node-API call begins to fail, the ones that make error objects
// included, and its error class then throws out of its own handler or aborts the process. Here a failed call is a C++
// exception without any JavaScript in it, and guarded() turns what reaches it into a JavaScript exception if that can
// still be had.
#pragma once
#include <node_api.h>

#include <new>
#include <string>
#include <string_view>

#include "native/runtime/check.h"

namespace affuse::addon {

// The caller is to blame: becomes an Error whose `code` is the status's.
struct Raised {
  Status status;
};
// A Node-API call failed: a JavaScript exception is pending, or the environment is ending.
struct Unwinding {};

[[noreturn]] __attribute__((format(printf, 2, 3))) void raise(const char* code, const char* format, ...);
inline void check(const Status& status) {
  if (!status.ok()) throw Raised{status};
}
inline void require(napi_status status) {
  if (status != napi_ok) throw Unwinding{};
}

// Makes the pending JavaScript exception of a callback that ended with these, as far as the environment allows.
void throw_coded(napi_env env, const Status& status) noexcept;
void throw_unknown(napi_env env) noexcept;

// The body of every callback: nothing of C++ leaves it.
template <class F>
napi_value guarded(napi_env env, F&& body) noexcept {
  try {
    return body();
  } catch (const Raised& raised) {
    throw_coded(env, raised.status);
  } catch (const Unwinding&) {
    throw_unknown(env);
  } catch (const std::bad_alloc&) {
    Status status;
    status.fail("ERR_AFFUSE_MEMORY", "expected more memory, got none from the system");
    throw_coded(env, status);
  }
  return nullptr;
}

// A callback's arguments; those not given are undefined.
struct Arguments {
  static constexpr size_t kLimit = 6;
  napi_value self;
  void* data;
  napi_value operator[](size_t i) const { return values[i]; }
  Arguments(napi_env env, napi_callback_info info);

 private:
  napi_value values[kLimit];
};

// Handles made inside end with it.
class Scope {
 public:
  explicit Scope(napi_env env) : env_(env) { require(napi_open_handle_scope(env, &scope_)); }
  ~Scope() { napi_close_handle_scope(env_, scope_); }
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;

 private:
  napi_env env_;
  napi_handle_scope scope_;
};

// --- making values -----------------------------------------------------------------------------------------------------
napi_value undefined(napi_env env);
napi_value null(napi_env env);
napi_value make(napi_env env, std::string_view text);
napi_value make(napi_env env, const char* text);
napi_value make(napi_env env, double number);
napi_value make(napi_env env, bool truth);
napi_value make_array(napi_env env, size_t length);
napi_value make_object(napi_env env);
napi_value make_function(napi_env env, const char* name, napi_callback callback, void* data = nullptr);
void set(napi_env env, napi_value object, const char* name, napi_value value);
void set(napi_env env, napi_value array, uint32_t index, napi_value value);
// {dtype, shape} and, unless null, data.
napi_value make_tensor(napi_env env, const TensorDesc& desc, napi_value data);

// --- reading values ----------------------------------------------------------------------------------------------------
napi_valuetype type_of(napi_env env, napi_value value);
bool is_nullish(napi_env env, napi_value value);
bool is_array(napi_env env, napi_value value);
uint32_t array_length(napi_env env, napi_value array);
napi_value get(napi_env env, napi_value object, const char* name);
napi_value get(napi_env env, napi_value array, uint32_t index);
// NaN unless the value is a number.
double number_or_nan(napi_env env, napi_value value);

const OpDef& operator_of(napi_env env, napi_value name);
Device device_of(napi_env env, napi_value name);
// Undefined: the default.
int threads_of(napi_env env, napi_value value);

// Reads `shape` of an object; `label` names the tensor in messages.
void read_shape(napi_env env, napi_value shape, TensorDesc& desc, const char* label);
// {dtype, shape} or null/undefined.
TensorDesc read_desc(napi_env env, napi_value value, const char* label);
// Overwrites the defaults in `attr` with the own enumerable properties of an object; undefined values count as not given.
void read_attributes(napi_env env, const OpDef& op, napi_value object, Attr* attr);

}  // namespace affuse::addon
