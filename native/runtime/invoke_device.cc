// One operator on a device, from host memory to host memory.
#include <cstring>

#include "backends.h"
#include "invoke.h"

namespace affuse {
namespace {

// What a call keeps on the device until it is done.
class Borrowed {
 public:
  explicit Borrowed(Backend& backend) : backend_(backend) {}
  ~Borrowed() {
    for (int i = 0; i < count_; ++i) backend_.release(taken_[i]);
  }
  Borrowed(const Borrowed&) = delete;
  void* take(size_t bytes, const char* what, Status& status) {
    void* const memory = backend_.allocate(bytes, what, status);
    if (memory) taken_[count_++] = memory;
    return memory;
  }

 private:
  Backend& backend_;
  void* taken_[kMaxInputs + kMaxOutputs + 1];
  int count_ = 0;
};

}  // namespace

void invoke_on_device(const OpDef& op, Device device, const Tensor* in, const TensorDesc* made, const Tensor* out,
                      const Attr* attr, Status& status) {
  const DeviceLock backend = lock_device(device, status);
  if (!backend) return;
  const int index = backend->find(op.name);
  if (index < 0)
    return status.fail("ERR_AFFUSE_DEVICE", "expected an operator with a CUDA kernel, got %s, which has none yet. Use cpu.", op.name);

  Tensor inputs[kMaxInputs], outputs[kMaxOutputs];
  TensorDesc in_desc[kMaxInputs], out_desc[kMaxOutputs];
  bool anything = false;
  for (int i = 0; i < op.input_count; ++i) inputs[i] = in[i], in_desc[i] = in[i];
  for (int i = 0; i < op.output_count; ++i) {
    if (out[i].given() || (made[i].given() && must_exist(op, i))) out_desc[i] = made[i];
    static_cast<TensorDesc&>(outputs[i]) = out_desc[i];
    anything |= out_desc[i].given();
  }
  if (op.validate) {
    OpCall host;
    host.in = in;
    host.out = out;
    host.attr = attr;
    op.validate(host, status);
    if (!status.ok()) return;
  }
  if (!anything) return;

  Borrowed memory(*backend);
  for (int i = 0; i < op.input_count; ++i) {
    if (!inputs[i].data) continue;
    inputs[i].data = memory.take(inputs[i].bytes(), "an input", status);
    if (status.ok()) backend->copy_in(inputs[i].data, in[i].data, in[i].bytes(), status);
    if (!status.ok()) return;
  }
  for (int i = 0; i < op.output_count; ++i) {
    if (outputs[i].count() == 0) continue;
    // An output that updates an input in place shares its memory here as there.
    for (int j = 0; j < op.input_count && out[i].data; ++j)
      if (in[j].data == out[i].data) outputs[i].data = inputs[j].data;
    if (outputs[i].data) continue;
    outputs[i].data = memory.take(outputs[i].bytes(), "an output", status);
    if (status.ok()) backend->fill(outputs[i].data, 0xff, poisoning() ? outputs[i].bytes() : 0, status);
    if (!status.ok()) return;
  }
  OpCall call;
  call.in = inputs;
  call.out = outputs;
  call.attr = attr;
  if (const size_t bytes = backend->workspace(index, OpShape{in_desc, out_desc, attr})) {
    call.workspace = memory.take(bytes, "a workspace", status);
    if (status.ok()) backend->fill(call.workspace, 0xff, poisoning() ? bytes : 0, status);
    if (!status.ok()) return;
  }
  backend->run(index, call, status);
  for (int i = 0; i < op.output_count && status.ok(); ++i)
    if (out[i].data) backend->copy_out(out[i].data, outputs[i].data, out[i].bytes(), status);
  Status ignored;
  backend->finish(status.ok() ? status : ignored);  // memory goes back only when nothing uses it
}

}  // namespace affuse
