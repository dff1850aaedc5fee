// Typed arrays, and the tensors of one operator call as they come from JavaScript, in two steps: first every property is
// read (which may run JavaScript and so move or detach memory), then every pointer is taken.
#pragma once
#include <memory>

#include "convert.h"
#include "native/runtime/memory.h"

namespace affuse::addon {

// A typed array, seen at one moment: valid until JavaScript runs again.
struct View {
  DType dtype = DType::none;
  int64_t length = 0;
  void* data = nullptr;  // null when length is 0
  bool shared = false;   // over a SharedArrayBuffer
};
// ERR_AFFUSE_DTYPE when the value is no Float32Array, Float64Array or Int32Array; ERR_AFFUSE_DETACHED when its memory is
// gone.
View view_of(napi_env env, napi_value value, const char* label);

// An ArrayBuffer over memory that `owner` keeps, which is dropped with it. False where the runtime allows no such thing;
// ERR_AFFUSE_MEMORY when it is more than an array of such elements, or a buffer of this Node, can hold.
bool lend_to_array(napi_env env, std::shared_ptr<void> owner, void* data, size_t bytes, size_t element,
                   napi_value* buffer);
// A typed array over native memory, which it takes over, or a copy where the runtime allows no such thing.
napi_value adopt_array(napi_env env, const TensorDesc& desc, Memory memory);
// A fresh typed array, and where its memory is.
napi_value fresh_array(napi_env env, const TensorDesc& desc, void** data);

// Length of an array argument; ERR_AFFUSE_USAGE when it is no array or longer than `limit`. null and undefined count as
// empty.
uint32_t list_length(napi_env env, napi_value list, const char* what, const char* op, int limit);

class InputValues {
 public:
  InputValues(napi_env env, const OpDef& op, napi_value list);
  // Fills descriptions and pointers; ERR_AFFUSE_SHAPE when a shape does not fit its data.
  void take(Tensor* in);
  bool shared(int input) const { return views_[input].shared; }

 private:
  napi_env env_;
  const OpDef& op_;
  napi_value data_[kMaxInputs] = {};  // null: absent
  TensorDesc shapes_[kMaxInputs];
  View views_[kMaxInputs];
};

class OutputValues {
 public:
  OutputValues(napi_env env, const OpDef& op, napi_value list);
  // Resolves targets against the inferred descriptions and makes fresh arrays. Refuses targets of a wrong type or length,
  // shared or detached ones, and any that overlap each other or an input other than the one that the operator updates in
  // place.
  void take(const TensorDesc* made, const Tensor* in, Tensor* out);
  napi_value result(const TensorDesc* made) const;
  // For calls that only make fresh outputs: whether this one is wanted; refuses targets.
  bool wants_fresh(int output, const TensorDesc& made) const;

 private:
  void require_made(int output, const TensorDesc& made) const;

  napi_env env_;
  const OpDef& op_;
  bool wanted_[kMaxOutputs] = {};
  napi_value arrays_[kMaxOutputs] = {};  // the caller's target or the fresh array
};

// int32 inputs over shared memory are copied: another thread could change a length after it was checked.
class SharedCopies {
 public:
  SharedCopies(const OpDef& op, const InputValues& inputs, Tensor* in);

 private:
  Memory memory_[kMaxInputs];
};

}  // namespace affuse::addon
