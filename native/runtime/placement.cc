#include "placement.h"

#if defined(__linux__)
#include <pthread.h>
#include <sched.h>
#endif

namespace affuse {

#if defined(__linux__)

int this_processor() { return sched_getcpu(); }

void keep_off(std::vector<std::thread>& helpers, int processor) {
  // More processors than the set holds: the scheduler is left alone, and so it is wherever a call fails.
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
  if (processor < 0 || processor >= CPU_SETSIZE || !CPU_ISSET(processor, &allowed)) return;
  CPU_CLR(processor, &allowed);
  if (CPU_COUNT(&allowed) == 0) return;
  for (std::thread& helper : helpers) pthread_setaffinity_np(helper.native_handle(), sizeof allowed, &allowed);
}

#else

int this_processor() { return -1; }
void keep_off(std::vector<std::thread>&, int) {}

#endif

}  // namespace affuse
