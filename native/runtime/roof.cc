#include "roof.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <chrono>
#include <cstring>
#include <mutex>

#include "kernels/roof/roof.h"
#include "memory.h"
#include "pool.h"

namespace affuse {
namespace {

using roof::Loop;
using Clock = std::chrono::steady_clock;

constexpr int kRegisters = 0, kDram = 4;

const RoofKind kKinds[] = {
    {"fma.f32", int(Loop::fma_f32), kRegisters}, {"fma.bf16", int(Loop::fma_bf16), kRegisters},
    {"read.l1", int(Loop::read), 1},             {"read.l2", int(Loop::read), 2},
    {"read.l3", int(Loop::read), 3},             {"read.dram", int(Loop::read_far), kDram},
    {"copy.dram", int(Loop::copy), kDram},       {"copy-nt.dram", int(Loop::copy_nt), kDram},
    {"update.dram", int(Loop::update), kDram},   {"tile.l1", int(Loop::tile), 1},
    {"multiply16.dram", int(Loop::multiply16), kDram}, {"issue.f32", int(Loop::issue), kRegisters},
    {nullptr, 0, 0},
};

// Memory of the last kind beyond L1: filling 4 times the last-level cache takes longer than measuring it. L1's loops, which
// may be measured in between, have their own.
struct Held {
  Memory array[2];
  int64_t floats = 0;

  void reset() {
    floats = 0;
    for (Memory& memory : array) memory.reset();
  }
  bool hold(int64_t wanted, int arrays, Status& status) {
    if (floats == wanted && (arrays == 1 || array[1].data())) return true;
    reset();
    for (int i = 0; i < arrays; ++i) {
      if (!array[i].allocate(size_t(wanted) * 4, "measuring a roof", status)) return false;
      memset(array[i].data(), 0, size_t(wanted) * 4);  // untouched pages would all be one and the same page of zeros
    }
    floats = wanted;
    return true;
  }
};
std::mutex guard;
Held near, far;

constexpr int64_t kPiece = 64 * 1024;  // floats of a DRAM task

bool stores(const RoofKind& kind) { return kind.loop >= int(Loop::copy) && kind.loop <= int(Loop::update); }

// Floats in one thread's array, or in everybody's for DRAM.
int64_t floats_of(const RoofKind& kind, int threads) {
  const auto& caches = cpu_info().caches;
  const int64_t last = std::max({caches.l1, caches.l2, caches.l3});
  const auto power_of_two = [](int64_t bytes) { return int64_t(std::bit_floor(uint64_t(std::max<int64_t>(bytes, 0)))) / 4; };
  switch (kind.cache) {
    // A tile's operands may be any number, and the longer the less its ends count.
    case 1: return kind.loop == int(Loop::tile) ? caches.l1 / 4 * 3 / 4 / 16 * 16 : power_of_two(caches.l1 / 2);
    case 2: return power_of_two(caches.l2 / 2);
    case 3: return caches.l3 > 0 ? power_of_two(std::max(caches.l3 / (4 * threads), 2 * caches.l2)) : 0;
    case kDram: {
      const int64_t bytes = std::clamp(4 * last, int64_t(64) << 20, int64_t(1) << 30);
      const int arrays = stores(kind) ? 2 : 1;
      return (bytes / 4 / arrays + kPiece - 1) / kPiece * kPiece;
    }
    default: return 512;
  }
}

struct Slice {
  KernelFn loop;
  Loop which;
  const Held& held;
  int64_t floats, repeats;
  bool dram;

  void piece(int64_t index, int worker, double& done) const {
    float sink = 0;
    Attr attr[2];
    attr[0].i = int64_t(which);
    attr[1].i = repeats;
    const int64_t first = dram ? index * kPiece : worker * floats;
    Tensor in, out[2];
    in.dtype = out[0].dtype = DType::f32;
    in.rank = out[0].rank = 1;
    in.dim[0] = out[0].dim[0] = dram ? kPiece : floats;
    in.data = held.array[0].data() ? held.array[0].at(size_t(first) * 4) : nullptr;
    out[0].data = held.array[1].data() ? static_cast<void*>(held.array[1].at(size_t(first) * 4)) : &sink;
    out[1].dtype = DType::f64;
    out[1].rank = 1;
    out[1].dim[0] = 1;
    out[1].data = &done;
    OpCall call;
    call.in = &in;
    call.out = out;
    call.attr = attr;
    loop(call);
  }
};

}  // namespace

const RoofKind* roof_kinds() { return kKinds; }

const RoofKind* find_roof(const char* name) {
  for (const RoofKind* kind = kKinds; kind->name; ++kind)
    if (!strcmp(kind->name, name)) return kind;
  return nullptr;
}

double measure_roof(const RoofKind& kind, Isa isa, int threads, double seconds, Status& status) {
  if (kind.loop == int(Loop::fma_bf16) && isa != kAvx512Bf16) return 0;
  KernelFn loop = nullptr;  // as operators: of the nearest level that has one
  for (int level = isa; level >= 0 && !loop; --level) loop = roof::kRoofLoops[level];
  const int64_t floats = floats_of(kind, threads);
  if (!loop || floats < 512) return 0;
  const bool dram = kind.cache == kDram, copies = stores(kind);
  std::lock_guard lock(guard);
  Held& held = kind.cache <= 1 ? near : far;
  if (kind.cache == kRegisters) {
    if (kind.loop != int(Loop::issue)) far.reset();  // issue: a look between two measurements
  } else if (!held.hold(dram ? floats : floats * threads, copies ? 2 : 1, status)) {
    return 0;
  }
  // A slice is many short tasks, so that a helper that joins late or is pushed aside costs one of them and no more.
  Slice slice{loop, Loop(kind.loop), held, floats, 1, dram};
  if (!dram) {
    for (double spent = 0; spent < 20e-6; slice.repeats *= 2) {
      double done = 0;
      const auto start = Clock::now();
      slice.piece(0, 0, done);
      if (!(done > 0)) return 0;
      spent = std::chrono::duration<double>(Clock::now() - start).count();
    }
  }
  const int64_t tasks = dram ? floats / kPiece : 16 * threads;
  struct Sum {
    const Slice* slice;
    std::atomic<double> done{0};
  };
  // One slice alone may be the one in which this process was put aside.
  constexpr int kLeastSlices = 4;
  double best = 0;
  int slices = 0;
  const bool reads_far = kind.cache >= 3 && (kind.loop == int(Loop::read) || kind.loop == int(Loop::read_far));
  constexpr Loop kReads[] = {Loop::read_far, Loop::read_places, Loop::read};
  const auto begin = Clock::now();
  do {
    // Beyond L2 processors differ in what suits them: the loops take turns, and the best counts.
    if (reads_far) slice.which = kReads[slices % 3];
    Sum sum{&slice};
    const auto start = Clock::now();
    Pool::instance().run(
        threads, tasks,
        [](void* arg, int64_t index, int worker) {
          Sum& to = *static_cast<Sum*>(arg);
          double done = 0;
          to.slice->piece(index, worker, done);
          to.done.fetch_add(done, std::memory_order_relaxed);
        },
        &sum);
    best = std::max(best, sum.done.load() / std::chrono::duration<double>(Clock::now() - start).count());
  } while (++slices < kLeastSlices || std::chrono::duration<double>(Clock::now() - begin).count() < seconds);
  return best;
}

}  // namespace affuse
