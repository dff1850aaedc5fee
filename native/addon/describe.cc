// operators(), backends(), cpu(): what there is.
#include "addon.h"
#include "native/runtime/cpu.h"
#include "native/runtime/registry.h"

namespace affuse::addon {
namespace {

Napi::Value describe_tensors(Napi::Env env, const TensorRule* rules, int count) {
  Napi::Array list = Napi::Array::New(env, size_t(count));
  for (int i = 0; i < count; ++i) {
    Napi::Object rule = Napi::Object::New(env);
    rule["name"] = rules[i].name;
    rule["shape"] = rules[i].shape;
    rule["dtype"] = rules[i].dtype == DType::i32 ? "i32" : "f32";
    rule["optional"] = rules[i].optional;
    rule["doc"] = rules[i].doc;
    list[uint32_t(i)] = rule;
  }
  return list;
}

Napi::Array split_choices(Napi::Env env, const char* choices) {
  Napi::Array list = Napi::Array::New(env);
  std::string_view rest = choices ? choices : "";
  for (uint32_t i = 0; !rest.empty(); ++i) {
    const size_t bar = rest.find('|');
    list[i] = std::string(rest.substr(0, bar));
    rest = bar == std::string_view::npos ? std::string_view() : rest.substr(bar + 1);
  }
  return list;
}

Napi::Value describe_attributes(Napi::Env env, const OpDef& op) {
  static const char* const kKinds[] = {"real", "integer", "boolean", "choice", "seed"};
  Napi::Array list = Napi::Array::New(env, size_t(op.attr_count));
  for (int i = 0; i < op.attr_count; ++i) {
    const AttrRule& rule = op.attrs[i];
    Napi::Array choices = split_choices(env, rule.choices);
    Napi::Object entry = Napi::Object::New(env);
    entry["name"] = rule.name;
    entry["kind"] = kKinds[int(rule.kind)];
    if (rule.kind == AttrKind::boolean) entry["default"] = Napi::Boolean::New(env, rule.fallback != 0);
    else if (rule.kind == AttrKind::choice) entry["default"] = Napi::Value(choices[uint32_t(rule.fallback)]);
    else entry["default"] = rule.fallback;
    entry["low"] = rule.low;
    entry["high"] = rule.high;
    entry["choices"] = choices;
    entry["doc"] = rule.doc;
    list[uint32_t(i)] = entry;
  }
  return list;
}

}  // namespace

Napi::Value list_operators(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  Napi::Array list = Napi::Array::New(env);
  uint32_t index = 0;
  for (const OpDef* op : operators()) {
    Napi::Object entry = Napi::Object::New(env);
    entry["name"] = op->name;
    entry["summary"] = op->summary;
    entry["inputs"] = describe_tensors(env, op->inputs, op->input_count);
    entry["outputs"] = describe_tensors(env, op->outputs, op->output_count);
    entry["attributes"] = describe_attributes(env, *op);
    if (op->backward) entry["backward"] = op->backward;
    else entry["backward"] = env.Null();
    entry["flops"] = op->flops;
    entry["bytes"] = op->bytes;
    list[index++] = entry;
  }
  return list;
}

Napi::Value list_backends(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  Napi::Array list = Napi::Array::New(env);
  const auto add = [&](const char* name, const char* code, const char* reason) {
    Napi::Object entry = Napi::Object::New(env);
    entry["name"] = name;
    entry["available"] = code == nullptr;
    entry["code"] = code ? Napi::Value(Napi::String::New(env, code)) : env.Null();
    entry["reason"] = code ? Napi::Value(Napi::String::New(env, reason)) : env.Null();
    list[list.Length()] = entry;
  };
  add("cpu", cpu_info().error.code, cpu_info().error.message);
  add("reference", nullptr, nullptr);
  add("cuda", "ERR_AFFUSE_CUDA_UNAVAILABLE", kCudaReason);
  return list;
}

Napi::Value describe_cpu(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const CpuInfo& cpu = cpu_info();
  Napi::Object result = Napi::Object::New(env), caches = Napi::Object::New(env);
  Napi::Array levels = Napi::Array::New(env);
  for (int i = 0; i < kIsaCount; ++i)
    if (cpu.level[i]) levels[levels.Length()] = isa_name(Isa(i));
  caches["l1"] = double(cpu.caches.l1);
  caches["l2"] = double(cpu.caches.l2);
  caches["l3"] = double(cpu.caches.l3);
  result["isa"] = isa_name(cpu.isa);
  result["levels"] = levels;
  result["threads"] = default_threads();
  result["caches"] = caches;
  return result;
}

}  // namespace affuse::addon
