// Names in a timeline of Nsight Systems: one NVTX range of the domain "affuse" for every operator that is queued and every
// program that is replayed. NVTX is header-only and does nothing unless a tool is there. Of the CUDA library only.
#pragma once

#if (defined(__CUDACC__) || defined(AFFUSE_NVTX)) && __has_include(<nvtx3/nvToolsExt.h>)
#include <nvtx3/nvToolsExt.h>

namespace affuse::cuda {

class Range {
 public:
  explicit Range(const char* name) {
    nvtxEventAttributes_t event = {};
    event.version = NVTX_VERSION;
    event.size = NVTX_EVENT_ATTRIB_STRUCT_SIZE;
    event.messageType = NVTX_MESSAGE_TYPE_ASCII;
    event.message.ascii = name;
    nvtxDomainRangePushEx(domain(), &event);
  }
  ~Range() { nvtxDomainRangePop(domain()); }
  Range(const Range&) = delete;

 private:
  static nvtxDomainHandle_t domain() {
    static const nvtxDomainHandle_t made = nvtxDomainCreateA("affuse");
    return made;
  }
};

}  // namespace affuse::cuda

#else

namespace affuse::cuda {

struct Range {
  explicit Range(const char*) {}
  ~Range() {}
};

}  // namespace affuse::cuda

#endif
