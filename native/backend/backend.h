// What the runtime and a device library say to each other. libaffuse_cuda (nvcc) and libaffuse_emulated (the same sources on
// the emulator) are opened at run time and give one BackendLibrary; nothing of CUDA is named on this side of it.
#pragma once
#include "kernels/common/op.h"

namespace affuse {

// Changes with anything below and with OpCall, OpShape, Tensor, Attr and Status.
constexpr uint32_t kBackendVersion = 6;

struct DeviceFacts {
  char name[128] = "";
  int major = 0, minor = 0;  // compute capability
  int processors = 0;        // multiprocessors
  size_t memory = 0;         // bytes
  int64_t cache = 0;         // bytes of L2
  int driver = 0;            // CUDA version of the driver, 13000 is 13.0; 0: none
};

// Launches that were recorded once and can be queued again at the price of one.
class Recording {
 public:
  virtual ~Recording() = default;
};

// One open device: memory and one queue of work. Calls come from one thread at a time (lock_device), but for feed() and
// wait(). An error ends a call and leaves the device usable, except ERR_AFFUSE_DEVICE_LOST.
class Backend {
 public:
  virtual ~Backend() = default;
  virtual const DeviceFacts& facts() const = 0;

  // The operator's place in the library, or -1: it has no kernel here.
  virtual int find(const char* op) const = 0;
  virtual size_t workspace(int op, const OpShape& shape) const = 0;
  // Queues an operator. Every tensor and the workspace are device memory; what the kernels read of `call` is read before
  // this returns. stream: a cudaStream_t of the caller's rather than the device's own queue.
  virtual void run(int op, const OpCall& call, Status& status, void* stream = nullptr) = 0;

  // From begin_recording() to end_recording() run() queues nothing: its launches are kept, under the step that was named
  // last. An error in between ends the recording with null.
  virtual void begin_recording(Status& status) = 0;
  virtual void name_step(int step) = 0;
  virtual Recording* end_recording(Status& status) = 0;
  // The operator again with other attributes: its launches take the place of those recorded for this step. Same tensors.
  virtual void update(Recording& recording, int step, int op, const OpCall& call, Status& status) = 0;
  // Queues everything recorded. The recording is the caller's to update or delete, even while it is queued.
  virtual void replay(Recording& recording, Status& status) = 0;

  // Device memory at a multiple of 256 bytes; ERR_AFFUSE_DEVICE_MEMORY. `what` names the purpose in the message.
  // It is for work on `stream` (as in run()), or, `idle`, for anything. release() may be called while work that is queued
  // there still uses the memory; `idle`: none does. While `stream` is captured into a CUDA graph, ERR_AFFUSE_CAPTURE unless
  // earlier calls left as much, which is that graph's from then on.
  virtual void* allocate(size_t bytes, const char* what, Status& status, bool idle = false, void* stream = nullptr) = 0;
  virtual void release(void* memory, bool idle = false, void* stream = nullptr) = 0;
  // Whether so little is left that CUDA might not find what it takes itself, for the code of kernels and for recordings,
  // even after everything that was released has been given back to the system.
  virtual bool scarce() = 0;
  // Queued after what came before; host memory may be reused when they return. copy_out and finish wait for the queue.
  virtual void copy_in(void* to, const void* host, size_t bytes, Status& status) = 0;
  virtual void copy_out(void* host, const void* from, size_t bytes, Status& status) = 0;
  virtual void fill(void* memory, int byte, size_t bytes, Status& status, void* stream = nullptr) = 0;
  virtual void finish(Status& status) = 0;

  // Host memory to memory that was allocated as idle, beside the queue's work: through two page-locked blocks, of which
  // one is filled while the other is on its way. Host memory may be reused when it returns. await_feeds() keeps what is
  // queued after it until everything fed has arrived.
  virtual void feed(void* to, const void* host, size_t bytes, Status& status) = 0;
  virtual void await_feeds(Status& status) = 0;
  // Fetching beside computing: a slot is page-locked host memory, null where there is none of this size, which copy_out()
  // does without. fetch() queues a copy into one; it is there when a mark behind it has been waited for.
  virtual void* make_slot(size_t bytes) = 0;
  virtual void end_slot(void* slot) = 0;
  virtual void fetch(void* slot, const void* from, size_t bytes, Status& status) = 0;
  // A mark behind everything queued so far, null with an error; wait() returns when the queue has come there, and ends
  // the mark.
  virtual void* mark(Status& status) = 0;
  virtual void wait(void* mark, Status& status) = 0;
};

struct BackendLibrary {
  uint32_t version;
  bool emulated;  // its devices are not GPUs
  const char* affuse_version;
  const char* const* operators;  // names of those that have kernels here, null at the end
  // Devices there are; 0 with a coded reason if there are none or the driver cannot be used.
  int (*count)(Status& status);
  // Device `index`; null only with an error. Never closed.
  Backend* (*open)(int index, Status& status);
};

// The library's one exported symbol: const BackendLibrary* affuse_backend_library(void).
constexpr const char* kBackendSymbol = "affuse_backend_library";

}  // namespace affuse
