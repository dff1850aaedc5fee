// libcuda.so.1 that says what FAKE_INIT (a CUresult), FAKE_VERSION and FAKE_COUNT ask for, as far as the CUDA runtime gets
// before it opens a device: for errors.test.ts.
#include <cstdlib>
#include <cstring>

namespace {

int asked(const char* name, int otherwise) {
  const char* const value = getenv(name);
  return value ? atoi(value) : otherwise;
}
int unknown() { return 801; }  // CUDA_ERROR_NOT_SUPPORTED

}  // namespace

extern "C" {
int cuInit(unsigned) { return asked("FAKE_INIT", 0); }
int cuDriverGetVersion(int* version) { return *version = asked("FAKE_VERSION", 99000), 0; }
int cuDeviceGetCount(int* count) { return *count = asked("FAKE_COUNT", 1), 0; }
int cuGetExportTable(const void** table, const void*) { return *table = nullptr, 500; }  // CUDA_ERROR_NOT_FOUND
int cuGetProcAddress_v2(const char* name, void** found, int, unsigned long, int* status) {
  if (status) *status = 0;
  *found = reinterpret_cast<void*>(&unknown);
  const struct {
    const char* name;
    void* function;
  } known[] = {{"cuInit", reinterpret_cast<void*>(&cuInit)},
               {"cuDriverGetVersion", reinterpret_cast<void*>(&cuDriverGetVersion)},
               {"cuDeviceGetCount", reinterpret_cast<void*>(&cuDeviceGetCount)},
               {"cuGetExportTable", reinterpret_cast<void*>(&cuGetExportTable)},
               {"cuGetProcAddress", reinterpret_cast<void*>(&cuGetProcAddress_v2)}};
  for (const auto& each : known)
    if (!strcmp(each.name, name)) *found = each.function;
  return 0;
}
int cuGetProcAddress(const char* name, void** found, int version, unsigned long flags) {
  return cuGetProcAddress_v2(name, found, version, flags, nullptr);
}
}
