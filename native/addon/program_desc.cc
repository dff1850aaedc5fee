#include "program_desc.h"

#include <cmath>

#include "wrapped.h"

namespace affuse::addon {
namespace {

double integer(napi_env env, napi_value value, const char* what, double low, double high) {
  const double number = number_or_nan(env, value);
  if (!(number >= low && number <= high) || number != std::floor(number))
    raise("ERR_AFFUSE_PROGRAM", "expected %s as an integer in [%.0f, %.0f], got %.17g", what, low, high, number);
  return number;
}

constexpr double kMostBytes = 9e15, kMostItems = 1e9;

napi_value array(napi_env env, napi_value value, const char* what) {
  if (!is_array(env, value)) raise("ERR_AFFUSE_PROGRAM", "expected %s as an array", what);
  return value;
}

napi_value object(napi_env env, napi_value value, const char* what) {
  if (type_of(env, value) != napi_object) raise("ERR_AFFUSE_PROGRAM", "expected %s as an object", what);
  return value;
}

std::vector<int> indexes(napi_env env, napi_value value, const char* what) {
  std::vector<int> result(array_length(env, array(env, value, what)));
  for (uint32_t i = 0; i < result.size(); ++i) result[i] = int(integer(env, get(env, value, i), what, -1, kMostItems));
  return result;
}

// attribute name → scalar index
std::vector<ScalarBinding> read_scalars(napi_env env, napi_value from, const OpDef& op) {
  std::vector<ScalarBinding> result;
  if (is_nullish(env, from)) return result;
  napi_value names;
  require(napi_get_property_names(env, object(env, from, "scalars"), &names));
  const uint32_t count = array_length(env, names);
  for (uint32_t i = 0; i < count; ++i) {
    char name[96];
    size_t length = 0;
    napi_value key = get(env, names, i), scalar;
    require(napi_get_value_string_utf8(env, key, name, sizeof name, &length));
    require(napi_get_property(env, from, key, &scalar));
    const int attribute = find_attribute(op, {name, length});
    if (attribute < 0)
      raise("ERR_AFFUSE_ATTRIBUTE", "expected scalars bound to attributes of %s, got \"%.60s\"", op.name, name);
    result.push_back({attribute, int(integer(env, scalar, "a scalar's index", 0, kMostItems))});
  }
  return result;
}

ProgramInstruction read_instruction(napi_env env, napi_value from) {
  ProgramInstruction result;
  result.op = &operator_of(env, get(env, from, "op"));
  const OpDef& op = *result.op;
  const auto tensors = [&](const char* key, int count) {
    std::vector<int> list = indexes(env, get(env, from, key), key);
    if (list.size() > size_t(count))
      raise("ERR_AFFUSE_PROGRAM", "expected at most %d %s of %s, got %zu", count, key, op.name, list.size());
    list.resize(size_t(count), -1);
    return list;
  };
  result.inputs = tensors("inputs", op.input_count);
  result.outputs = tensors("outputs", op.output_count);
  result.attributes.resize(size_t(op.attr_count) + 1);  // + 1: data() must not be null
  read_attributes(env, op, get(env, from, "attributes"), result.attributes.data());
  result.scalars = read_scalars(env, get(env, from, "scalars"), op);
  return result;
}

ProgramValue read_value(napi_env env, napi_value from, uint32_t index) {
  const std::string name = "value " + std::to_string(index);
  ProgramValue result;
  static_cast<TensorDesc&>(result) = read_desc(env, object(env, from, name.c_str()), name.c_str());
  result.buffer = int(integer(env, get(env, from, "buffer"), "a value's buffer", -1, kMostItems));
  result.offset = size_t(integer(env, get(env, from, "offset"), "a value's offset", 0, kMostBytes));
  const napi_value feed = get(env, from, "feed");
  if (!is_nullish(env, feed)) result.feed = int(integer(env, feed, "a value's feed", -1, kMostItems));
  return result;
}

}  // namespace

ProgramSpec read_program(napi_env env, napi_value desc) {
  object(env, desc, "a program");
  ProgramSpec spec;
  spec.device = device_of(env, get(env, desc, "device"));
  spec.arena_bytes = size_t(integer(env, get(env, desc, "arenaBytes"), "arenaBytes", 0, kMostBytes));
  spec.scalars = int(integer(env, get(env, desc, "scalars"), "scalars", 0, kMostItems));
  const auto each = [&](const char* key, auto&& read) {
    napi_value list = array(env, get(env, desc, key), key);
    const uint32_t count = array_length(env, list);
    for (uint32_t i = 0; i < count; ++i) {
      const Scope scope(env);
      read(get(env, list, i), i);
    }
  };
  each("buffers", [&](napi_value entry, uint32_t i) {
    const std::shared_ptr<Buffer>* buffer = unwrap<Buffer>(env, entry);
    if (!buffer) raise("ERR_AFFUSE_PROGRAM", "expected buffer %u as a NativeBuffer of this copy of the package", i);
    if (!*buffer) raise("ERR_AFFUSE_DISPOSED", "expected buffer %u alive, got a disposed one", i);
    spec.buffers.push_back(*buffer);
  });
  each("values", [&](napi_value entry, uint32_t i) { spec.values.push_back(read_value(env, entry, i)); });
  each("instructions", [&](napi_value entry, uint32_t) {
    spec.instructions.push_back(read_instruction(env, object(env, entry, "an instruction")));
  });
  spec.feeds = indexes(env, get(env, desc, "feeds"), "feeds");
  spec.fetches = indexes(env, get(env, desc, "fetches"), "fetches");
  return spec;
}

}  // namespace affuse::addon
