// The host's side of a .cu file: where work is queued and how kernels are started. verbs.h is the device's side.
#pragma once
#include "../op.h"
#include "verbs.h"

#if defined(__CUDACC__)
#include "errors.h"
#include "launched.h"
#else
#include <functional>
#endif
#include <tuple>
#include <type_traits>
#include <utility>

namespace affuse::cuda {

#if defined(__CUDACC__)
using Stream = cudaStream_t;
#else
using Stream = void*;  // the emulator has done everything by the time a launch returns
#endif

// A kernel with its arguments.
#if defined(__CUDACC__)
using Started = cudaKernelNodeParams;
#else
using Started = std::function<void(Status&)>;
#endif

// Whoever keeps launches rather than letting them run at once: a program that is recorded, or one of its steps that gets new
// arguments (native/backend/recording.h).
class LaunchKeeper {
 public:
  virtual void keep(const Started& started, Status& status) = 0;

 protected:
  ~LaunchKeeper() = default;
};

// Work in order, and its first error.
struct Queue {
  Stream stream = nullptr;
  int processors = 1;  // multiprocessors of the device: how many blocks fill it
  int64_t cache = 0;   // bytes of its L2
  Status* status = nullptr;
  LaunchKeeper* keeper = nullptr;  // null: launches run
  size_t shared = 48 * 1024;       // most bytes of shared memory that a block may ask for
  bool ok() const { return status->ok(); }
};

struct Grid {
  int64_t x = 1, y = 1, z = 1;
};

// A kernel for messages; in the emulator with the place of the launch.
struct Named {
  const char* name;
#if defined(__CUDACC__)
  Named(const char* name) : name(name) {}
#else
  const char* file;
  int line;
  Named(const char* name, const char* file = __builtin_FILE(), int line = __builtin_LINE())
      : name(name), file(file), line(line) {}
#endif
};

inline bool fits(const Grid& grid, const char* kernel, Queue& queue) {
  if (grid.x <= 0x7fffffff && grid.y <= 65535 && grid.z <= 65535) return true;
  queue.status->fail("ERR_AFFUSE_SIZE",
                     "%s: expected a grid of at most 2147483647 x 65535 x 65535 blocks, got %lld x %lld x %lld", kernel,
                     (long long)grid.x, (long long)grid.y, (long long)grid.z);
  return false;
}

// The emulator's limit is that of the least device that kernels are built for, whatever it says in queue.shared.
inline bool fits_block(size_t shared, const Named& kernel, Queue& queue) {
#if defined(__CUDACC__)
  if (shared <= queue.shared) return true;
  queue.status->fail("ERR_AFFUSE_SIZE",
                     "%s: expected at most %zu bytes of shared memory for a block, which is what this device has, got %zu. Use a "
                     "smaller window or fewer queries, or cpu.",
                     kernel.name, queue.shared, shared);
#else
  if (shared <= emulator::kMostShared) return true;
  queue.status->fail("ERR_AFFUSE_SIZE", "%s: expected at most %zu bytes of shared memory for a block, got %zu (%s:%d)",
                     kernel.name, emulator::kMostShared, shared, kernel.file, kernel.line);
#endif
  return false;
}

// Queues kernel(args…) on grid blocks of `threads`; nothing if the grid is empty or an error came before.
template <class... Parameters, class... Arguments>
void launch(Named named, void (*kernel)(Parameters...), Queue& queue, Grid grid, int threads, size_t shared,
            Arguments&&... arguments) {
  const char* const name = named.name;
  if (!queue.ok() || grid.x * grid.y * grid.z == 0 || !fits(grid, name, queue) || !fits_block(shared, named, queue)) return;
#if defined(__CUDACC__)
  note_launched(reinterpret_cast<const void*>(kernel), grid.x * grid.y * grid.z);
  cudaError_t error = cudaSuccess;
  if (shared > 48 * 1024)  // more than this has to be asked for
    error = cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 int(shared));
  if (error == cudaSuccess) {
    std::tuple<std::remove_cv_t<Parameters>...> values{static_cast<Parameters>(arguments)...};
    std::apply(
        [&](auto&... value) {
          void* addresses[] = {&value..., nullptr};
          const Started started{reinterpret_cast<void*>(kernel), dim3(unsigned(grid.x), unsigned(grid.y), unsigned(grid.z)),
                                dim3(unsigned(threads)), unsigned(shared), addresses, nullptr};
          if (queue.keeper) return queue.keeper->keep(started, *queue.status);
          error = cudaLaunchKernel(started.func, started.gridDim, started.blockDim, addresses, shared, queue.stream);
        },
        values);
  }
  if (error != cudaSuccess) {
    (void)cudaGetLastError();  // so that the next call does not report it again
    queue.status->fail(code_of(error), "%s: expected a launch, got %s (%s)", name, cudaGetErrorString(error),
                       cudaGetErrorName(error));
  }
#else
  const emulator::Launch what{name, {unsigned(grid.x), unsigned(grid.y), unsigned(grid.z)}, unsigned(threads), shared,
                              reinterpret_cast<const void*>(kernel)};
  const Started started = [what, call = std::tuple<void (*)(Parameters...), Parameters...>{
                                     kernel, static_cast<Parameters>(arguments)...}](Status& status) {
    const auto body = [](void* arg) {
      std::apply([](auto* function, const auto&... values) { function(values...); },
                 *static_cast<const std::remove_const_t<decltype(call)>*>(arg));
    };
    char message[sizeof Status::message];
    if (!emulator::run(what, body, const_cast<void*>(static_cast<const void*>(&call)), message, sizeof message))
      status.fail("ERR_AFFUSE_EMULATOR", "%s", message);
  };
  if (queue.keeper) queue.keeper->keep(started, *queue.status);
  else started(*queue.status);
#endif
}
// AFFUSE_LAUNCH(kernel, queue, grid, threads, shared, arguments…)
#define AFFUSE_LAUNCH(kernel, ...) ::affuse::cuda::launch(#kernel, kernel, __VA_ARGS__)

// An operator on a device: OpDef's cpu and workspace for memory of the device. All tensors are device memory, `workers`
// is null.
struct DeviceOp {
  const char* name;  // of the OpDef
  void (*run)(const OpCall&, Queue&);
  size_t (*workspace)(const OpShape&, int processors) = nullptr;  // bytes; null: none
  // In its place for what is cut by the size of the L2 too.
  size_t (*workspace_by_cache)(const OpShape&, int processors, int64_t cache) = nullptr;
};
// AFFUSE_DEVICE_OP(kScale, "scale", &scale): the room's entry in the library's table; kScale is the OpDef's symbol.
#define AFFUSE_DEVICE_OP(symbol, ...)  \
  extern const DeviceOp symbol;        \
  const DeviceOp symbol{__VA_ARGS__};

}  // namespace affuse::cuda
