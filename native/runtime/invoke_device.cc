// One operator on a device, from host memory to host memory.
#include <cstring>

#include "backends.h"
#include "invoke.h"

namespace affuse {
namespace {

// What a call keeps on the device until it is done.
class Borrowed {
 public:
  explicit Borrowed(DeviceLock& backend) : backend_(backend) {}
  ~Borrowed() {
    for (int i = 0; i < count_; ++i) backend_->release(taken_[i]);
  }
  Borrowed(const Borrowed&) = delete;
  void* take(size_t bytes, const char* what, Status& status) {
    void* const memory = backend_.allocate(bytes, what, status);
    if (memory) taken_[count_++] = memory;
    return memory;
  }

 private:
  DeviceLock& backend_;
  void* taken_[kMaxInputs + kMaxOutputs + 1];
  int count_ = 0;
};

}  // namespace

namespace {

// Tensors and scratch of one call on a device.
struct DeviceCall {
  Tensor in[kMaxInputs], out[kMaxOutputs];
  TensorDesc in_desc[kMaxInputs], out_desc[kMaxOutputs];
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

  // Makes what is missing of the outputs and the workspace, and queues the operator.
  void run(const OpDef& op, int index, DeviceLock& backend, Borrowed& memory, const Attr* attr, void* stream,
           Status& status) {
    for (int i = 0; i < op.output_count; ++i) {
      if (out[i].data || out[i].count() == 0) continue;
      out[i].data = memory.take(out[i].bytes(), "an output", status);
      if (status.ok() && poisoning()) backend->fill(out[i].data, 0xff, out[i].bytes(), status);
      if (!status.ok()) return;
    }
    OpCall call;
    call.in = in;
    call.out = out;
    call.attr = attr;
    if (const size_t bytes = backend->workspace(index, OpShape{in_desc, out_desc, attr})) {
      call.workspace = memory.take(bytes, "a workspace", status);
      if (status.ok() && poisoning()) backend->fill(call.workspace, 0xff, bytes, status);
      if (!status.ok()) return;
    }
    backend.make_room();
    backend->run(index, call, status, stream);
  }
};

int find_kernel(const OpDef& op, const Backend& backend, Status& status) {
  const int index = backend.find(op.name);
  if (index < 0)
    status.fail("ERR_AFFUSE_DEVICE", "expected an operator with a CUDA kernel, got %s, which has none yet. Use cpu.",
                op.name);
  return index;
}

}  // namespace

void queue_on_device(const OpDef& op, Device device, const Tensor* in, const TensorDesc* made, const Tensor* out,
                     const Attr* attr, void* stream, Status& status) {
  DeviceLock backend = lock_device(device, status);
  const int index = backend ? find_kernel(op, *backend, status) : -1;
  DeviceCall call(op, in, made, out);
  if (index < 0 || !call.anything) return;
  Borrowed memory(backend);  // what follows on the same stream may have it again
  call.run(op, index, backend, memory, attr, stream, status);
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
  Borrowed memory(backend);
  for (int i = 0; i < op.input_count; ++i) {
    if (!in[i].data) continue;
    call.in[i].data = memory.take(in[i].bytes(), "an input", status);
    if (status.ok()) backend->copy_in(call.in[i].data, in[i].data, in[i].bytes(), status);
    if (!status.ok()) return;
  }
  for (int i = 0; i < op.output_count; ++i) {
    call.out[i].data = nullptr;
    for (int j = 0; j < op.input_count && out[i].data; ++j)  // an output that updates an input in place does so here too
      if (in[j].data == out[i].data) call.out[i].data = call.in[j].data;
  }
  call.run(op, index, backend, memory, attr, nullptr, status);
  for (int i = 0; i < op.output_count && status.ok(); ++i)
    if (out[i].data) backend->copy_out(out[i].data, call.out[i].data, out[i].bytes(), status);
  Status ignored;
  backend->finish(status.ok() ? status : ignored);  // memory goes back only when nothing uses it
}

}  // namespace affuse
