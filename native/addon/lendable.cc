#include "lendable.h"

#include <cmath>
#include <cstdint>
#include <map>
#include <mutex>

#include "addon.h"
#include "tensors.h"

namespace affuse::addon {
namespace {

struct Block;

// Every live block by its address. Never destroyed: finalizers may run late.
struct Blocks {
  std::mutex mutex;
  std::map<uintptr_t, std::weak_ptr<Block>> by_address;
};
Blocks& blocks() {
  static Blocks* all = new Blocks;
  return *all;
}

struct Block {
  Memory memory;
  uintptr_t address() const { return reinterpret_cast<uintptr_t>(memory.data()); }
  ~Block() {  // before the memory goes and its address can be given out again
    std::lock_guard lock(blocks().mutex);
    blocks().by_address.erase(address());
  }
};

}  // namespace

std::shared_ptr<void> lendable(const void* data, size_t bytes) {
  std::shared_ptr<Block> block;
  const auto address = reinterpret_cast<uintptr_t>(data);
  {
    std::lock_guard lock(blocks().mutex);
    auto after = blocks().by_address.upper_bound(address);
    if (after != blocks().by_address.begin()) block = std::prev(after)->second.lock();
  }
  if (!block) return nullptr;
  const size_t offset = address - block->address(), size = block->memory.bytes();
  if (offset > size || bytes > size - offset) return nullptr;
  return block;
}

napi_value allocate(napi_env env, napi_callback_info info) {
  return guarded(env, [&]() -> napi_value {
    const Arguments args(env, info);
    const double length = number_or_nan(env, args[0]);
    if (!(length >= 0 && length <= 9e15) || length != std::floor(length))
      raise("ERR_AFFUSE_USAGE", "expected a length of whole elements, got %g", length);
    TensorDesc desc;
    desc.dtype = DType::f32;
    desc.rank = 1;
    desc.dim[0] = int64_t(length);
    auto block = std::make_shared<Block>();
    Status status;
    block->memory.map(desc.bytes(), "an array", status, true);
    check(status);
    napi_value buffer = nullptr;
    if (!desc.bytes() ||
        !lend_to_array(env, block, block->memory.data(), desc.bytes(), sizeof(float), &buffer)) {
      void* data = nullptr;  // nothing to hold, or a runtime that has no such arrays: an ordinary one, which runs copy
      require(napi_create_arraybuffer(env, desc.bytes(), &data, &buffer));
    } else {
      std::lock_guard lock(blocks().mutex);
      blocks().by_address[block->address()] = block;
    }
    napi_value array;
    require(napi_create_typedarray(env, napi_float32_array, size_t(length), buffer, 0, &array));
    return array;
  });
}

}  // namespace affuse::addon
