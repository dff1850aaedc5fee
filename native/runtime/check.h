// Everything about a call that can be checked from its OpDef alone, the same for every caller: addon, C ABI, programs.
#pragma once
#include <string_view>

#include "kernels/common/op.h"

namespace affuse {

struct Device {
  enum Kind : uint8_t { cpu, reference, cuda, emulated } kind = cpu;
  uint8_t index = 0;  // of several of a kind

  constexpr Device(Kind kind = cpu, uint8_t index = 0) : kind(kind), index(index) {}
  constexpr bool operator==(const Device&) const = default;
  // Memory of its own, kernels in a library of their own.
  constexpr bool has_backend() const { return kind == cuda || kind == emulated; }
};

// "cpu", "reference", "cuda", "cuda:1" or "emulated"; ERR_AFFUSE_DEVICE for anything else. Does not look whether it is
// there.
bool parse_device(std::string_view name, Device& device, Status& status);

// A value as a caller spells it, before the rule says what it has to be.
struct AttrValue {
  enum Kind { number, integer, boolean, text } kind = number;
  double real = 0;            // number
  bool negative = false;      // integer: sign and magnitude, so that both int64 and a 64-bit seed fit
  uint64_t magnitude = 0;
  bool truth = false;         // boolean
  std::string_view string{};  // text
};

void default_attributes(const OpDef& op, Attr* attr);
int find_attribute(const OpDef& op, std::string_view name);
// ERR_AFFUSE_ATTRIBUTE for an unknown name, a wrong type or a value out of range.
bool set_attribute(const OpDef& op, std::string_view name, const AttrValue& value, Attr* attr, Status& status);
// The same for a value as text: "4", "0.1", "true", "power-l2".
bool parse_attribute(const OpDef& op, std::string_view name, const char* text, Attr* attr, Status& status);
// The index of a choice's word, or -1.
int find_choice(const char* choices, std::string_view word);

// Elements that a tensor may have, dimensions of 0 counted as 1, so that no product of a tensor's dimensions overflows:
// neither in a count of bytes or FLOPs nor where another dimension is 0.
constexpr double kElementLimit = 1e15;
inline double extent(const TensorDesc& t) {
  double total = 1;
  for (int i = 0; i < t.rank; ++i) total *= t.dim[i] > 1 ? double(t.dim[i]) : 1;
  return total;
}

// Presence, element type and rank of the inputs against the rules. On the reference device float inputs may be float32 or
// float64; everywhere else float32.
bool check_inputs(const OpDef& op, const TensorDesc* in, Device device, Status& status);

// Output descriptions of a checked call; those that cannot be made stay absent. Float outputs of the reference are float64.
// ERR_AFFUSE_SHAPE for inputs that do not fit together, or an output beyond kElementLimit.
bool infer_outputs(const OpDef& op, const TensorDesc* in, const Attr* attr, Device device, TensorDesc* out,
                   Status& status);

// ERR_AFFUSE_OVERLAP when an output shares memory with another or with an input other than the one it may update in place.
bool check_overlap(const OpDef& op, const Tensor* in, const Tensor* out, Status& status);

const char* dtype_name(DType dtype);  // "float32"
bool is_backward(const OpDef& op);

// Index of the input that output `i` may share its memory with: the one of the same name (adamw's p, m, v); else -1.
int alias_of(const OpDef& op, int output);

}  // namespace affuse
