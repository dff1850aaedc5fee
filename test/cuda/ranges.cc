// Two NVTX ranges (native/backend/ranges.h), or with AFFUSE_TEST_INJECTION the tool that prints what it is told: for
// errors.test.ts.
#if defined(AFFUSE_TEST_INJECTION)
#include <cstdio>

#include <nvtx3/nvToolsExt.h>

namespace {

nvtxDomainHandle_t create(const char* name) {
  printf("domain %s\n", name);
  return reinterpret_cast<nvtxDomainHandle_t>(1);
}
int push(nvtxDomainHandle_t, const nvtxEventAttributes_t* event) { return printf("push %s\n", event->message.ascii), 0; }
int pop(nvtxDomainHandle_t) { return printf("pop\n"), 0; }

}  // namespace

extern "C" int InitializeInjectionNvtx2(NvtxGetExportTableFunc_t get) {
  const auto* callbacks = static_cast<const NvtxExportTableCallbacks*>(get(NVTX_ETID_CALLBACKS));
  NvtxFunctionTable table = nullptr;
  unsigned size = 0;
  if (!callbacks->GetModuleFunctionTable(NVTX_CB_MODULE_CORE2, &table, &size)) return 0;
  *table[NVTX_CBID_CORE2_DomainCreateA] = reinterpret_cast<NvtxFunctionPointer>(&create);
  *table[NVTX_CBID_CORE2_DomainRangePushEx] = reinterpret_cast<NvtxFunctionPointer>(&push);
  *table[NVTX_CBID_CORE2_DomainRangePop] = reinterpret_cast<NvtxFunctionPointer>(&pop);
  return 1;
}
#else
#include "native/backend/ranges.h"

int main() {
  const affuse::cuda::Range program("program linear … adamw (12 operators)");
  const affuse::cuda::Range op("linear");
}
#endif
