// Native objects behind JavaScript ones. The tag is this loaded library's own, so that neither another class's object nor
// one of another copy of the package is ever taken for ours.
#pragma once
#include <memory>

#include "convert.h"

namespace affuse::addon {

template <class T>
napi_type_tag tag_of() {
  static const char here = 0;
  return {reinterpret_cast<uint64_t>(&here), 0x616666757365ull};
}

// A JavaScript object holds a std::shared_ptr<T>; null once it is disposed.
template <class T>
void wrap(napi_env env, napi_value object, std::shared_ptr<T> value) {
  const napi_type_tag tag = tag_of<T>();
  auto holder = std::make_unique<std::shared_ptr<T>>(std::move(value));
  const auto release = [](napi_env, void* data, void*) { delete static_cast<std::shared_ptr<T>*>(data); };
  require(napi_wrap(env, object, holder.get(), release, nullptr, nullptr));
  holder.release();
  require(napi_type_tag_object(env, object, &tag));
}

// Null when the value is no such object.
template <class T>
std::shared_ptr<T>* unwrap(napi_env env, napi_value value) {
  const napi_type_tag tag = tag_of<T>();
  bool ours = false;
  void* data = nullptr;
  if (type_of(env, value) != napi_object) return nullptr;
  require(napi_check_object_type_tag(env, value, &tag, &ours));
  if (!ours) return nullptr;
  require(napi_unwrap(env, value, &data));
  return static_cast<std::shared_ptr<T>*>(data);
}

// `this` of a method.
template <class T>
std::shared_ptr<T>& self_of(napi_env env, const Arguments& args, const char* name) {
  std::shared_ptr<T>* self = unwrap<T>(env, args.self);
  if (!self) raise("ERR_AFFUSE_USAGE", "expected a method of a %s to be called on one", name);
  return *self;
}

// An instance of the class, which is made the first time.
napi_value new_instance(napi_env env, napi_ref& class_ref, const char* name, napi_callback constructor,
                        std::initializer_list<napi_property_descriptor> members, napi_value argument);

}  // namespace affuse::addon
