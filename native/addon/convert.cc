#include "convert.h"

#include <cmath>
#include <cstdarg>
#include <cstring>

#include "native/runtime/cpu.h"
#include "native/runtime/registry.h"

namespace affuse::addon {

// --- errors ----------------------------------------------------------------------------------------------------------

void raise(const char* code, const char* format, ...) {
  Raised raised;
  raised.status.code = code;
  va_list args;
  va_start(args, format);
  vsnprintf(raised.status.message, sizeof raised.status.message, format, args);
  va_end(args);
  throw raised;
}

void throw_coded(napi_env env, const Status& status) noexcept { napi_throw_error(env, status.code, status.message); }

void throw_unknown(napi_env env) noexcept {
  const napi_extended_error_info* info = nullptr;
  napi_get_last_error_info(env, &info);
  char message[200];
  snprintf(message, sizeof message, "Node-API: %s", info && info->error_message ? info->error_message : "unknown error");
  bool pending = false;
  if (napi_is_exception_pending(env, &pending) == napi_ok && !pending) napi_throw_error(env, "ERR_AFFUSE_INTERNAL", message);
}

Arguments::Arguments(napi_env env, napi_callback_info info) {
  size_t count = kLimit;
  require(napi_get_cb_info(env, info, &count, values, &self, &data));
}

// --- making values -----------------------------------------------------------------------------------------------------

napi_value undefined(napi_env env) {
  napi_value value;
  require(napi_get_undefined(env, &value));
  return value;
}

napi_value null(napi_env env) {
  napi_value value;
  require(napi_get_null(env, &value));
  return value;
}

napi_value make(napi_env env, std::string_view text) {
  napi_value value;
  require(napi_create_string_utf8(env, text.data(), text.size(), &value));
  return value;
}

napi_value make(napi_env env, const char* text) { return make(env, std::string_view(text)); }

napi_value make(napi_env env, double number) {
  napi_value value;
  require(napi_create_double(env, number, &value));
  return value;
}

napi_value make(napi_env env, bool truth) {
  napi_value value;
  require(napi_get_boolean(env, truth, &value));
  return value;
}

napi_value make_array(napi_env env, size_t length) {
  napi_value value;
  require(napi_create_array_with_length(env, length, &value));
  return value;
}

napi_value make_object(napi_env env) {
  napi_value value;
  require(napi_create_object(env, &value));
  return value;
}

napi_value make_function(napi_env env, const char* name, napi_callback callback, void* data) {
  napi_value value;
  require(napi_create_function(env, name, NAPI_AUTO_LENGTH, callback, data, &value));
  return value;
}

void set(napi_env env, napi_value object, const char* name, napi_value value) {
  require(napi_set_named_property(env, object, name, value));
}

void set(napi_env env, napi_value array, uint32_t index, napi_value value) {
  require(napi_set_element(env, array, index, value));
}

napi_value make_tensor(napi_env env, const TensorDesc& desc, napi_value data) {
  napi_value shape = make_array(env, size_t(desc.rank)), tensor = make_object(env);
  for (int i = 0; i < desc.rank; ++i) set(env, shape, uint32_t(i), make(env, double(desc.dim[i])));
  set(env, tensor, "dtype", make(env, desc.dtype == DType::f32 ? "f32" : desc.dtype == DType::f64 ? "f64" : "i32"));
  set(env, tensor, "shape", shape);
  if (data) set(env, tensor, "data", data);
  return tensor;
}

// --- reading values ----------------------------------------------------------------------------------------------------

napi_valuetype type_of(napi_env env, napi_value value) {
  napi_valuetype type;
  require(napi_typeof(env, value, &type));
  return type;
}

bool is_nullish(napi_env env, napi_value value) {
  const napi_valuetype type = type_of(env, value);
  return type == napi_null || type == napi_undefined;
}

bool is_array(napi_env env, napi_value value) {
  bool result = false;
  require(napi_is_array(env, value, &result));
  return result;
}

uint32_t array_length(napi_env env, napi_value array) {
  uint32_t length = 0;
  require(napi_get_array_length(env, array, &length));
  return length;
}

napi_value get(napi_env env, napi_value object, const char* name) {
  napi_value value;
  require(napi_get_named_property(env, object, name, &value));
  return value;
}

napi_value get(napi_env env, napi_value array, uint32_t index) {
  napi_value value;
  require(napi_get_element(env, array, index, &value));
  return value;
}

double number_or_nan(napi_env env, napi_value value) {
  double number = NAN;
  if (type_of(env, value) == napi_number) require(napi_get_value_double(env, value, &number));
  return number;
}

namespace {

// The string in `text`, cut to its size; false when the value is no string.
template <size_t N>
bool read_text(napi_env env, napi_value value, char (&text)[N], size_t& length) {
  return napi_get_value_string_utf8(env, value, text, N, &length) == napi_ok;
}

}  // namespace

const OpDef& operator_of(napi_env env, napi_value name) {
  char text[96];
  size_t length = 0;
  if (!read_text(env, name, text, length)) raise("ERR_AFFUSE_USAGE", "expected the operator's name as a string");
  const OpDef* op = find_operator({text, length});
  if (!op)
    raise("ERR_AFFUSE_UNKNOWN_OPERATOR", "expected the name of an operator, got \"%s\"; operators() lists them", text);
  return *op;
}

Device device_of(napi_env env, napi_value name) {
  char text[64];
  size_t length = 0;
  if (!read_text(env, name, text, length))
    raise("ERR_AFFUSE_DEVICE", "expected the device as a string: cpu, reference, cuda or emulated");
  Status status;
  Device device = Device::cpu;
  parse_device({text, length}, device, status);
  check(status);
  return device;
}

int threads_of(napi_env env, napi_value value) {
  if (is_nullish(env, value)) return default_threads();
  const double count = number_or_nan(env, value);
  if (!(count >= 1 && count <= kMaxThreads) || count != int(count))
    raise("ERR_AFFUSE_THREADS", "expected threads as an integer in [1, %d], got %g", kMaxThreads, count);
  return int(count);
}

void read_shape(napi_env env, napi_value shape, TensorDesc& desc, const char* label) {
  if (!is_array(env, shape)) raise("ERR_AFFUSE_SHAPE", "expected %s with a shape, an array of integers", label);
  const uint32_t rank = array_length(env, shape);
  if (rank > uint32_t(kMaxRank))
    raise("ERR_AFFUSE_RANK", "expected %s with at most %d dimensions, got %u", label, kMaxRank, rank);
  for (uint32_t i = 0; i < rank; ++i) {
    const double dim = number_or_nan(env, get(env, shape, i));
    if (!(dim >= 0 && dim <= 9e15) || dim != std::floor(dim))
      raise("ERR_AFFUSE_SHAPE", "expected dimension %u of %s as an integer >= 0, got %g", i, label, dim);
    desc.dim[i] = int64_t(dim);
  }
  desc.rank = int(rank);
  const double total = extent(desc);
  if (total > kElementLimit)
    raise("ERR_AFFUSE_SHAPE", "expected %s with at most %g elements, got %g", label, kElementLimit, total);
}

TensorDesc read_desc(napi_env env, napi_value value, const char* label) {
  TensorDesc desc;
  if (is_nullish(env, value)) return desc;
  if (type_of(env, value) != napi_object) raise("ERR_AFFUSE_USAGE", "expected %s as {dtype, shape} or null", label);
  char text[16] = "";
  size_t length = 0;
  read_text(env, get(env, value, "dtype"), text, length);
  if (!strcmp(text, "f32")) desc.dtype = DType::f32;
  else if (!strcmp(text, "i32")) desc.dtype = DType::i32;
  else if (!strcmp(text, "f64")) desc.dtype = DType::f64;
  else raise("ERR_AFFUSE_DTYPE", "expected the dtype of %s as f32, f64 or i32, got \"%s\"", label, text);
  read_shape(env, get(env, value, "shape"), desc, label);
  return desc;
}

void read_attributes(napi_env env, const OpDef& op, napi_value object, Attr* attr) {
  default_attributes(op, attr);
  if (is_nullish(env, object)) return;
  if (type_of(env, object) != napi_object)
    raise("ERR_AFFUSE_ATTRIBUTE", "expected the attributes of %s as an object", op.name);
  napi_value names;
  require(
      napi_get_all_property_names(env, object, napi_key_own_only, napi_key_enumerable, napi_key_numbers_to_strings, &names));
  const uint32_t count = array_length(env, names);
  for (uint32_t i = 0; i < count; ++i) {
    napi_value name = get(env, names, i), value;
    require(napi_get_property(env, object, name, &value));
    char key[96], text[96];
    size_t length = 0;
    if (!read_text(env, name, key, length)) continue;  // symbols name nothing
    AttrValue given;
    switch (type_of(env, value)) {
      case napi_undefined: continue;
      case napi_number:
        given.kind = AttrValue::number;
        require(napi_get_value_double(env, value, &given.real));
        break;
      case napi_boolean:
        given.kind = AttrValue::boolean;
        require(napi_get_value_bool(env, value, &given.truth));
        break;
      case napi_bigint: {
        int sign = 0;
        uint64_t words[2] = {0, 0};
        size_t word_count = 2;
        require(napi_get_value_bigint_words(env, value, &sign, &word_count, words));
        if (word_count > 1) raise("ERR_AFFUSE_ATTRIBUTE", "expected attribute %s of %s below 2^64", key, op.name);
        given.kind = AttrValue::integer;
        given.negative = sign;
        given.magnitude = words[0];
        break;
      }
      case napi_string:
        read_text(env, value, text, length);
        given.kind = AttrValue::text;
        given.string = {text, length};
        break;
      default:
        raise("ERR_AFFUSE_ATTRIBUTE", "expected attribute %s of %s as a number, boolean or string", key, op.name);
    }
    Status status;
    set_attribute(op, key, given, attr, status);
    check(status);
  }
}

}  // namespace affuse::addon
