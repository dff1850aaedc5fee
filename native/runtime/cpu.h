// What this machine's CPU can do, and how much of it this process may use.
#pragma once
#include "kernels/common/op.h"

namespace affuse {

struct CpuInfo {
  bool level[kIsaCount] = {true};  // what the CPU and the system support
  Isa isa = kBaseline;                           // what kernels run on: the best, or AFFUSE_CPU
  int threads = 1;                               // AFFUSE_THREADS, else affinity and cgroup quota
  struct {
    int64_t l1 = 0, l2 = 0, l3 = 0;              // bytes per core, per core, shared; 0: unknown
  } caches;
  Status error;  // AFFUSE_CPU or AFFUSE_THREADS cannot be obeyed; nothing may run then
};

// Decided at the first call, for the life of the process.
const CpuInfo& cpu_info();

const char* isa_name(Isa isa);

constexpr int kMaxThreads = 1024;

// Threads of calls that do not say; starts as cpu_info().threads.
int default_threads();
void set_default_threads(int count);

}  // namespace affuse
