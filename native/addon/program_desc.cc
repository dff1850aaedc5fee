// ProgramDesc (lib/native/addon.ts) → ProgramSpec. Program::create checks what is in it; this checks that it is one.
#include <cmath>

#include "programs.h"

namespace affuse::addon {
namespace {

double integer(Napi::Env env, Napi::Value value, const char* what, double low) {
  const double number = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : NAN;
  if (!(number >= low && number <= 9e15) || number != std::floor(number))
    raise(env, "ERR_AFFUSE_PROGRAM", "expected %s as an integer >= %g, got %g", what, low, number);
  return number;
}

Napi::Array array(Napi::Env env, Napi::Value value, const char* what) {
  if (!value.IsArray()) raise(env, "ERR_AFFUSE_PROGRAM", "expected %s as an array", what);
  return value.As<Napi::Array>();
}

Napi::Object object(Napi::Env env, Napi::Value value, const char* what) {
  if (!value.IsObject()) raise(env, "ERR_AFFUSE_PROGRAM", "expected %s as an object", what);
  return value.As<Napi::Object>();
}

std::vector<int> indexes(Napi::Env env, Napi::Value value, const char* what) {
  const Napi::Array list = array(env, value, what);
  std::vector<int> result(list.Length());
  for (uint32_t i = 0; i < list.Length(); ++i) {
    const double index = integer(env, list[i], what, -1);
    if (index > 1e9) raise(env, "ERR_AFFUSE_PROGRAM", "expected %s below 1e9, got %g", what, index);
    result[i] = int(index);
  }
  return result;
}

ProgramInstruction read_instruction(Napi::Env env, Napi::Object from) {
  ProgramInstruction result;
  result.op = &operator_of(env, from.Get("op"));
  const OpDef& op = *result.op;
  const auto tensors = [&](const char* key, int count) {
    std::vector<int> list = indexes(env, from.Get(key), key);
    if (list.size() > size_t(count))
      raise(env, "ERR_AFFUSE_PROGRAM", "expected at most %d %s of %s, got %zu", count, key, op.name, list.size());
    list.resize(size_t(count), -1);
    return list;
  };
  result.inputs = tensors("inputs", op.input_count);
  result.outputs = tensors("outputs", op.output_count);
  result.attributes.resize(size_t(op.attr_count) + 1);  // + 1: data() must not be null
  read_attributes(env, op, from.Get("attributes"), result.attributes.data());
  const Napi::Value scalars = from.Get("scalars");
  if (scalars.IsUndefined() || scalars.IsNull()) return result;
  const Napi::Object bound = object(env, scalars, "scalars");
  const Napi::Array names = bound.GetPropertyNames();
  for (uint32_t i = 0; i < names.Length(); ++i) {
    const std::string name = Napi::Value(names[i]).ToString().Utf8Value();
    const int attribute = find_attribute(op, name);
    if (attribute < 0)
      raise(env, "ERR_AFFUSE_ATTRIBUTE", "expected scalars bound to attributes of %s, got \"%.60s\"", op.name, name.c_str());
    const double scalar = integer(env, bound.Get(name), "a scalar's index", 0);
    result.scalars.push_back({attribute, scalar > 1e9 ? -1 : int(scalar)});
  }
  return result;
}

}  // namespace

ProgramSpec read_program(Napi::Env env, Napi::Value value) {
  const Napi::Object desc = object(env, value, "a program");
  ProgramSpec spec;
  spec.device = device_of(env, desc.Get("device"));
  spec.arena_bytes = size_t(integer(env, desc.Get("arenaBytes"), "arenaBytes", 0));
  spec.scalars = int(integer(env, desc.Get("scalars"), "scalars", 0));
  const Napi::Array buffers = array(env, desc.Get("buffers"), "buffers");
  const Napi::Function buffer_class = Instance::of(env).buffer_class.Value();
  for (uint32_t i = 0; i < buffers.Length(); ++i) {
    const Napi::Value entry = buffers[i];
    if (!entry.IsObject() || !entry.As<Napi::Object>().InstanceOf(buffer_class))
      raise(env, "ERR_AFFUSE_PROGRAM", "expected buffer %u as a NativeBuffer of this copy of the package", i);
    const auto& buffer = BufferObject::Unwrap(entry.As<Napi::Object>())->buffer();
    if (!buffer) raise(env, "ERR_AFFUSE_DISPOSED", "expected buffer %u alive, got a disposed one", i);
    spec.buffers.push_back(buffer);
  }
  const Napi::Array values = array(env, desc.Get("values"), "values");
  for (uint32_t i = 0; i < values.Length(); ++i) {
    const Napi::Object entry = object(env, values[i], "a value");
    const std::string name = "value " + std::to_string(i);
    ProgramValue result;
    static_cast<TensorDesc&>(result) = read_desc(env, entry, name.c_str());
    result.buffer = int(integer(env, entry.Get("buffer"), "a value's buffer", -1));
    result.offset = size_t(integer(env, entry.Get("offset"), "a value's offset", 0));
    spec.values.push_back(result);
  }
  const Napi::Array instructions = array(env, desc.Get("instructions"), "instructions");
  for (uint32_t i = 0; i < instructions.Length(); ++i) {
    const Napi::HandleScope scope(env);
    spec.instructions.push_back(read_instruction(env, object(env, instructions[i], "an instruction")));
  }
  spec.feeds = indexes(env, desc.Get("feeds"), "feeds");
  spec.fetches = indexes(env, desc.Get("fetches"), "fetches");
  return spec;
}

}  // namespace affuse::addon
