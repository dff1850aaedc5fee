// operators(), backends(), cpu(): what there is.
#include <cstring>

#include "addon.h"
#include "native/runtime/backends.h"
#include "native/runtime/cpu.h"
#include "native/runtime/registry.h"

namespace affuse::addon {
namespace {

napi_value describe_tensors(napi_env env, const TensorRule* rules, int count) {
  napi_value list = make_array(env, size_t(count));
  for (int i = 0; i < count; ++i) {
    napi_value rule = make_object(env);
    set(env, rule, "name", make(env, rules[i].name));
    set(env, rule, "shape", make(env, rules[i].shape));
    set(env, rule, "dtype", make(env, rules[i].dtype == DType::i32 ? "i32" : "f32"));
    set(env, rule, "optional", make(env, rules[i].optional));
    set(env, rule, "doc", make(env, rules[i].doc));
    set(env, list, uint32_t(i), rule);
  }
  return list;
}

napi_value describe_attributes(napi_env env, const OpDef& op) {
  static const char* const kKinds[] = {"real", "integer", "boolean", "choice", "seed"};
  napi_value list = make_array(env, size_t(op.attr_count));
  for (int i = 0; i < op.attr_count; ++i) {
    const AttrRule& rule = op.attrs[i];
    napi_value choices = split_choices(env, rule.choices), entry = make_object(env), fallback;
    if (rule.kind == AttrKind::boolean) fallback = make(env, rule.fallback != 0);
    else if (rule.kind == AttrKind::choice) fallback = get(env, choices, uint32_t(rule.fallback));
    else fallback = make(env, rule.fallback);
    set(env, entry, "name", make(env, rule.name));
    set(env, entry, "kind", make(env, kKinds[int(rule.kind)]));
    set(env, entry, "default", fallback);
    set(env, entry, "low", make(env, rule.low));
    set(env, entry, "high", make(env, rule.high));
    set(env, entry, "choices", choices);
    set(env, entry, "doc", make(env, rule.doc));
    set(env, list, uint32_t(i), entry);
  }
  return list;
}

}  // namespace

napi_value split_choices(napi_env env, const char* choices) {
  napi_value list = make_array(env, 0);
  std::string_view rest = choices ? choices : "";
  for (uint32_t i = 0; !rest.empty(); ++i) {
    const size_t bar = rest.find('|');
    set(env, list, i, make(env, rest.substr(0, bar)));
    rest = bar == std::string_view::npos ? std::string_view() : rest.substr(bar + 1);
  }
  return list;
}

napi_value list_operators(napi_env env, napi_callback_info) {
  return guarded(env, [&]() -> napi_value {
    napi_value list = make_array(env, operators().size());
    uint32_t index = 0;
    for (const OpDef* op : operators()) {
      const Scope scope(env);
      napi_value entry = make_object(env);
      set(env, entry, "name", make(env, op->name));
      set(env, entry, "summary", make(env, op->summary));
      set(env, entry, "inputs", describe_tensors(env, op->inputs, op->input_count));
      set(env, entry, "outputs", describe_tensors(env, op->outputs, op->output_count));
      set(env, entry, "attributes", describe_attributes(env, *op));
      set(env, entry, "backward", op->backward ? make(env, op->backward) : null(env));
      set(env, entry, "flops", make(env, op->flops));
      set(env, entry, "bytes", make(env, op->bytes));
      set(env, list, index++, entry);
    }
    return list;
  });
}

napi_value list_backends(napi_env env, napi_callback_info) {
  return guarded(env, [&]() -> napi_value {
    napi_value list = make_array(env, 0);
    uint32_t index = 0;
    const auto add = [&](const char* name, const char* code, const char* reason, const char* const* has = nullptr) {
      napi_value entry = make_object(env);
      set(env, entry, "name", make(env, name));
      set(env, entry, "available", make(env, code == nullptr));
      set(env, entry, "code", code ? make(env, code) : null(env));
      set(env, entry, "reason", code ? make(env, reason) : null(env));
      napi_value names = make_array(env, 0);
      uint32_t count = 0;
      if (has)
        for (; *has; ++has) set(env, names, count++, make(env, *has));
      else if (!code)
        for (const OpDef* op : operators()) set(env, names, count++, make(env, op->name));
      set(env, entry, "operators", names);
      set(env, list, index++, entry);
    };
    add("cpu", cpu_info().error.code, cpu_info().error.message);
    add("reference", nullptr, nullptr);
    for (const auto& [name, kind] : {std::pair{"cuda", Device::cuda}, std::pair{"emulated", Device::emulated}}) {
      Status status;
      const char* const* const has = device_operators(kind, status);
      // The emulator is for tests: of use to few, but who has built it wants to know that it is of no use any more.
      const bool there = has || strcmp(status.code, "ERR_AFFUSE_CUDA_UNAVAILABLE") != 0;
      if (kind == Device::cuda || there) add(name, status.code, status.message, has);
    }
    return list;
  });
}

napi_value describe_cpu(napi_env env, napi_callback_info) {
  return guarded(env, [&]() -> napi_value {
    const CpuInfo& cpu = cpu_info();
    napi_value result = make_object(env), caches = make_object(env), levels = make_array(env, 0);
    uint32_t count = 0;
    for (int i = 0; i < kIsaCount; ++i)
      if (cpu.level[i]) set(env, levels, count++, make(env, isa_name(Isa(i))));
    set(env, caches, "l1", make(env, double(cpu.caches.l1)));
    set(env, caches, "l2", make(env, double(cpu.caches.l2)));
    set(env, caches, "l3", make(env, double(cpu.caches.l3)));
    set(env, result, "isa", make(env, isa_name(cpu.isa)));
    set(env, result, "levels", levels);
    set(env, result, "threads", make(env, double(default_threads())));
    set(env, result, "caches", caches);
    return result;
  });
}

}  // namespace affuse::addon
