#include "cpu.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <thread>
#if defined(__linux__)
#include <sched.h>
#include <unistd.h>
#endif
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "kernels/gemm/bf16_tiles.h"

namespace affuse {
namespace {

const char* const kIsaNames[kIsaCount] = {"baseline", "avx2", "avx512", "avx512bf16", "neon"};

void detect_levels([[maybe_unused]] CpuInfo& info) {
#if defined(__x86_64__)
  unsigned a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE)) return;
  [[maybe_unused]] const bool fma = c & bit_FMA, f16c = c & bit_F16C, avx = c & bit_AVX;
  // Which registers the system saves on a context switch: without that the instructions exist but may not be used.
  unsigned low, high;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  [[maybe_unused]] const bool ymm = (low & 0x6) == 0x6, zmm = (low & 0xe6) == 0xe6;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return;
#if AFFUSE_BUILT_AVX2
  info.level[kAvx2] = avx && fma && f16c && ymm && (b & bit_AVX2) && (b & bit_BMI2);
#endif
#if AFFUSE_BUILT_AVX512
  constexpr unsigned kWanted = bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL;
  info.level[kAvx512] = avx && fma && f16c && zmm && (b & bit_BMI2) && (b & kWanted) == kWanted;
  constexpr unsigned kBf16 = 1u << 5;  // leaf 7, subleaf 1, EAX: AVX512_BF16
  info.level[kAvx512Bf16] =
      info.level[kAvx512] && gemm::kNativeBf16Tiles && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & kBf16);
#endif
#elif defined(__aarch64__) && AFFUSE_BUILT_NEON
  info.level[kNeon] = true;  // part of the architecture
#else
  (void)info;
#endif
}

void choose_level(CpuInfo& info) {
  for (int i = 0; i < kIsaCount; ++i)
    if (info.level[i]) info.isa = Isa(i);
  const char* wanted = getenv("AFFUSE_CPU");
  if (!wanted || !*wanted) return;
  std::string available;
  for (int i = 0; i < kIsaCount; ++i) {
    if (!info.level[i]) continue;
    if (!available.empty()) available += ", ";
    available += kIsaNames[i];
    if (!strcmp(wanted, kIsaNames[i])) {
      info.isa = Isa(i);
      return;
    }
  }
  info.error.fail("ERR_AFFUSE_CPU", "expected AFFUSE_CPU to name a level of this machine (%s), got \"%.40s\"",
                  available.c_str(), wanted);
}

#if defined(__linux__)
// CPUs' worth of time that a cgroup file allows, rounded up; 0: no limit.
int quota_of(const std::string& folder, bool v2) {
  double quota = 0, period = 0;
  if (v2) {
    std::ifstream file(folder + "/cpu.max");
    std::string first;
    if (!(file >> first >> period) || first == "max") return 0;
    quota = atof(first.c_str());
  } else {
    std::ifstream quota_file(folder + "/cpu.cfs_quota_us"), period_file(folder + "/cpu.cfs_period_us");
    if (!(quota_file >> quota) || !(period_file >> period)) return 0;
  }
  if (quota <= 0 || period <= 0) return 0;
  const double cpus = quota / period;
  return cpus <= 1 ? 1 : int(cpus) + (cpus > int(cpus) ? 1 : 0);
}

// The tightest quota on the way from this process's cgroup up to the root; 0: none.
int cgroup_quota() {
  int best = 0;
  std::ifstream groups("/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const bool v2 = controllers.empty();
    if (!v2 && ("," + controllers + ",").find(",cpu,") == std::string::npos) continue;
    const std::string mount = v2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/cpu";
    std::string path = line.substr(second + 1);
    for (;;) {
      const int quota = quota_of(mount + (path == "/" ? "" : path), v2);
      if (quota && (!best || quota < best)) best = quota;
      const size_t slash = path.rfind('/');
      if (path.empty() || path == "/" || slash == std::string::npos) break;
      path.resize(slash);
      if (path.empty()) path.push_back('/');
    }
  }
  return best;
}
#endif

void count_threads(CpuInfo& info) {
  int count = int(std::thread::hardware_concurrency());
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) count = CPU_COUNT(&set);
  const int quota = cgroup_quota();
  if (quota && quota < count) count = quota;
#endif
  info.threads = count < 1 ? 1 : count > kMaxThreads ? kMaxThreads : count;
  const char* wanted = getenv("AFFUSE_THREADS");
  if (!wanted || !*wanted) return;
  char* end;
  const long value = strtol(wanted, &end, 10);
  if (*end || value < 1 || value > kMaxThreads)
    return info.error.fail("ERR_AFFUSE_THREADS", "expected AFFUSE_THREADS as an integer in [1, %d], got \"%.40s\"",
                           kMaxThreads, wanted);
  info.threads = int(value);
}

#if defined(__linux__)
// What the kernel knows of this processor's data caches; false where it tells nothing.
bool kernel_caches(CpuInfo& info) {
  const std::string folder = "/sys/devices/system/cpu/cpu" + std::to_string(std::max(0, sched_getcpu())) + "/cache/index";
  const auto word = [&](int index, const char* name) {
    std::string value;
    std::ifstream(folder + std::to_string(index) + "/" + name) >> value;
    return value;
  };
  int64_t* const sizes[] = {&info.caches.l1, &info.caches.l2, &info.caches.l3};
  for (int index = 0; index < 8; ++index) {
    const int level = atoi(word(index, "level").c_str());
    if (level < 1 || level > 3 || word(index, "type") == "Instruction") continue;
    const std::string size = word(index, "size");  // "32K"
    const int64_t unit = size.find('M') != size.npos ? 1 << 20 : size.find('K') != size.npos ? 1 << 10 : 1;
    *sizes[level - 1] = std::max<int64_t>(*sizes[level - 1], atoll(size.c_str()) * unit);
  }
  return info.caches.l1 > 0;
}
#endif

void measure_caches(CpuInfo& info) {
#if defined(__linux__)
  // The C library adds up the L3 of a whole AMD package: eight times what a core can use.
  if (kernel_caches(info)) return;
#endif
#if defined(_SC_LEVEL1_DCACHE_SIZE)
  const auto size = [](int name) { return std::max(0L, sysconf(name)); };
  info.caches.l1 = size(_SC_LEVEL1_DCACHE_SIZE);
  info.caches.l2 = size(_SC_LEVEL2_CACHE_SIZE);
  info.caches.l3 = size(_SC_LEVEL3_CACHE_SIZE);
#else
  (void)info;
#endif
}

std::atomic<int> chosen_threads{0};

}  // namespace

const CpuInfo& cpu_info() {
  static const CpuInfo info = [] {
    CpuInfo result;
    detect_levels(result);
    choose_level(result);
    count_threads(result);
    measure_caches(result);
    // The same avx512 kernels, with other micro kernels for bf16 operands.
    if (result.isa == kAvx512Bf16) gemm::bf16_tiles = gemm::kNativeBf16Tiles;
    return result;
  }();
  return info;
}

const char* isa_name(Isa isa) { return kIsaNames[isa]; }

int default_threads() {
  const int chosen = chosen_threads.load(std::memory_order_relaxed);
  return chosen ? chosen : cpu_info().threads;
}

void set_default_threads(int count) { chosen_threads.store(count, std::memory_order_relaxed); }

}  // namespace affuse
