// The quick way through call(). A Node-API call costs 30 to 100 ns, and reading {dtype, shape, data} objects takes dozens of
// them. So a few lines of JavaScript, which the engine compiles, flatten the arguments into one array of doubles that lives
// in native memory, and the typed arrays alone go through Node-API. Whatever is unusual (a wrong type, shared lengths, a
// 64-bit seed, an error of shape) goes to the plain call(), which says exactly what is wrong.
#include "addon.h"
#include "native/runtime/cpu.h"
#include "native/runtime/invoke.h"
#include "native/runtime/registry.h"
#include "tensors.h"

namespace affuse::addon {
namespace {

// The doubles: for each input, then each output, rank and dimensions; then the attributes.
constexpr int kRecord = 1 + kMaxRank;
constexpr int kOutputs = kMaxInputs * kRecord;
constexpr int kAttributes = kOutputs + kMaxOutputs * kRecord;
constexpr int kDoubles = kAttributes + kMaxAttrs;
static_assert(kMaxRank == 5 && kOutputs == 120 && kAttributes == 192, "the script below has these figures");

const char kScript[] = R"js((function (plain, quick, state, table) {
  "use strict";
  const OUTPUTS = 120, ATTRIBUTES = 192, RECORD = 6, ABSENT = -1, FRESH = -2;
  const known = new Map(table.map((entry) => [entry.name, entry]));
  let busy = false; // a getter among the arguments may call again

  function flatten(entry, inputs, attributes, outputs) {
    const args = entry.args;
    if (inputs.length > entry.inputs || outputs.length > entry.outputs.length) return false;
    for (let i = 0; i < entry.inputs; i++) {
      const at = i * RECORD;
      const tensor = inputs[i];
      args[2 + i] = undefined;
      state[at] = ABSENT;
      if (tensor === null || tensor === undefined) continue;
      const { data, shape } = tensor;
      if (!Array.isArray(shape) || shape.length > 5) return false;
      for (let d = 0; d < shape.length; d++) {
        const dim = shape[d];
        if (typeof dim !== "number") return false;
        state[at + 1 + d] = dim;
      }
      state[at] = shape.length;
      args[2 + i] = data;
    }
    for (let i = 0; i < entry.outputs.length; i++) {
      const target = outputs[i];
      args[2 + entry.inputs + i] = undefined;
      let rank = ABSENT;
      if (target === true) rank = FRESH;
      else if (typeof target === "object" && target !== null) {
        rank = 0;
        args[2 + entry.inputs + i] = target;
      } else if (target !== false && target !== null && target !== undefined) return false;
      state[OUTPUTS + i * RECORD] = rank;
    }
    for (let i = 0; i < entry.defaults.length; i++) state[ATTRIBUTES + i] = entry.defaults[i];
    if (attributes === undefined || attributes === null) return true;
    for (const name of Object.keys(attributes)) {
      const value = attributes[name];
      if (value === undefined) continue;
      const rule = entry.attributes[name];
      if (rule === undefined || typeof value !== rule.type) return false;
      const number = rule.choices === null ? Number(value) : rule.choices.indexOf(value);
      if (number < 0 && rule.choices !== null) return false;
      state[ATTRIBUTES + rule.index] = number;
    }
    return true;
  }

  function collect(entry, fresh) {
    const { args, inputs, outputs } = entry;
    const result = new Array(outputs.length);
    let next = 0;
    for (let i = 0; i < outputs.length; i++) {
      const at = OUTPUTS + i * RECORD;
      const rank = state[at];
      if (rank === ABSENT) {
        result[i] = null;
        continue;
      }
      const shape = new Array(rank);
      for (let d = 0; d < rank; d++) shape[d] = state[at + 1 + d];
      result[i] = { dtype: outputs[i], shape, data: args[2 + inputs + i] ?? fresh[next++] };
    }
    return result;
  }

  return function call(device, name, inputs, attributes, outputs, threads) {
    const entry = device === "cpu" ? known.get(name) : undefined;
    if (
      entry === undefined || busy || !Array.isArray(inputs) || !Array.isArray(outputs) ||
      (threads !== undefined && typeof threads !== "number")
    ) {
      return plain(device, name, inputs, attributes, outputs, threads);
    }
    busy = true;
    try {
      if (flatten(entry, inputs, attributes, outputs)) {
        entry.args[1] = threads;
        const fresh = quick(...entry.args);
        if (fresh !== false) return collect(entry, fresh);
      }
    } finally {
      entry.args.fill(undefined, 1); // nothing of the caller's is kept
      busy = false;
    }
    return plain(device, name, inputs, attributes, outputs, threads);
  };
}))js";

// What the script needs to know of each operator.
napi_value make_table(napi_env env) {
  napi_value table = make_array(env, operators().size()), global;
  require(napi_get_global(env, &global));
  napi_value object_class = get(env, global, "Object"), set_prototype = get(env, object_class, "setPrototypeOf"), ignored;
  for (uint32_t id = 0; id < operators().size(); ++id) {
    const Scope scope(env);
    const OpDef& op = *operators()[id];
    napi_value entry = make_object(env), attributes = make_object(env), outputs = make_array(env, 0),
               defaults = make_array(env, 0), args = make_array(env, 0);
    set(env, args, 0u, make(env, double(id)));
    for (int i = 1; i < 2 + op.input_count + op.output_count; ++i) set(env, args, uint32_t(i), undefined(env));
    for (int i = 0; i < op.output_count; ++i)
      set(env, outputs, uint32_t(i), make(env, op.outputs[i].dtype == DType::i32 ? "i32" : "f32"));
    for (int i = 0; i < op.attr_count; ++i) {
      const AttrRule& attr = op.attrs[i];
      napi_value rule = make_object(env);
      set(env, rule, "index", make(env, double(i)));
      set(env, rule, "type",
          make(env, attr.kind == AttrKind::boolean ? "boolean" : attr.kind == AttrKind::choice ? "string" : "number"));
      set(env, rule, "choices", attr.kind == AttrKind::choice ? split_choices(env, attr.choices) : null(env));
      set(env, attributes, attr.name, rule);
      set(env, defaults, uint32_t(i), make(env, attr.fallback));
    }
    // No inherited names: an attribute called "constructor" must not be found.
    const napi_value arguments[] = {attributes, null(env)};
    require(napi_call_function(env, object_class, set_prototype, 2, arguments, &ignored));
    set(env, entry, "name", make(env, op.name));
    set(env, entry, "inputs", make(env, double(op.input_count)));
    set(env, entry, "outputs", outputs);
    set(env, entry, "attributes", attributes);
    set(env, entry, "defaults", defaults);
    set(env, entry, "args", args);
    set(env, table, id, entry);
  }
  return table;
}

bool read_record(const double* record, TensorDesc& desc) {
  desc.rank = int(record[0]);
  for (int i = 0; i < desc.rank; ++i) {
    const double dim = record[1 + i];
    if (!(dim >= 0 && dim <= kElementLimit)) return false;
    desc.dim[i] = int64_t(dim);
    if (double(desc.dim[i]) != dim) return false;
  }
  return extent(desc) <= kElementLimit;
}

bool read_attribute(const AttrRule& rule, double number, Attr& attr) {
  if (rule.kind == AttrKind::real) {
    attr.f = number;
    return number >= rule.low && number <= rule.high;
  }
  if (!(number >= -9007199254740991.0 && number <= 9007199254740991.0) || number != double(int64_t(number))) return false;
  if (rule.kind == AttrKind::seed) {
    attr.u = uint64_t(number);
    return number >= 0;
  }
  attr.i = int64_t(number);
  return rule.kind != AttrKind::integer || (number >= rule.low && number <= rule.high);
}

// A typed array of this element type, with memory of its own if that is asked for.
bool read_array(napi_env env, napi_value value, DType dtype, bool unshared, Tensor& tensor) {
  napi_typedarray_type type;
  size_t length;
  void* data;
  napi_value buffer;
  if (napi_get_typedarray_info(env, value, &type, &length, &data, unshared ? &buffer : nullptr, nullptr) != napi_ok)
    return false;
  if (type != (dtype == DType::i32 ? napi_int32_array : napi_float32_array)) return false;
  // Empty arrays are rare, and may be detached ones: the plain call tells them apart.
  if (length == 0 || int64_t(length) != tensor.count()) return false;
  bool plain = true;
  if (unshared && (napi_is_arraybuffer(env, buffer, &plain) != napi_ok || !plain)) return false;
  tensor.data = data;
  return true;
}

napi_value run_quickly(napi_env env, const napi_value* args, double* state) {
  uint32_t id = 0;
  require(napi_get_value_uint32(env, args[0], &id));
  const OpDef& op = *operators()[id];
  if (cpu_info().error.code) return nullptr;
  napi_valuetype type;
  int threads = default_threads();
  require(napi_typeof(env, args[1], &type));
  if (type != napi_undefined) {
    double count = 0;
    if (napi_get_value_double(env, args[1], &count) != napi_ok || !(count >= 1 && count <= kMaxThreads) ||
        count != int(count))
      return nullptr;
    threads = int(count);
  }
  Tensor in[kMaxInputs], out[kMaxOutputs];
  TensorDesc in_desc[kMaxInputs], made[kMaxOutputs];
  Attr attr[kMaxAttrs];
  for (int i = 0; i < op.attr_count; ++i)
    if (!read_attribute(op.attrs[i], state[kAttributes + i], attr[i])) return nullptr;
  for (int i = 0; i < op.input_count; ++i) {
    const double* record = state + i * kRecord;
    if (record[0] < 0) continue;
    in[i].dtype = op.inputs[i].dtype;
    if (!read_record(record, in[i]) || !read_array(env, args[2 + i], in[i].dtype, in[i].dtype == DType::i32, in[i]))
      return nullptr;
    in_desc[i] = in[i];
  }
  Status status;
  if (!check_inputs(op, in_desc, Device::cpu, status) || !infer_outputs(op, in_desc, attr, Device::cpu, made, status))
    return nullptr;

  napi_value fresh = nullptr;
  uint32_t fresh_count = 0;
  for (int i = 0; i < op.output_count; ++i) {
    if (state[kOutputs + i * kRecord] != -2) continue;
    if (!made[i].given()) return nullptr;
    static_cast<TensorDesc&>(out[i]) = made[i];
    if (!fresh) fresh = make_array(env, 0);
    set(env, fresh, fresh_count++, fresh_array(env, made[i], &out[i].data));
  }
  for (int i = 0; i < op.output_count; ++i) {
    double* record = state + kOutputs + i * kRecord;
    if (record[0] == -1) continue;
    if (record[0] == 0) {
      static_cast<TensorDesc&>(out[i]) = made[i];
      if (!made[i].given() || !read_array(env, args[2 + op.input_count + i], made[i].dtype, true, out[i])) return nullptr;
    }
    record[0] = made[i].rank;
    for (int d = 0; d < made[i].rank; ++d) record[1 + d] = double(made[i].dim[d]);
  }
  if (!check_overlap(op, in, out, status)) return nullptr;
  Scratch& scratch = thread_scratch();
  invoke(op, Device::cpu, in, made, out, attr, nullptr, threads, scratch, status);
  scratch.trim(kKeptScratch);
  check(status);
  return fresh ? fresh : undefined(env);
}

// quick(id, threads, ...inputs, ...targets): the fresh arrays, undefined when there are none, or false: use the plain call.
napi_value quick(napi_env env, napi_callback_info info) {
  return guarded(env, [&]() -> napi_value {
    napi_value args[2 + kMaxInputs + kMaxOutputs];
    size_t count = 2 + kMaxInputs + kMaxOutputs;
    void* state;
    require(napi_get_cb_info(env, info, &count, args, nullptr, &state));
    napi_value result = run_quickly(env, args, static_cast<double*>(state));
    return result ? result : make(env, false);
  });
}

}  // namespace

napi_value make_call(napi_env env) {
  void* state;
  napi_value buffer, array, factory, result, self = undefined(env);
  require(napi_create_arraybuffer(env, kDoubles * sizeof(double), &state, &buffer));
  require(napi_create_typedarray(env, napi_float64_array, kDoubles, buffer, 0, &array));
  require(napi_run_script(env, make(env, kScript), &factory));
  // The script's closure keeps the array, and with it `state`, as long as it can call `quick`.
  const napi_value arguments[] = {make_function(env, "call", call), make_function(env, "quick", quick, state), array,
                                  make_table(env)};
  require(napi_call_function(env, self, factory, 4, arguments, &result));
  return result;
}

}  // namespace affuse::addon
