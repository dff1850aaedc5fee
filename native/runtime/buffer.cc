#include "buffer.h"

#include "kernels/common/shape.h"

namespace affuse {

std::shared_ptr<Buffer> Buffer::create(size_t bytes, Status& status) {
  auto buffer = std::make_shared<Buffer>();
  if (!buffer->memory_.map(bytes, "a buffer", status, true)) return nullptr;
  return buffer;
}

PackedWeight& Buffer::packed(size_t offset, const TensorDesc& desc, const char* key, size_t bytes) {
  for (auto& entry : packed_)
    if (entry->offset == offset && entry->bytes == bytes && same_shape(entry->desc, desc) && entry->key == key) return *entry;
  auto entry = std::make_unique<PackedWeight>();
  entry->offset = offset;
  entry->extent = desc.bytes();
  entry->desc = desc;
  entry->key = key;
  entry->bytes = bytes;
  packed_.push_back(std::move(entry));
  return *packed_.back();
}

void Buffer::touched(size_t offset, size_t extent) {
  for (auto& entry : packed_)
    if (entry->offset < offset + extent && offset < entry->offset + entry->extent) entry->fresh = false;
}

}  // namespace affuse
