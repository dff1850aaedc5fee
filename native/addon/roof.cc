// roof(): one ceiling of the machine, measured now.
#include "addon.h"
#include "native/runtime/cpu.h"
#include "native/runtime/roof.h"

namespace affuse::addon {
namespace {

std::string text_of(napi_env env, napi_value value) {
  char text[32];
  size_t length = 0;
  if (type_of(env, value) != napi_string) return {};
  require(napi_get_value_string_utf8(env, value, text, sizeof text, &length));
  return std::string(text, length);
}

Isa level_of(napi_env env, napi_value value) {
  const CpuInfo& cpu = cpu_info();
  if (is_nullish(env, value)) return cpu.isa;
  const std::string name = text_of(env, value);
  for (int i = 0; i < kIsaCount; ++i)
    if (cpu.level[i] && name == isa_name(Isa(i))) return Isa(i);
  raise("ERR_AFFUSE_CPU", "expected a level that cpu().levels names, got \"%.30s\"", name.c_str());
}

}  // namespace

napi_value roof(napi_env env, napi_callback_info info) {
  return guarded(env, [&]() -> napi_value {
    const Arguments args(env, info);
    check(cpu_info().error);
    const std::string name = text_of(env, args[0]);
    const RoofKind* kind = find_roof(name.c_str());
    if (!kind) {
      std::string known;
      for (const RoofKind* one = roof_kinds(); one->name; ++one) known.append(known.empty() ? "" : ", ").append(one->name);
      raise("ERR_AFFUSE_ROOF", "expected a roof (%s), got \"%.30s\"", known.c_str(), name.c_str());
    }
    const int threads = threads_of(env, args[1]);
    const double seconds = is_nullish(env, args[2]) ? 0.02 : number_or_nan(env, args[2]);
    if (!(seconds >= 0 && seconds <= 60)) raise("ERR_AFFUSE_ROOF", "expected seconds in [0, 60], got %g", seconds);
    Status status;
    const double best = measure_roof(*kind, level_of(env, args[3]), threads, seconds, status);
    check(status);
    return make(env, best);
  });
}

}  // namespace affuse::addon
