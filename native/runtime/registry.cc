// Where operators are listed: kernels/rooms.cmake. To add a room, give it one line there:
//
//   affuse_room(fbp kFbp kFbpBackward)
//
// That compiles kernels/fbp/*.cc (cpu.cc and *_cpu.cc once per ISA level) and puts &kFbp and &kFbpBackward into the table
// below; the build writes both into rooms.inc. A room without a line is not compiled.
#include "registry.h"

#include <unordered_map>

#include "rooms.inc"

namespace affuse {

std::span<const OpDef* const> operators() { return {kRooms, sizeof kRooms / sizeof kRooms[0] - 1}; }

const OpDef* find_operator(std::string_view name) {
  static const auto table = [] {
    std::unordered_map<std::string_view, const OpDef*> result;
    for (const OpDef* op : operators()) result.emplace(op->name, op);
    return result;
  }();
  const auto found = table.find(name);
  return found == table.end() ? nullptr : found->second;
}

}  // namespace affuse
