// NativeBuffer and NativeProgram.
#pragma once
#include "instance.h"
#include "native/runtime/program.h"

namespace affuse::addon {

class BufferObject : public Napi::ObjectWrap<BufferObject> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit BufferObject(const Napi::CallbackInfo& info);
  const std::shared_ptr<Buffer>& buffer() const { return buffer_; }

 private:
  Napi::Value bytes(const Napi::CallbackInfo& info);
  Napi::Value read(const Napi::CallbackInfo& info);
  Napi::Value write(const Napi::CallbackInfo& info);
  Napi::Value dispose(const Napi::CallbackInfo& info);
  // The bytes that a read or write is about; refuses disposed and busy buffers and ranges outside.
  char* locate(const Napi::CallbackInfo& info, const char* verb, View& view, size_t& offset);

  std::shared_ptr<Buffer> buffer_;
};

class ProgramObject : public Napi::ObjectWrap<ProgramObject> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit ProgramObject(const Napi::CallbackInfo& info);

 private:
  Napi::Value run(const Napi::CallbackInfo& info);
  Napi::Value dispose(const Napi::CallbackInfo& info);

  std::shared_ptr<Program> program_;
};

Napi::Value create_buffer(const Napi::CallbackInfo& info);
Napi::Value create_program(const Napi::CallbackInfo& info);
// A ProgramDesc as JavaScript spells it.
ProgramSpec read_program(Napi::Env env, Napi::Value desc);

}  // namespace affuse::addon
