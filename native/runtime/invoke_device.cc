// One operator on a device, from host memory to host memory.
#include <cstring>

#include "backends.h"
#include "invoke.h"

namespace affuse {
namespace {

// What a call keeps on the device until it is done.
class Borrowed {
 public:
  Borrowed(DeviceLock& backend, void* stream) : stream(stream), backend_(backend) {}
  ~Borrowed() { give_back(); }
  Borrowed(const Borrowed&) = delete;
  void give_back() {
    while (count_) backend_->release(taken_[--count_], false, stream);
  }
  void* take(size_t bytes, const char* what, Status& status) {
    void* const memory = backend_->allocate(bytes, what, status, false, stream);
    if (memory) taken_[count_++] = memory;
    return memory;
  }
  void* const stream;  // that uses it

 private:
  DeviceLock& backend_;
  void* taken_[kMaxInputs + kMaxOutputs + 1];
  int count_ = 0;
};

// Tensors and scratch of one call on a device.
struct DeviceCall {
  Tensor in[kMaxInputs], out[kMaxOutputs];
  TensorDesc in_desc[kMaxInputs], out_desc[kMaxOutputs];
  void* workspace = nullptr;
  bool anything = false;

  DeviceCall(const OpDef& op, const Tensor* inputs, const TensorDesc* made, const Tensor* outputs) {
    for (int i = 0; i < op.input_count; ++i) in[i] = inputs[i], in_desc[i] = inputs[i];
    for (int i = 0; i < op.output_count; ++i) {
      if (outputs[i].given() || (made[i].given() && must_exist(op, i))) out_desc[i] = made[i];
      static_cast<TensorDesc&>(out[i]) = out_desc[i];
      out[i].data = outputs[i].data;
      anything |= out_desc[i].count() > 0;
    }
  }

  // Makes what is missing of the outputs, and the workspace.
  void make(const OpDef& op, int index, DeviceLock& backend, Borrowed& memory, const Attr* attr, Status& status) {
    for (int i = 0; i < op.output_count; ++i) {
      if (out[i].data || out[i].count() == 0) continue;
      out[i].data = memory.take(out[i].bytes(), "an output", status);
      if (status.ok() && poisoning()) backend->fill(out[i].data, 0xff, out[i].bytes(), status, memory.stream);
      if (!status.ok()) return;
    }
    if (const size_t bytes = backend->workspace(index, OpShape{in_desc, out_desc, attr})) {
      workspace = memory.take(bytes, "a workspace", status);
      if (status.ok() && poisoning()) backend->fill(workspace, 0xff, bytes, status, memory.stream);
    }
  }
  void run(int index, DeviceLock& backend, const Attr* attr, void* stream, Status& status) {
    OpCall call;
    call.in = in;
    call.out = out;
    call.attr = attr;
    call.workspace = workspace;
    if (status.ok()) backend->run(index, call, status, stream);
  }
};

int find_kernel(const OpDef& op, const Backend& backend, Status& status) {
  const int index = backend.find(op.name);
  if (index < 0)
    status.fail("ERR_AFFUSE_DEVICE", "expected an operator with a CUDA kernel, got %s, which has none yet. Use cpu.",
                op.name);
  return index;
}

// Takes what a call needs, all of it or nothing: until it is there, or nobody is about to give memory back.
template <class Take>
void take_all(DeviceLock& backend, Borrowed& memory, Status& status, const Take& take) {
  for (;;) {
    Status tried;
    take(tried);
    if (tried.ok()) return;
    memory.give_back();
    if (backend.wait_for_memory(tried)) continue;
    status = tried;
    return;
  }
}

}  // namespace

void queue_on_device(const OpDef& op, Device device, const Tensor* in, const TensorDesc* made, const Tensor* out,
                     const Attr* attr, void* stream, Status& status) {
  DeviceLock backend = lock_device(device, status);
  const int index = backend ? find_kernel(op, *backend, status) : -1;
  DeviceCall call(op, in, made, out);
  if (index < 0 || !call.anything) return;
  Borrowed memory(backend, stream);  // what follows on the same stream may have it again at once
  take_all(backend, memory, status, [&](Status& tried) {
    call = DeviceCall(op, in, made, out);
    call.make(op, index, backend, memory, attr, tried);
  });
  call.run(index, backend, attr, stream, status);
}

void invoke_on_device(const OpDef& op, Device device, const Tensor* in, const TensorDesc* made, const Tensor* out,
                      const Attr* attr, Status& status) {
  DeviceLock backend = lock_device(device, status);
  const int index = backend ? find_kernel(op, *backend, status) : -1;
  if (index < 0) return;
  if (op.validate) {
    OpCall host;
    host.in = in;
    host.out = out;
    host.attr = attr;
    op.validate(host, status);
    if (!status.ok()) return;
  }
  DeviceCall call(op, in, made, out);
  if (!call.anything) return;
  Borrowed memory(backend, nullptr);
  take_all(backend, memory, status, [&](Status& tried) {
    for (int i = 0; i < op.input_count && tried.ok(); ++i)
      if (in[i].data) call.in[i].data = memory.take(in[i].bytes(), "an input", tried);
    for (int i = 0; i < op.output_count; ++i) {
      call.out[i].data = nullptr;
      for (int j = 0; j < op.input_count && out[i].data; ++j)  // an output that updates an input in place does so here too
        if (in[j].data == out[i].data) call.out[i].data = call.in[j].data;
    }
    if (tried.ok()) call.make(op, index, backend, memory, attr, tried);
  });
  for (int i = 0; i < op.input_count && status.ok(); ++i)
    if (in[i].data) backend->copy_in(call.in[i].data, in[i].data, in[i].bytes(), status);
  call.run(index, backend, attr, nullptr, status);
  for (int i = 0; i < op.output_count && status.ok(); ++i)
    if (out[i].data) backend->copy_out(out[i].data, call.out[i].data, out[i].bytes(), status);
  Status ignored;
  backend->finish(status.ok() ? status : ignored);  // memory goes back only when nothing uses it
}

}  // namespace affuse
