#include "buffer.h"

#include <cstring>

#include "backends.h"
#include "kernels/common/shape.h"

namespace affuse {

std::shared_ptr<Buffer> Buffer::create(size_t bytes, Status& status) {
  auto buffer = std::make_shared<Buffer>();
  buffer->bytes_ = bytes;
  if (!buffer->memory_.map(bytes, "a buffer", status, true)) return nullptr;
  return buffer;
}

Buffer::~Buffer() {
  Status ignored;
  if (!remote_) return;
  if (const DeviceLock backend = lock_device(device_, ignored)) backend->release(remote_);
}

bool Buffer::to_host(Status& status) {
  if (!remote_) return true;
  Memory memory;
  if (!memory.map(bytes_, "a buffer", status)) return false;
  const DeviceLock backend = lock_device(device_, status);
  if (!backend) return false;
  backend->copy_out(memory.data(), remote_, bytes_, status);
  if (!status.ok()) return false;
  backend->release(remote_);
  remote_ = nullptr;
  memory_ = std::move(memory);
  touched(0, bytes_);
  return true;
}

char* Buffer::on(Device device, DeviceLock& backend, Status& status) {
  if (remote_) return static_cast<char*>(remote_);
  void* const memory = backend->allocate(bytes_, "a buffer", status);
  if (!memory) return nullptr;
  backend->copy_in(memory, memory_.data(), bytes_, status);
  if (!status.ok()) {
    backend->release(memory);
    return nullptr;
  }
  remote_ = memory;
  device_ = device;
  memory_.reset();
  for (auto& entry : packed_) {  // programs on the CPU still point at the entries
    entry->memory.reset();
    entry->fresh = false;
  }
  return static_cast<char*>(remote_);
}

void Buffer::read(size_t offset, void* to, size_t bytes, Status& status) {
  if (!remote_) memcpy(to, at(offset), bytes);
  else if (const DeviceLock backend = lock_device(device_, status))
    backend->copy_out(to, static_cast<char*>(remote_) + offset, bytes, status);
}

void Buffer::write(size_t offset, const void* from, size_t bytes, Status& status) {
  if (!remote_) {
    memcpy(at(offset), from, bytes);
    touched(offset, bytes);
  } else if (const DeviceLock backend = lock_device(device_, status)) {
    backend->copy_in(static_cast<char*>(remote_) + offset, from, bytes, status);
    backend->finish(status);
  }
}

PackedWeight& Buffer::packed(size_t offset, const TensorDesc& desc, const char* key, size_t bytes) {
  for (auto& entry : packed_)
    if (entry->offset == offset && entry->bytes == bytes && same_shape(entry->desc, desc) && entry->key == key)
      return *entry;
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
