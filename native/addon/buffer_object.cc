// NativeBuffer.
#include <cmath>

#include "addon.h"
#include "instance.h"
#include "native/runtime/buffer.h"
#include "tensors.h"
#include "wrapped.h"

namespace affuse::addon {

napi_value new_instance(napi_env env, napi_ref& class_ref, const char* name, napi_callback constructor,
                        std::initializer_list<napi_property_descriptor> members, napi_value argument) {
  napi_value made_class, instance;
  if (!class_ref) {
    require(
        napi_define_class(env, name, NAPI_AUTO_LENGTH, constructor, nullptr, members.size(), members.begin(), &made_class));
    require(napi_create_reference(env, made_class, 1, &class_ref));
  } else {
    require(napi_get_reference_value(env, class_ref, &made_class));
  }
  require(napi_new_instance(env, made_class, 1, &argument, &instance));
  return instance;
}

namespace {

napi_value construct(napi_env env, napi_callback_info info) {
  return guarded(env, [&]() -> napi_value {
    const Arguments args(env, info);
    const double bytes = number_or_nan(env, args[0]);
    if (!(bytes >= 0 && bytes <= 9e15) || bytes != std::floor(bytes))
      raise("ERR_AFFUSE_RANGE", "expected a buffer size in bytes, an integer >= 0, got %g", bytes);
    Status status;
    std::shared_ptr<Buffer> buffer = Buffer::create(size_t(bytes), status);
    check(status);
    wrap(env, args.self, std::move(buffer));
    return args.self;
  });
}

napi_value bytes(napi_env env, napi_callback_info info) {
  return guarded(env, [&]() -> napi_value {
    const auto& buffer = self_of<Buffer>(env, Arguments(env, info), "NativeBuffer");
    return make(env, buffer ? double(buffer->bytes()) : 0.0);
  });
}

// What a read or write is about; refuses disposed and busy buffers and ranges outside.
struct Range {
  Buffer& buffer;
  size_t offset, bytes;
  void* array;
};

Range locate(napi_env env, const Arguments& args, const char* verb) {
  const auto& buffer = self_of<Buffer>(env, args, "NativeBuffer");
  const double from = number_or_nan(env, args[0]);
  const View view = view_of(env, args[1], "the array");
  const double bytes = double(view.length) * double(dtype_size(view.dtype));
  if (!buffer) raise("ERR_AFFUSE_DISPOSED", "expected a live buffer to %s, got a disposed one", verb);
  if (const int pending = buffer->pending.load(std::memory_order_acquire))
    raise("ERR_AFFUSE_BUSY", "expected no unfinished run that uses the buffer to %s, got %d; await them first", verb,
          pending);
  if (!(from >= 0) || from != std::floor(from) || from + bytes > double(buffer->bytes()))
    raise("ERR_AFFUSE_RANGE", "expected a range within the buffer's %zu bytes to %s, got %.0f bytes at %g", buffer->bytes(),
          verb, bytes, from);
  return {*buffer, size_t(from), size_t(bytes), view.data};
}

napi_value read(napi_env env, napi_callback_info info) {
  return guarded(env, [&]() -> napi_value {
    const Range range = locate(env, Arguments(env, info), "read");
    Status status;
    if (range.bytes) range.buffer.read(range.offset, range.array, range.bytes, status);
    check(status);
    return undefined(env);
  });
}

napi_value write(napi_env env, napi_callback_info info) {
  return guarded(env, [&]() -> napi_value {
    const Range range = locate(env, Arguments(env, info), "write");
    Status status;
    if (range.bytes) range.buffer.write(range.offset, range.array, range.bytes, status);
    check(status);
    return undefined(env);
  });
}

napi_value dispose(napi_env env, napi_callback_info info) {
  return guarded(env, [&]() -> napi_value {
    self_of<Buffer>(env, Arguments(env, info), "NativeBuffer").reset();
    return undefined(env);
  });
}

}  // namespace

napi_value create_buffer(napi_env env, napi_callback_info info) {
  return guarded(env, [&]() -> napi_value {
    return new_instance(env, Instance::of(env).buffer_class, "NativeBuffer", construct,
                        {{"bytes", nullptr, nullptr, bytes, nullptr, nullptr, napi_enumerable, nullptr},
                         {"read", nullptr, read, nullptr, nullptr, nullptr, napi_default_method, nullptr},
                         {"write", nullptr, write, nullptr, nullptr, nullptr, napi_default_method, nullptr},
                         {"dispose", nullptr, dispose, nullptr, nullptr, nullptr, napi_default_method, nullptr}},
                        Arguments(env, info)[0]);
  });
}

}  // namespace affuse::addon
