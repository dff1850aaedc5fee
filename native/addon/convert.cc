#include "convert.h"

#include <cmath>
#include <cstdarg>
#include <cstring>

#include "native/runtime/cpu.h"
#include "native/runtime/memory.h"
#include "native/runtime/registry.h"

namespace affuse::addon {

Napi::Error coded_error(napi_env env, const Status& status) {
  Napi::Error error = Napi::Error::New(env, status.message);
  error.Set("code", Napi::String::New(env, status.code));
  return error;
}

void raise(napi_env env, const Status& status) { throw coded_error(env, status); }

void raise(napi_env env, const char* code, const char* format, ...) {
  Status status;
  status.code = code;
  va_list args;
  va_start(args, format);
  vsnprintf(status.message, sizeof status.message, format, args);
  va_end(args);
  raise(env, status);
}

void require(napi_env env, napi_status status) {
  if (status != napi_ok) throw Napi::Error::New(env);
}

const OpDef& operator_of(napi_env env, napi_value name) {
  char text[96];
  size_t length = 0;
  if (napi_get_value_string_utf8(env, name, text, sizeof text, &length) != napi_ok)
    raise(env, "ERR_AFFUSE_USAGE", "expected the operator's name as a string");
  const OpDef* op = find_operator({text, length});
  if (!op)
    raise(env, "ERR_AFFUSE_UNKNOWN_OPERATOR", "expected the name of an operator, got \"%s\"; operators() lists them", text);
  return *op;
}

Device device_of(napi_env env, napi_value name) {
  char text[64];
  size_t length = 0;
  if (napi_get_value_string_utf8(env, name, text, sizeof text, &length) != napi_ok)
    raise(env, "ERR_AFFUSE_DEVICE", "expected the device as a string: cpu, reference or cuda");
  Status status;
  Device device = Device::cpu;
  parse_device({text, length}, device, status);
  check(env, status);
  return device;
}

napi_value make_string(napi_env env, std::string_view text) {
  napi_value value;
  require(env, napi_create_string_utf8(env, text.data(), text.size(), &value));
  return value;
}

napi_value make_number(napi_env env, double number) {
  napi_value value;
  require(env, napi_create_double(env, number, &value));
  return value;
}

static const char* dtype_key(DType dtype) {
  return dtype == DType::f32 ? "f32" : dtype == DType::f64 ? "f64" : "i32";
}

napi_value make_tensor(napi_env env, const TensorDesc& desc, napi_value data) {
  napi_value shape, dtype, tensor;
  require(env, napi_create_array_with_length(env, size_t(desc.rank), &shape));
  for (int i = 0; i < desc.rank; ++i)
    require(env, napi_set_element(env, shape, uint32_t(i), make_number(env, double(desc.dim[i]))));
  require(env, napi_create_string_latin1(env, dtype_key(desc.dtype), 3, &dtype));
  require(env, napi_create_object(env, &tensor));
  require(env, napi_set_named_property(env, tensor, "dtype", dtype));
  require(env, napi_set_named_property(env, tensor, "shape", shape));
  if (data) require(env, napi_set_named_property(env, tensor, "data", data));
  return tensor;
}

bool is_nullish(napi_env env, napi_value value) {
  napi_valuetype type;
  require(env, napi_typeof(env, value, &type));
  return type == napi_null || type == napi_undefined;
}

void read_shape(napi_env env, napi_value shape, TensorDesc& desc, const char* label) {
  bool array = false;
  uint32_t rank = 0;
  if (napi_is_array(env, shape, &array) != napi_ok || !array)
    raise(env, "ERR_AFFUSE_SHAPE", "expected %s with a shape, an array of integers", label);
  require(env, napi_get_array_length(env, shape, &rank));
  if (rank > uint32_t(kMaxRank))
    raise(env, "ERR_AFFUSE_RANK", "expected %s with at most %d dimensions, got %u", label, kMaxRank, rank);
  double total = 1;
  for (uint32_t i = 0; i < rank; ++i) {
    napi_value element;
    double dim = -1;
    require(env, napi_get_element(env, shape, i, &element));
    if (napi_get_value_double(env, element, &dim) != napi_ok || !(dim >= 0) || dim != std::floor(dim) || dim > 9e15)
      raise(env, "ERR_AFFUSE_SHAPE", "expected dimension %u of %s as an integer >= 0, got %g", i, label, dim);
    desc.dim[i] = int64_t(dim);
    total *= dim > 1 ? dim : 1;
  }
  // So that no product of dimensions that anyone forms later can overflow.
  if (total > 1e15) raise(env, "ERR_AFFUSE_SHAPE", "expected %s with at most 1e15 elements, got %g", label, total);
  desc.rank = int(rank);
}

DType read_dtype(napi_env env, napi_value value, const char* label) {
  char text[16] = "";
  size_t length = 0;
  napi_get_value_string_utf8(env, value, text, sizeof text, &length);
  if (!strcmp(text, "f32")) return DType::f32;
  if (!strcmp(text, "i32")) return DType::i32;
  if (!strcmp(text, "f64")) return DType::f64;
  raise(env, "ERR_AFFUSE_DTYPE", "expected the dtype of %s as f32, f64 or i32, got \"%s\"", label, text);
}

TensorDesc read_desc(napi_env env, napi_value value, const char* label) {
  TensorDesc desc;
  if (is_nullish(env, value)) return desc;
  napi_valuetype type;
  require(env, napi_typeof(env, value, &type));
  if (type != napi_object) raise(env, "ERR_AFFUSE_USAGE", "expected %s as {dtype, shape} or null", label);
  napi_value property;
  require(env, napi_get_named_property(env, value, "dtype", &property));
  desc.dtype = read_dtype(env, property, label);
  require(env, napi_get_named_property(env, value, "shape", &property));
  read_shape(env, property, desc, label);
  return desc;
}

void read_attributes(napi_env env, const OpDef& op, napi_value object, Attr* attr) {
  default_attributes(op, attr);
  napi_valuetype type;
  require(env, napi_typeof(env, object, &type));
  if (type == napi_undefined || type == napi_null) return;
  if (type != napi_object) raise(env, "ERR_AFFUSE_ATTRIBUTE", "expected the attributes of %s as an object", op.name);
  napi_value names;
  uint32_t count = 0;
  require(env, napi_get_all_property_names(env, object, napi_key_own_only, napi_key_enumerable, napi_key_numbers_to_strings,
                                           &names));
  require(env, napi_get_array_length(env, names, &count));
  for (uint32_t i = 0; i < count; ++i) {
    napi_value name, value;
    require(env, napi_get_element(env, names, i, &name));
    require(env, napi_get_property(env, object, name, &value));
    char key[96];
    size_t length = 0;
    if (napi_get_value_string_utf8(env, name, key, sizeof key, &length) != napi_ok) continue;  // symbols name nothing
    require(env, napi_typeof(env, value, &type));
    AttrValue given;
    char text[96];
    switch (type) {
      case napi_undefined: continue;
      case napi_number:
        given.kind = AttrValue::number;
        require(env, napi_get_value_double(env, value, &given.real));
        break;
      case napi_boolean:
        given.kind = AttrValue::boolean;
        require(env, napi_get_value_bool(env, value, &given.truth));
        break;
      case napi_bigint: {
        int sign = 0;
        uint64_t words[2] = {0, 0};
        size_t word_count = 2;
        require(env, napi_get_value_bigint_words(env, value, &sign, &word_count, words));
        if (word_count > 1) raise(env, "ERR_AFFUSE_ATTRIBUTE", "expected attribute %s of %s below 2^64", key, op.name);
        given.kind = AttrValue::integer;
        given.negative = sign;
        given.magnitude = words[0];
        break;
      }
      case napi_string:
        require(env, napi_get_value_string_utf8(env, value, text, sizeof text, &length));
        given.kind = AttrValue::text;
        given.string = {text, length};
        break;
      default:
        raise(env, "ERR_AFFUSE_ATTRIBUTE", "expected attribute %s of %s as a number, boolean or string", key, op.name);
    }
    Status status;
    set_attribute(op, key, given, attr, status);
    check(env, status);
  }
}

View view_of(napi_env env, napi_value value, const char* label) {
  bool typed = false;
  if (napi_is_typedarray(env, value, &typed) != napi_ok || !typed)
    raise(env, "ERR_AFFUSE_DTYPE", "expected the data of %s as a Float32Array, Float64Array or Int32Array", label);
  napi_typedarray_type type;
  size_t length = 0, offset = 0;
  napi_value buffer;
  View view;
  view.array = value;
  require(env, napi_get_typedarray_info(env, value, &type, &length, &view.data, &buffer, &offset));
  view.dtype = type == napi_float32_array   ? DType::f32
               : type == napi_int32_array   ? DType::i32
               : type == napi_float64_array ? DType::f64
                                            : DType::none;
  if (view.dtype == DType::none)
    raise(env, "ERR_AFFUSE_DTYPE", "expected the data of %s as a Float32Array, Float64Array or Int32Array, got another typed array", label);
  view.length = int64_t(length);
  if (length) {
    bool plain = false;
    require(env, napi_is_arraybuffer(env, buffer, &plain));
    view.shared = !plain;
    return view;
  }
  // Empty on purpose, or because its memory went away?
  view.data = nullptr;
  bool detached = false;
  require(env, napi_is_detached_arraybuffer(env, buffer, &detached));
  if (detached)
    raise(env, "ERR_AFFUSE_DETACHED", "expected live memory for %s, got an array whose buffer was transferred elsewhere", label);
  return view;
}

namespace {

napi_typedarray_type array_type(DType dtype) {
  return dtype == DType::f32 ? napi_float32_array : dtype == DType::f64 ? napi_float64_array : napi_int32_array;
}

// Below this V8's own zeroed memory is cheaper than an external block with a finalizer.
constexpr size_t kInlineBytes = 1 << 16;

}  // namespace

napi_value make_array(napi_env env, const TensorDesc& desc, void* data) {
  napi_value buffer = nullptr, array;
  const size_t bytes = desc.bytes();
  napi_status status = napi_generic_failure;
  if (bytes > kInlineBytes) {
    status = napi_create_external_arraybuffer(
        env, data, bytes, [](napi_env, void* memory, void*) { release_memory(memory); }, nullptr, &buffer);
  }
  if (status != napi_ok) {  // small, or a runtime that allows no external memory
    void* copy = nullptr;
    status = napi_create_arraybuffer(env, bytes, &copy, &buffer);
    if (status == napi_ok && bytes) memcpy(copy, data, bytes);
    release_memory(data);
    require(env, status);
  }
  require(env, napi_create_typedarray(env, array_type(desc.dtype), size_t(desc.count()), buffer, 0, &array));
  return array;
}

napi_value make_array(napi_env env, const TensorDesc& desc, void** data) {
  const size_t bytes = desc.bytes();
  if (bytes > kInlineBytes) {
    Memory memory;
    Status status;
    if (!memory.allocate(bytes, "an output", status)) raise(env, status);
    *data = memory.data();
    return make_array(env, desc, memory.release());
  }
  napi_value buffer, array;
  require(env, napi_create_arraybuffer(env, bytes, data, &buffer));
  require(env, napi_create_typedarray(env, array_type(desc.dtype), size_t(desc.count()), buffer, 0, &array));
  if (!bytes) *data = nullptr;
  return array;
}

std::string label(const char* kind, const char* tensor, const char* op) {
  return std::string(kind) + " " + tensor + " of " + op;
}

}  // namespace affuse::addon
