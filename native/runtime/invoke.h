// Runs one operator on checked tensors.
#pragma once
#include "check.h"
#include "memory.h"
#include "pool.h"

namespace affuse {

// Outputs that the kernel wants room for though the caller does not: the required outputs of forward operators.
// Backward operators skip what nobody wants.
inline bool must_exist(const OpDef& op, int output) { return !op.outputs[output].optional && !is_backward(op); }

// `made` are the descriptions from infer_outputs; wanted outputs in `out` have data, the others are absent.
// Checks the data (OpDef::validate), finds workspace and runs. `packed` as in OpCall, or null; so may `listener` be.
void invoke(const OpDef& op, Device device, const Tensor* in, const TensorDesc* made, const Tensor* out, const Attr* attr,
            const void* const* packed, int threads, Scratch& scratch, Status& status, TaskListener* listener = nullptr);

// The same on a device with a backend, between host memory and host memory; waits for it.
void invoke_on_device(const OpDef& op, Device device, const Tensor* in, const TensorDesc* made, const Tensor* out,
                      const Attr* attr, Status& status);

// Queued on tensors that are device memory; nothing is checked that needs to look at them. stream: a cudaStream_t, null: the
// device's own.
void queue_on_device(const OpDef& op, Device device, const Tensor* in, const TensorDesc* made, const Tensor* out,
                     const Attr* attr, void* stream, Status& status);

// AFFUSE_POISON=1: workspaces and outputs are filled with NaN before every kernel, so that a value which a kernel forgets to
// write, or reads before writing, shows.
bool poisoning();

// One thread's time for a call as a rough figure: 50 GFLOP/s and 32 GB/s.
double estimated_microseconds(const OpDef& op, const OpShape& shape);

// The kernel that cpu_info().isa selects.
KernelFn cpu_kernel(const OpDef& op);
// Likewise the packing function; null when the operator packs nothing.
auto cpu_pack(const OpDef& op) -> void (*)(const OpShape&, int, const void*, void*, const Workers&);

}  // namespace affuse
