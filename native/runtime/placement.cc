#include "placement.h"

#if defined(__linux__)
#include <pthread.h>
#include <sched.h>
#endif

namespace affuse {

#if defined(__linux__)

namespace {

cpu_set_t remembered;
thread_local bool helps = false;

}  // namespace

int this_processor() { return sched_getcpu(); }

// More processors than the set holds: none are remembered, the scheduler is left alone, and so it is wherever a call fails.
void remember_processors() {
  if (sched_getaffinity(0, sizeof remembered, &remembered) != 0) CPU_ZERO(&remembered);
}

void become_helper() { helps = true; }

void keep_off(std::vector<std::thread>& helpers, int processor) {
  cpu_set_t allowed = remembered;
  if (!helps) {
    cpu_set_t own;
    if (sched_getaffinity(0, sizeof own, &own) != 0) return;
    CPU_AND(&allowed, &allowed, &own);
  }
  if (processor < 0 || processor >= CPU_SETSIZE || !CPU_ISSET(processor, &allowed)) return;
  CPU_CLR(processor, &allowed);
  if (CPU_COUNT(&allowed) == 0) return;
  for (std::thread& helper : helpers) {
    if (helps && pthread_equal(helper.native_handle(), pthread_self())) continue;
    pthread_setaffinity_np(helper.native_handle(), sizeof allowed, &allowed);
  }
}

#else

int this_processor() { return -1; }
void remember_processors() {}
void become_helper() {}
void keep_off(std::vector<std::thread>&, int) {}

#endif

}  // namespace affuse
