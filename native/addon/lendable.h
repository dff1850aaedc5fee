// Memory that runs may read in place: typed arrays made by allocate(). A run holds on to the block itself, so transferring
// or dropping the array meanwhile frees nothing.
#pragma once
#include <memory>

#include "native/runtime/memory.h"

namespace affuse::addon {

// Owner of the block that holds [data, data + bytes); null when that is not memory of allocate().
std::shared_ptr<void> lendable(const void* data, size_t bytes);

}  // namespace affuse::addon
