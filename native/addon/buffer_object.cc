#include <cmath>
#include <cstring>

#include "programs.h"

namespace affuse::addon {

Napi::Function BufferObject::define(Napi::Env env) {
  return DefineClass(env, "NativeBuffer",
                     {InstanceAccessor<&BufferObject::bytes>("bytes"), InstanceMethod<&BufferObject::read>("read"),
                      InstanceMethod<&BufferObject::write>("write"), InstanceMethod<&BufferObject::dispose>("dispose")});
}

BufferObject::BufferObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<BufferObject>(info) {
  double bytes = -1;
  if (info[0].IsNumber()) bytes = info[0].As<Napi::Number>().DoubleValue();
  if (!(bytes >= 0 && bytes <= 9e15) || bytes != std::floor(bytes))
    raise(info.Env(), "ERR_AFFUSE_RANGE", "expected a buffer size in bytes, an integer >= 0, got %g", bytes);
  Status status;
  buffer_ = Buffer::create(size_t(bytes), status);
  check(info.Env(), status);
}

Napi::Value BufferObject::bytes(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), buffer_ ? double(buffer_->bytes()) : 0);
}

char* BufferObject::locate(const Napi::CallbackInfo& info, const char* verb, View& view, size_t& offset) {
  const Napi::Env env = info.Env();
  if (!buffer_) raise(env, "ERR_AFFUSE_DISPOSED", "expected a live buffer to %s, got a disposed one", verb);
  if (const int pending = buffer_->pending.load(std::memory_order_acquire))
    raise(env, "ERR_AFFUSE_BUSY", "expected no unfinished run that uses the buffer to %s, got %d; await them first", verb, pending);
  const double from = info[0].IsNumber() ? info[0].As<Napi::Number>().DoubleValue() : -1;
  view = view_of(env, info[1], "the array");
  const double bytes = double(view.length) * double(dtype_size(view.dtype));
  if (!(from >= 0) || from != std::floor(from) || from + bytes > double(buffer_->bytes()))
    raise(env, "ERR_AFFUSE_RANGE", "expected a range within the buffer's %zu bytes to %s, got %.0f bytes at %g", buffer_->bytes(),
          verb, bytes, from);
  offset = size_t(from);
  return buffer_->at(offset);
}

Napi::Value BufferObject::read(const Napi::CallbackInfo& info) {
  View view;
  size_t offset;
  const char* from = locate(info, "read", view, offset);
  if (view.data) memcpy(view.data, from, size_t(view.length) * dtype_size(view.dtype));
  return info.Env().Undefined();
}

Napi::Value BufferObject::write(const Napi::CallbackInfo& info) {
  View view;
  size_t offset;
  char* to = locate(info, "write", view, offset);
  const size_t bytes = size_t(view.length) * dtype_size(view.dtype);
  if (view.data) memcpy(to, view.data, bytes);
  buffer_->touched(offset, bytes);
  return info.Env().Undefined();
}

Napi::Value BufferObject::dispose(const Napi::CallbackInfo& info) {
  buffer_.reset();
  return info.Env().Undefined();
}

Napi::Value create_buffer(const Napi::CallbackInfo& info) {
  return Instance::of(info.Env()).buffer_class.New({info[0]});
}

}  // namespace affuse::addon
