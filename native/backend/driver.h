// The few things of a device beside kernels: memory, copies, waiting. On the device these are the CUDA runtime's, in the
// emulator the host's own memory, each allocation a heap block of exactly its size. Included by backend.cu only.
#pragma once
#include "backend.h"
#include "kernels/common/cuda/launch.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

#if defined(__CUDACC__)
#include <cuda_runtime.h>
#else
#include <unistd.h>
#endif

namespace affuse::cuda::driver {

// How many multiprocessors kernels are to be divided for: AFFUSE_CUDA_PROCESSORS, else `there`. For tests: few, so that small sizes
// take the ways of large ones. Read when a device is opened.
inline int processors(int there) {
  const char* const asked = getenv("AFFUSE_CUDA_PROCESSORS");
  return asked && atoi(asked) > 0 ? atoi(asked) : there;
}

#if defined(__CUDACC__)
constexpr bool kEmulated = false;

// True if there was no error.
inline bool check(cudaError_t error, const char* doing, Status& status) {
  if (error == cudaSuccess) return true;
  (void)cudaGetLastError();  // so that the next call does not report it again
  status.fail(code_of(error), "expected the device to %s, got %s (%s)", doing, cudaGetErrorString(error),
              cudaGetErrorName(error));
  return false;
}

inline int count(Status& status) {
  int devices = 0, driver = 0;
  if (!check(cudaDriverGetVersion(&driver), "name its driver's version", status)) return 0;
  if (driver / 1000 < CUDART_VERSION / 1000) {  // minor versions of a major one go together
    char got[32] = "none";
    if (driver) snprintf(got, sizeof got, "one of CUDA %d.%d", driver / 1000, driver % 1000 / 10);
    status.fail("ERR_AFFUSE_CUDA_DRIVER", "expected an NVIDIA driver of CUDA %d.0 or newer, got %s. Use cpu.",
                CUDART_VERSION / 1000, got);
    return 0;
  }
  return check(cudaGetDeviceCount(&devices), "be counted", status) ? devices : 0;
}
inline bool describe(int index, DeviceFacts& facts, Status& status) {
  cudaDeviceProp properties;
  if (!check(cudaGetDeviceProperties(&properties, index), "describe itself", status)) return false;
  size_t i = 0;
  for (; i + 1 < sizeof facts.name && properties.name[i]; ++i) facts.name[i] = properties.name[i];
  facts.name[i] = 0;
  facts.major = properties.major;
  facts.minor = properties.minor;
  facts.processors = processors(properties.multiProcessorCount);
  facts.memory = properties.totalGlobalMem;
  facts.cache = properties.l2CacheSize > 0 ? properties.l2CacheSize : 4 << 20;
  (void)cudaDriverGetVersion(&facts.driver);
  return true;
}
inline bool most_shared(int index, size_t* bytes, Status& status) {
  int most = 0;
  if (!check(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, index), "describe itself", status))
    return false;
  *bytes = size_t(most);
  return true;
}
inline bool use(int index, Status& status) { return check(cudaSetDevice(index), "be selected", status); }
// The compute capabilities that the library was built for: "8.0, 9.0".
struct BuiltFor {
  char text[128] = "";
  BuiltFor() {
#if defined(__CUDA_ARCH_LIST__)
    size_t used = 0;
    for (const int arch : {__CUDA_ARCH_LIST__})
      if (used < sizeof text)
        used += size_t(snprintf(text + used, sizeof text - used, "%s%d.%d", used ? ", " : "", arch / 100, arch % 100 / 10));
#endif
  }
};
// Whether the library has code for this device: `kernel` stands for all, as they are compiled together.
template <class Kernel>
bool has_code(Kernel* kernel, const DeviceFacts& facts, Status& status) {
  cudaFuncAttributes attributes;
  const cudaError_t error = cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(kernel));
  if (error == cudaSuccess) return true;
  (void)cudaGetLastError();
  const char* const code = code_of(error);
  if (strcmp(code, "ERR_AFFUSE_CUDA_ARCHITECTURE")) return check(error, "load the kernels", status);
  status.fail(code,
              "expected kernels for compute capability %d.%d (%s), got a library for %s. Build it with "
              "-DAFFUSE_CUDA_ARCHITECTURES=%d%d-real (80 is the least), or use cpu.",
              facts.major, facts.minor, facts.name, BuiltFor().text, facts.major, facts.minor);
  return false;
}
inline bool make_stream(Stream& stream, Status& status) {
  return check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "make a stream", status);
}
// Whether the stream is captured into a graph by whoever it belongs to, and into which: the capture's number.
inline bool capturing(Stream stream, uint64_t* number, Status& status) {
  cudaStreamCaptureStatus state = cudaStreamCaptureStatusNone;
  unsigned long long id = 0;
  if (!check(cudaStreamGetCaptureInfo(stream, &state, &id), "say whether a stream is captured", status)) return false;
  *number = id;
  return state != cudaStreamCaptureStatusNone;
}
// While it lives, this thread may wait for what is no part of a capture, whoever captures.
class Relaxed {
 public:
  Relaxed() { (void)cudaThreadExchangeStreamCaptureMode(&mode_); }
  ~Relaxed() { (void)cudaThreadExchangeStreamCaptureMode(&mode_); }
  Relaxed(const Relaxed&) = delete;

 private:
  cudaStreamCaptureMode mode_ = cudaStreamCaptureModeRelaxed;
};
// Null without an error: there is not so much.
inline void* allocate(size_t bytes, Status& status) {
  const Relaxed relaxed;  // another thread's capture goes on
  void* memory = nullptr;
  const cudaError_t error = cudaMalloc(&memory, bytes);
  if (error == cudaSuccess) return memory;
  if (error != cudaErrorMemoryAllocation) check(error, "give memory", status);
  (void)cudaGetLastError();
  return nullptr;
}
inline void release(void* memory) {
  const Relaxed relaxed;
  (void)cudaFree(memory);
}
// The code of all kernels is a few tens of megabytes, a graph of a thousand launches a few.
inline bool scarce(int index) {
  constexpr size_t kEnough = size_t(256) << 20;
  size_t left = 0, all = 0;
  if (cudaSetDevice(index) == cudaSuccess && cudaMemGetInfo(&left, &all) == cudaSuccess) return left < kEnough;
  (void)cudaGetLastError();
  return true;
}
inline void copy_in(void* to, const void* from, size_t bytes, Stream stream, Status& status) {
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream), "take data", status);
}
inline void copy_out(void* to, const void* from, size_t bytes, Stream stream, Status& status) {
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream), "give data back", status);
}
inline void fill(void* memory, int byte, size_t bytes, Stream stream, Status& status) {
  check(cudaMemsetAsync(memory, byte, bytes, stream), "fill memory", status);
}
inline void wait(Stream stream, Status& status) { check(cudaStreamSynchronize(stream), "finish its work", status); }
// A place in a stream, for another stream or the host to wait for.
using Event = cudaEvent_t;
inline bool make_event(Event& event, Status& status) {
  return check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "make an event", status);
}
inline void end_event(Event event) { (void)cudaEventDestroy(event); }
inline void record(Event event, Stream stream, Status& status) {
  check(cudaEventRecord(event, stream), "record an event", status);
}
inline void wait_event(Event event, Status& status) { check(cudaEventSynchronize(event), "finish its work", status); }
// Whether the stream has come there; no, where that cannot be told.
inline bool passed(Event event) {
  const Relaxed relaxed;
  const bool known = cudaEventQuery(event) == cudaSuccess;
  if (!known) (void)cudaGetLastError();
  return known;
}
inline void follow(Stream stream, Event event, Status& status) {
  check(cudaStreamWaitEvent(stream, event, 0), "order its work", status);
}
// Null without an error: there is not so much. It is the host's memory, whatever CUDA's code says.
inline void* allocate_locked(size_t bytes, Status& status) {
  void* memory = nullptr;
  const cudaError_t error = cudaHostAlloc(&memory, bytes, cudaHostAllocPortable);
  if (error == cudaSuccess) return memory;
  if (error != cudaErrorMemoryAllocation) check(error, "lock pages of the host", status);
  (void)cudaGetLastError();
  return nullptr;
}
inline void release_locked(void* memory) { (void)cudaFreeHost(memory); }
constexpr size_t kStagingBlock = size_t(8) << 20;

#else
constexpr bool kEmulated = true;

inline int count(Status&) { return 1; }
inline bool describe(int, DeviceFacts& facts, Status&) {
  strcpy(facts.name, "emulator");
  facts.major = 8;
  facts.processors = processors(2);
  facts.cache = 64 << 10;  // little, so that small sizes go in chunks
  facts.memory = size_t(sysconf(_SC_PHYS_PAGES)) * size_t(sysconf(_SC_PAGESIZE));
  return true;
}
inline bool most_shared(int, size_t* bytes, Status&) {
  *bytes = 48 * 1024;  // little: what only fits where there is more is done the other way
  return true;
}
inline bool use(int, Status&) { return true; }
template <class Kernel>
bool has_code(Kernel*, const DeviceFacts&, Status&) {
  return true;
}
inline bool make_stream(Stream& stream, Status&) {
  stream = nullptr;
  return true;
}
inline bool capturing(Stream, uint64_t*, Status&) { return false; }
struct Relaxed {
  Relaxed() {}
  ~Relaxed() {}
};
inline void* allocate(size_t bytes, Status&) {
  void* memory = nullptr;
  return posix_memalign(&memory, 256, bytes) ? nullptr : memory;
}
inline void release(void* memory) { free(memory); }
inline bool scarce(int) { return false; }
inline void copy_in(void* to, const void* from, size_t bytes, Stream, Status&) { memcpy(to, from, bytes); }
inline void copy_out(void* to, const void* from, size_t bytes, Stream, Status&) { memcpy(to, from, bytes); }
inline void fill(void* memory, int byte, size_t bytes, Stream, Status&) { memset(memory, byte, bytes); }
inline void wait(Stream, Status&) {}
using Event = int;
inline bool make_event(Event&, Status&) { return true; }
inline void end_event(Event) {}
inline void record(Event, Stream, Status&) {}
inline void wait_event(Event, Status&) {}
inline bool passed(Event) { return true; }
inline void follow(Stream, Event, Status&) {}
inline void* allocate_locked(size_t bytes, Status&) { return malloc(bytes); }
inline void release_locked(void* memory) { free(memory); }
constexpr size_t kStagingBlock = 1024;  // small, so that small feeds go through several

#endif

// Whether memory is kept for the next request: on a device, and not in the emulator, unless AFFUSE_CUDA_CACHE=0 or =1 says
// otherwise. Where it is not, every block is fresh and has exactly its size, for compute-sanitizer and AddressSanitizer:
// within a kept block they see no overrun, and one that is used again counts as written.
inline bool caches() {
  static const char* const asked = getenv("AFFUSE_CUDA_CACHE");
  return asked && *asked ? strcmp(asked, "0") != 0 : !kEmulated;
}

}  // namespace affuse::cuda::driver
