#include "check.h"

#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <string>

#include "kernels/common/shape.h"

namespace affuse {

bool parse_device(std::string_view name, Device& device, Status& status) {
  const std::string_view index = name.starts_with("cuda:") ? name.substr(5) : "";
  if (name == "cpu") device = Device::cpu;
  else if (name == "reference") device = Device::reference;
  else if (name == "emulated") device = Device::emulated;
  else if (name == "cuda") device = Device::cuda;
  else if (index.size() == 1 && index[0] >= '0' && index[0] <= '9') device = {Device::cuda, uint8_t(index[0] - '0')};
  else
    status.fail("ERR_AFFUSE_DEVICE", "expected device cpu, reference, cuda, cuda:0 … cuda:9 or emulated, got \"%.*s\"",
                int(name.size() > 60 ? 60 : name.size()), name.data());
  return status.ok();
}

const char* dtype_name(DType dtype) {
  switch (dtype) {
    case DType::f32: return "float32";
    case DType::f64: return "float64";
    case DType::i32: return "int32";
    case DType::none: break;
  }
  return "nothing";
}

bool is_backward(const OpDef& op) { return std::string_view(op.name).ends_with(".backward"); }

int alias_of(const OpDef& op, int output) {
  for (int i = 0; i < op.input_count; ++i)
    if (!strcmp(op.inputs[i].name, op.outputs[output].name)) return i;
  return -1;
}

// --- attributes ----------------------------------------------------------------------------------------------------

void default_attributes(const OpDef& op, Attr* attr) {
  for (int i = 0; i < op.attr_count; ++i) {
    const AttrRule& rule = op.attrs[i];
    if (rule.kind == AttrKind::real) attr[i].f = rule.fallback;
    else if (rule.kind == AttrKind::seed) attr[i].u = uint64_t(rule.fallback);
    else attr[i].i = int64_t(rule.fallback);
  }
}

int find_attribute(const OpDef& op, std::string_view name) {
  for (int i = 0; i < op.attr_count; ++i)
    if (name == op.attrs[i].name) return i;
  return -1;
}

int find_choice(const char* choices, std::string_view word) {
  std::string_view rest = choices ? choices : "";
  for (int index = 0; !rest.empty(); ++index) {
    const size_t bar = rest.find('|');
    if (rest.substr(0, bar) == word) return index;
    if (bar == std::string_view::npos) break;
    rest.remove_prefix(bar + 1);
  }
  return -1;
}

namespace {

constexpr double kLargestSafe = 9007199254740991.0;  // 2^53 - 1: whole doubles beyond may stand for several integers

// A limit in full: as an integer where it is one.
std::string limit(double x) {
  char text[40];
  snprintf(text, sizeof text, std::trunc(x) == x && std::fabs(x) <= kLargestSafe ? "%.0f" : "%g", x);
  return text;
}

// What the rule accepts, for messages: "an integer in [1, 64]". The largest double below an integer stands for [.., integer).
std::string expectation(const AttrRule& rule) {
  std::string text;
  if (rule.kind == AttrKind::real || rule.kind == AttrKind::integer) {
    const bool low = rule.low > -1e299, high = rule.high < 1e299;
    const double next = std::nextafter(rule.high, HUGE_VAL);
    const bool open = rule.kind == AttrKind::real && std::trunc(rule.high) != rule.high && std::trunc(next) == next;
    const std::string most = limit(open ? next : rule.high);
    if (low && high) text = " in [" + limit(rule.low) + ", " + most + (open ? ")" : "]");
    else if (low) text = " >= " + limit(rule.low);
    else if (high) text = (open ? " < " : " <= ") + most;
  }
  switch (rule.kind) {
    case AttrKind::real: return "a number" + text;
    case AttrKind::integer: return "an integer" + text;
    case AttrKind::boolean: return "true or false";
    case AttrKind::seed: return "an integer in [0, 2^64)";
    case AttrKind::choice: break;
  }
  std::string words = rule.choices ? rule.choices : "";
  for (size_t at; (at = words.find('|')) != std::string::npos;) words.replace(at, 1, ", ");
  return "one of " + words;
}

std::string spelled(const AttrValue& value) {
  char text[48];
  switch (value.kind) {
    case AttrValue::number:
      snprintf(text, sizeof text, "%.17g", value.real);
      return text;
    case AttrValue::integer:
      snprintf(text, sizeof text, "%s%llu", value.negative ? "-" : "", (unsigned long long)value.magnitude);
      return text;
    case AttrValue::boolean: return value.truth ? "true" : "false";
    case AttrValue::text: break;
  }
  return std::string(1, '"').append(value.string.substr(0, 60)).append(1, '"');
}

bool convert(const AttrRule& rule, const AttrValue& value, Attr& attr) {
  // Whole numbers may come as doubles; from 2^53 on a double no longer says which integer was meant.
  const bool whole = value.kind == AttrValue::integer ||
                     (value.kind == AttrValue::number && std::trunc(value.real) == value.real &&
                      std::fabs(value.real) <= kLargestSafe);
  const bool negative = value.kind == AttrValue::integer ? value.negative : value.real < 0;
  const uint64_t magnitude = value.kind == AttrValue::integer ? value.magnitude
                             : whole                          ? uint64_t(std::fabs(value.real))
                                                              : 0;
  const double real = value.kind == AttrValue::integer ? (negative ? -1.0 : 1.0) * double(magnitude) : value.real;
  switch (rule.kind) {
    case AttrKind::real:
      if (value.kind != AttrValue::number && value.kind != AttrValue::integer) return false;
      attr.f = real;
      return real >= rule.low && real <= rule.high;  // false for NaN
    case AttrKind::integer:
      if (!whole || magnitude > uint64_t(INT64_MAX)) return false;
      attr.i = negative ? -int64_t(magnitude) : int64_t(magnitude);
      return real >= rule.low && real <= rule.high;
    case AttrKind::seed:
      if (!whole || (negative && magnitude)) return false;
      attr.u = magnitude;
      return true;
    case AttrKind::boolean:
      if (value.kind != AttrValue::boolean) return false;
      attr.i = value.truth;
      return true;
    case AttrKind::choice:
      if (value.kind != AttrValue::text) return false;
      attr.i = find_choice(rule.choices, value.string);
      return attr.i >= 0;
  }
  return false;
}

}  // namespace

bool set_attribute(const OpDef& op, std::string_view name, const AttrValue& value, Attr* attr, Status& status) {
  const int index = find_attribute(op, name);
  if (index < 0) {
    std::string known;
    for (int i = 0; i < op.attr_count; ++i) known += std::string(i ? ", " : "") + op.attrs[i].name;
    status.fail("ERR_AFFUSE_ATTRIBUTE", "expected an attribute of %s (%s), got \"%.*s\"", op.name,
                known.empty() ? "it has none" : known.c_str(), int(name.size() > 60 ? 60 : name.size()), name.data());
    return false;
  }
  Attr converted{};
  if (!convert(op.attrs[index], value, converted)) {
    status.fail("ERR_AFFUSE_ATTRIBUTE", "expected attribute %s of %s as %s, got %s", op.attrs[index].name, op.name,
                expectation(op.attrs[index]).c_str(), spelled(value).c_str());
    return false;
  }
  attr[index] = converted;
  return true;
}

bool parse_attribute(const OpDef& op, std::string_view name, const char* text, Attr* attr, Status& status) {
  const int index = find_attribute(op, name);
  AttrValue value;
  value.kind = AttrValue::text;
  value.string = text;
  char* end = nullptr;
  if (index >= 0 && *text) {
    switch (op.attrs[index].kind) {
      case AttrKind::real:
        value.real = strtod(text, &end);
        if (!*end) value.kind = AttrValue::number;
        break;
      case AttrKind::integer:
      case AttrKind::seed: {
        const bool negative = *text == '-';
        const char* digits = text + (negative || *text == '+');
        errno = 0;
        value.magnitude = strtoull(digits, &end, 10);
        if (*digits >= '0' && *digits <= '9' && !*end && errno == 0) {
          value.kind = AttrValue::integer;
          value.negative = negative;
        }
        break;
      }
      case AttrKind::boolean:
        value.truth = !strcmp(text, "true") || !strcmp(text, "1");
        if (value.truth || !strcmp(text, "false") || !strcmp(text, "0")) value.kind = AttrValue::boolean;
        break;
      case AttrKind::choice: break;
    }
  }
  return set_attribute(op, name, value, attr, status);
}

// --- tensors ---------------------------------------------------------------------------------------------------------

namespace {

// Whether a rule's shape text ("[B,T,D]", "[B,J,A] | [A]", "[...,C]") admits this rank. A text without brackets admits all.
bool rank_admitted(std::string_view text, int rank) {
  bool any = false;
  for (size_t open; (open = text.find('[')) != std::string_view::npos;) {
    const size_t close = text.find(']', open);
    if (close == std::string_view::npos) break;
    const std::string_view inside = text.substr(open + 1, close - open - 1);
    int dims = inside.empty() ? 0 : 1;
    for (char c : inside) dims += c == ',';
    const bool open_ended = inside.find("...") != std::string_view::npos || inside.find("…") != std::string_view::npos;
    if (open_ended ? rank >= dims - 1 : rank == dims) return true;
    any = true;
    text.remove_prefix(close + 1);
  }
  return !any;
}

}  // namespace

bool check_inputs(const OpDef& op, const TensorDesc* in, Device device, Status& status) {
  for (int i = 0; i < op.input_count && status.ok(); ++i) {
    const TensorRule& rule = op.inputs[i];
    const TensorDesc& t = in[i];
    if (!t.given()) {
      if (!rule.optional)
        status.fail("ERR_AFFUSE_MISSING", "expected input %s %s of %s, got nothing", rule.name, rule.shape, op.name);
      continue;
    }
    const bool wide = device == Device::reference && rule.dtype == DType::f32 && t.dtype == DType::f64;
    if (t.dtype != rule.dtype && !wide) {
      status.fail("ERR_AFFUSE_DTYPE", "expected input %s of %s as %s%s, got %s", rule.name, op.name, dtype_name(rule.dtype),
                  rule.dtype != DType::f32      ? ""
                  : device == Device::reference ? " or float64"
                                                : " (float64 is for the reference device)",
                  dtype_name(t.dtype));
    } else if (!rank_admitted(rule.shape, t.rank)) {
      status.fail("ERR_AFFUSE_RANK", "expected input %s of %s with the dimensions %s, got %s", rule.name, op.name,
                  rule.shape, ShapeText(t).text);
    }
  }
  return status.ok();
}

bool infer_outputs(const OpDef& op, const TensorDesc* in, const Attr* attr, Device device, TensorDesc* out,
                   Status& status) {
  // Rooms think in float32; the reference's float64 is the runtime's business alone.
  TensorDesc plain[kMaxInputs];
  for (int i = 0; i < op.input_count; ++i) {
    plain[i] = in[i];
    if (plain[i].dtype == DType::f64) plain[i].dtype = DType::f32;
  }
  for (int i = 0; i < op.output_count; ++i) out[i] = TensorDesc{};
  OpShape shape;
  shape.in = plain;
  shape.attr = attr;
  op.infer(shape, out, status);
  if (!status.ok()) return false;
  for (int i = 0; i < op.output_count; ++i) {
    if (!out[i].given()) continue;
    if (extent(out[i]) > kElementLimit) {
      status.fail("ERR_AFFUSE_SHAPE", "expected inputs whose output %s of %s has at most %g elements, got %s",
                  op.outputs[i].name, op.name, kElementLimit, ShapeText(out[i]).text);
      return false;
    }
    out[i].dtype = op.outputs[i].dtype == DType::f32 && device == Device::reference ? DType::f64 : op.outputs[i].dtype;
  }
  return true;
}

bool check_overlap(const OpDef& op, const Tensor* in, const Tensor* out, Status& status) {
  const auto overlap = [](const Tensor& a, const Tensor& b) {
    if (!a.data || !b.data) return false;
    const char *p = a.as<char>(), *q = b.as<char>();
    return p < q + b.bytes() && q < p + a.bytes();
  };
  for (int i = 0; i < op.output_count && status.ok(); ++i) {
    if (!out[i].data) continue;
    for (int j = 0; j < op.input_count; ++j) {
      if (!overlap(out[i], in[j])) continue;
      if (alias_of(op, i) == j && out[i].data == in[j].data && out[i].bytes() == in[j].bytes()) continue;
      status.fail("ERR_AFFUSE_OVERLAP", "expected output %s of %s in memory of its own, got memory that overlaps input %s",
                  op.outputs[i].name, op.name, op.inputs[j].name);
    }
    for (int j = 0; j < i; ++j)
      if (overlap(out[i], out[j]))
        status.fail("ERR_AFFUSE_OVERLAP", "expected outputs %s and %s of %s in separate memory, got overlapping memory",
                    op.outputs[j].name, op.outputs[i].name, op.name);
  }
  return status.ok();
}

}  // namespace affuse
