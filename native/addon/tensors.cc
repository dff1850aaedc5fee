#include "tensors.h"

#include <cstring>

#include "kernels/common/shape.h"
#include "native/runtime/cpu.h"

namespace affuse::addon {

uint32_t list_length(napi_env env, napi_value list, const char* what, const char* op, int limit) {
  if (is_nullish(env, list)) return 0;
  bool array = false;
  uint32_t length = 0;
  require(env, napi_is_array(env, list, &array));
  if (!array) raise(env, "ERR_AFFUSE_USAGE", "expected the %s of %s as an array", what, op);
  require(env, napi_get_array_length(env, list, &length));
  if (length > uint32_t(limit))
    raise(env, "ERR_AFFUSE_USAGE", "expected at most %d %s of %s, got %u", limit, what, op, length);
  return length;
}

int read_threads(napi_env env, napi_value value) {
  napi_valuetype type;
  require(env, napi_typeof(env, value, &type));
  if (type == napi_undefined || type == napi_null) return default_threads();
  double count = 0;
  if (napi_get_value_double(env, value, &count) != napi_ok || !(count >= 1 && count <= kMaxThreads) || count != int(count))
    raise(env, "ERR_AFFUSE_THREADS", "expected threads as an integer in [1, %d], got %g", kMaxThreads, count);
  return int(count);
}

// --- inputs ----------------------------------------------------------------------------------------------------------

InputValues::InputValues(napi_env env, const OpDef& op, napi_value list) : env_(env), op_(op) {
  const uint32_t count = list_length(env, list, "inputs", op.name, op.input_count);
  for (uint32_t i = 0; i < count; ++i) {
    napi_value value, shape;
    require(env, napi_get_element(env, list, i, &value));
    napi_valuetype type;
    require(env, napi_typeof(env, value, &type));
    if (type == napi_null || type == napi_undefined) continue;
    if (type != napi_object)
      raise(env, "ERR_AFFUSE_USAGE", "expected input %s of %s as {dtype, shape, data} or null", op.inputs[i].name, op.name);
    require(env, napi_get_named_property(env, value, "data", &data_[i]));
    require(env, napi_get_named_property(env, value, "shape", &shape));
    read_shape(env, shape, shapes_[i], op.inputs[i].name);
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
      raise(env_, "ERR_AFFUSE_SHAPE", "expected data of %lld elements for input %s %s of %s, got %lld",
            (long long)in[i].count(), op_.inputs[i].name, ShapeText(in[i]).text, op_.name, (long long)view.length);
  }
}

SharedCopies::SharedCopies(napi_env env, const OpDef& op, const InputValues& inputs, Tensor* in) {
  for (int i = 0; i < op.input_count; ++i) {
    if (in[i].dtype != DType::i32 || !in[i].data || !inputs.shared(i)) continue;
    Status status;
    if (!memory_[i].allocate(in[i].bytes(), "a copy of shared memory", status)) raise(env, status);
    memcpy(memory_[i].data(), in[i].data, in[i].bytes());
    in[i].data = memory_[i].data();
  }
}

// --- outputs ---------------------------------------------------------------------------------------------------------

OutputValues::OutputValues(napi_env env, const OpDef& op, napi_value list) : env_(env), op_(op) {
  const uint32_t count = list_length(env, list, "outputs", op.name, op.output_count);
  for (uint32_t i = 0; i < count; ++i) {
    napi_value value;
    require(env, napi_get_element(env, list, i, &value));
    napi_valuetype type;
    require(env, napi_typeof(env, value, &type));
    if (type == napi_boolean) {
      require(env, napi_get_value_bool(env, value, &wanted_[i]));
    } else if (type == napi_object) {
      wanted_[i] = true;
      arrays_[i] = value;
    } else if (type != napi_null && type != napi_undefined) {
      raise(env, "ERR_AFFUSE_USAGE", "expected output %s of %s as a typed array, true, false or null", op.outputs[i].name,
            op.name);
    }
  }
}

bool OutputValues::wants_fresh(int output, const TensorDesc& made) const {
  if (arrays_[output])
    raise(env_, "ERR_AFFUSE_OUTPUT", "expected true, false or null for output %s of an asynchronous %s, got a target: its outputs are always fresh",
          op_.outputs[output].name, op_.name);
  if (wanted_[output]) require_made(output, made);
  return wanted_[output];
}

void OutputValues::require_made(int output, const TensorDesc& made) const {
  if (!made.given())
    raise(env_, "ERR_AFFUSE_OUTPUT", "expected an output that these inputs of %s give, got %s", op_.name, op_.outputs[output].name);
}

void OutputValues::take(const TensorDesc* made, const Tensor* in, Tensor* out) {
  // Fresh arrays first: making them may move small arrays of the caller's.
  bool targets = false;
  for (int i = 0; i < op_.output_count; ++i) {
    if (!wanted_[i]) continue;
    require_made(i, made[i]);
    static_cast<TensorDesc&>(out[i]) = made[i];
    if (arrays_[i]) targets = true;
    else arrays_[i] = make_array(env_, made[i], &out[i].data);
  }
  if (!targets) return;
  for (int i = 0; i < op_.output_count; ++i) {
    if (!wanted_[i] || out[i].data) continue;
    const View view = view_of(env_, arrays_[i], op_.outputs[i].name);
    if (view.dtype != made[i].dtype)
      raise(env_, "ERR_AFFUSE_DTYPE", "expected the target of output %s of %s as %s, got %s", op_.outputs[i].name, op_.name,
            dtype_name(made[i].dtype), dtype_name(view.dtype));
    if (view.length != made[i].count())
      raise(env_, "ERR_AFFUSE_SHAPE", "expected a target of %lld elements for output %s %s of %s, got %lld",
            (long long)made[i].count(), op_.outputs[i].name, ShapeText(made[i]).text, op_.name, (long long)view.length);
    if (view.shared)
      raise(env_, "ERR_AFFUSE_SHARED", "expected the target of output %s of %s in unshared memory, got a SharedArrayBuffer",
            op_.outputs[i].name, op_.name);
    out[i].data = view.data;
  }
  Status status;
  check_overlap(op_, in, out, status);
  check(env_, status);
}

napi_value OutputValues::result(const TensorDesc* made) const {
  napi_value list;
  require(env_, napi_create_array_with_length(env_, size_t(op_.output_count), &list));
  napi_value nothing;
  require(env_, napi_get_null(env_, &nothing));
  for (int i = 0; i < op_.output_count; ++i)
    require(env_, napi_set_element(env_, list, uint32_t(i), wanted_[i] ? make_tensor(env_, made[i], arrays_[i]) : nothing));
  return list;
}

}  // namespace affuse::addon
