#include "tensors.h"

#include <cstring>

#include "kernels/common/shape.h"

namespace affuse::addon {

// --- typed arrays ----------------------------------------------------------------------------------------------------

View view_of(napi_env env, napi_value value, const char* label) {
  bool typed = false;
  require(napi_is_typedarray(env, value, &typed));
  if (!typed) raise("ERR_AFFUSE_DTYPE", "expected the data of %s as a Float32Array, Float64Array or Int32Array", label);
  napi_typedarray_type type;
  size_t length = 0, offset = 0;
  napi_value buffer;
  View view;
  // Asking for the buffer also takes a small array's elements out of the moving heap: the pointer stays good.
  require(napi_get_typedarray_info(env, value, &type, &length, &view.data, &buffer, &offset));
  view.dtype = type == napi_float32_array   ? DType::f32
               : type == napi_int32_array   ? DType::i32
               : type == napi_float64_array ? DType::f64
                                            : DType::none;
  if (view.dtype == DType::none)
    raise("ERR_AFFUSE_DTYPE",
          "expected the data of %s as a Float32Array, Float64Array or Int32Array, got another typed array", label);
  view.length = int64_t(length);
  if (length) {
    bool plain = false;
    require(napi_is_arraybuffer(env, buffer, &plain));
    view.shared = !plain;
    return view;
  }
  // Empty on purpose, or because its memory went away?
  view.data = nullptr;
  bool detached = false;
  require(napi_is_detached_arraybuffer(env, buffer, &detached));
  if (detached)
    raise("ERR_AFFUSE_DETACHED", "expected live memory for %s, got an array whose buffer was transferred elsewhere", label);
  return view;
}

namespace {

napi_typedarray_type array_type(DType dtype) {
  return dtype == DType::f32 ? napi_float32_array : dtype == DType::f64 ? napi_float64_array : napi_int32_array;
}

napi_value wrap(napi_env env, const TensorDesc& desc, napi_value buffer) {
  napi_value array;
  require(napi_create_typedarray(env, array_type(desc.dtype), size_t(desc.count()), buffer, 0, &array));
  return array;
}

// Below this V8's own zeroed memory is cheaper than an external block with a finalizer. Above it, V8 would abort the process
// where our allocation merely fails.
constexpr size_t kInlineBytes = 1 << 16;
// V8 aborts the process rather than make a longer typed array.
constexpr int64_t kMostElements = (int64_t(1) << 32) - 1;

}  // namespace

bool lend_to_array(napi_env env, std::shared_ptr<void> owner, void* data, size_t bytes, size_t element,
                   napi_value* buffer) {
  const auto holder = new std::shared_ptr<void>(std::move(owner));
  const auto drop = [](napi_env, void*, void* hint) { delete static_cast<std::shared_ptr<void>*>(hint); };
  const bool fits = int64_t(bytes / element) <= kMostElements;
  const napi_status made =
      fits ? napi_create_external_arraybuffer(env, data, bytes, drop, holder, buffer) : napi_no_external_buffers_allowed;
  if (made == napi_ok) return true;
  if (made == napi_no_external_buffers_allowed) delete holder;  // else Node has called, or will call, `drop` all the same
  if (fits && made == napi_no_external_buffers_allowed) return false;
  bool pending = false;
  napi_value ignored;
  if (napi_is_exception_pending(env, &pending) == napi_ok && pending) napi_get_and_clear_last_exception(env, &ignored);
  raise("ERR_AFFUSE_MEMORY", "expected an array that this Node can hold, got %zu bytes. Use smaller batches.", bytes);
}

napi_value adopt_array(napi_env env, const TensorDesc& desc, Memory memory) {
  napi_value buffer = nullptr;
  const size_t bytes = desc.bytes();
  const auto kept = std::make_shared<Memory>(std::move(memory));
  if (bytes > kInlineBytes && lend_to_array(env, kept, kept->data(), bytes, dtype_size(desc.dtype), &buffer))
    return wrap(env, desc, buffer);
  void* copy = nullptr;
  require(napi_create_arraybuffer(env, bytes, &copy, &buffer));
  if (bytes) memcpy(copy, kept->data(), bytes);
  return wrap(env, desc, buffer);
}

napi_value fresh_array(napi_env env, const TensorDesc& desc, void** data) {
  const size_t bytes = desc.bytes();
  if (bytes > kInlineBytes) {
    Memory memory;
    Status status;
    memory.allocate(bytes, "an output", status);
    check(status);
    napi_value array = adopt_array(env, desc, std::move(memory));
    *data = view_of(env, array, "an output").data;
    return array;
  }
  napi_value buffer;
  require(napi_create_arraybuffer(env, bytes, data, &buffer));
  if (!bytes) *data = nullptr;
  return wrap(env, desc, buffer);
}

uint32_t list_length(napi_env env, napi_value list, const char* what, const char* op, int limit) {
  if (is_nullish(env, list)) return 0;
  if (!is_array(env, list)) raise("ERR_AFFUSE_USAGE", "expected the %s of %s as an array", what, op);
  const uint32_t length = array_length(env, list);
  if (length > uint32_t(limit)) raise("ERR_AFFUSE_USAGE", "expected at most %d %s of %s, got %u", limit, what, op, length);
  return length;
}

// --- inputs ----------------------------------------------------------------------------------------------------------

InputValues::InputValues(napi_env env, const OpDef& op, napi_value list) : env_(env), op_(op) {
  const uint32_t count = list_length(env, list, "inputs", op.name, op.input_count);
  for (uint32_t i = 0; i < count; ++i) {
    napi_value value = get(env, list, i);
    if (is_nullish(env, value)) continue;
    if (type_of(env, value) != napi_object)
      raise("ERR_AFFUSE_USAGE", "expected input %s of %s as {dtype, shape, data} or null", op.inputs[i].name, op.name);
    data_[i] = get(env, value, "data");
    read_shape(env, get(env, value, "shape"), shapes_[i], op.inputs[i].name);
  }
}

void InputValues::take(Tensor* in) {
  for (int i = 0; i < op_.input_count; ++i) {
    if (!data_[i]) continue;
    View& view = views_[i];
    view = view_of(env_, data_[i], op_.inputs[i].name);
    static_cast<TensorDesc&>(in[i]) = shapes_[i];
    in[i].dtype = view.dtype;
    in[i].data = view.data;
    if (in[i].count() != view.length)
      raise("ERR_AFFUSE_SHAPE", "expected data of %lld elements for input %s %s of %s, got %lld", (long long)in[i].count(),
            op_.inputs[i].name, ShapeText(in[i]).text, op_.name, (long long)view.length);
  }
}

SharedCopies::SharedCopies(const OpDef& op, const InputValues& inputs, Tensor* in) {
  for (int i = 0; i < op.input_count; ++i) {
    if (in[i].dtype != DType::i32 || !in[i].data || !inputs.shared(i)) continue;
    Status status;
    memory_[i].allocate(in[i].bytes(), "a copy of shared memory", status);
    check(status);
    memcpy(memory_[i].data(), in[i].data, in[i].bytes());
    in[i].data = memory_[i].data();
  }
}

// --- outputs ---------------------------------------------------------------------------------------------------------

OutputValues::OutputValues(napi_env env, const OpDef& op, napi_value list) : env_(env), op_(op) {
  const uint32_t count = list_length(env, list, "outputs", op.name, op.output_count);
  for (uint32_t i = 0; i < count; ++i) {
    napi_value value = get(env, list, i);
    const napi_valuetype type = type_of(env, value);
    if (type == napi_boolean) {
      require(napi_get_value_bool(env, value, &wanted_[i]));
    } else if (type == napi_object) {
      wanted_[i] = true;
      arrays_[i] = value;
    } else if (type != napi_null && type != napi_undefined) {
      raise("ERR_AFFUSE_USAGE", "expected output %s of %s as a typed array, true, false or null", op.outputs[i].name,
            op.name);
    }
  }
}

bool OutputValues::wants_fresh(int output, const TensorDesc& made) const {
  if (arrays_[output])
    raise("ERR_AFFUSE_OUTPUT",
          "expected true, false or null for output %s of an asynchronous %s, got a target: its outputs are always fresh",
          op_.outputs[output].name, op_.name);
  if (wanted_[output]) require_made(output, made);
  return wanted_[output];
}

void OutputValues::require_made(int output, const TensorDesc& made) const {
  if (!made.given())
    raise("ERR_AFFUSE_OUTPUT", "expected an output that these inputs of %s give, got %s", op_.name,
          op_.outputs[output].name);
}

void OutputValues::take(const TensorDesc* made, const Tensor* in, Tensor* out) {
  bool targets = false, target[kMaxOutputs] = {};
  for (int i = 0; i < op_.output_count; ++i) {
    if (!wanted_[i]) continue;
    require_made(i, made[i]);
    static_cast<TensorDesc&>(out[i]) = made[i];
    target[i] = arrays_[i] != nullptr;
    if (target[i]) targets = true;
    else arrays_[i] = fresh_array(env_, made[i], &out[i].data);
  }
  if (!targets) return;
  for (int i = 0; i < op_.output_count; ++i) {
    if (!target[i]) continue;
    const View view = view_of(env_, arrays_[i], op_.outputs[i].name);
    if (view.dtype != made[i].dtype)
      raise("ERR_AFFUSE_DTYPE", "expected the target of output %s of %s as %s, got %s", op_.outputs[i].name, op_.name,
            dtype_name(made[i].dtype), dtype_name(view.dtype));
    if (view.length != made[i].count())
      raise("ERR_AFFUSE_SHAPE", "expected a target of %lld elements for output %s %s of %s, got %lld",
            (long long)made[i].count(), op_.outputs[i].name, ShapeText(made[i]).text, op_.name, (long long)view.length);
    if (view.shared)
      raise("ERR_AFFUSE_SHARED", "expected the target of output %s of %s in unshared memory, got a SharedArrayBuffer",
            op_.outputs[i].name, op_.name);
    out[i].data = view.data;
  }
  Status status;
  check_overlap(op_, in, out, status);
  check(status);
}

napi_value OutputValues::result(const TensorDesc* made) const {
  napi_value list = make_array(env_, size_t(op_.output_count)), nothing = null(env_);
  for (int i = 0; i < op_.output_count; ++i)
    set(env_, list, uint32_t(i), wanted_[i] ? make_tensor(env_, made[i], arrays_[i]) : nothing);
  return list;
}

}  // namespace affuse::addon
