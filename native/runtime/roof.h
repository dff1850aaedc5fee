// Measures the machine's ceilings (kernels/roof) here and now, in this process and on this process's pool.
#pragma once
#include "cpu.h"

namespace affuse {

// What a roof is: a loop and where its data lies.
struct RoofKind {
  const char* name;  // "fma.f32", "read.l2" …
  int loop;          // roof::Loop
  int cache;         // 0: registers; 1, 2, 3: L1, L2, L3; 4: DRAM
};
// Null when there is none of that name; roof_kinds() lists all, ended by a null name.
const RoofKind* find_roof(const char* name);
const RoofKind* roof_kinds();

// FLOP/s (fma.*, issue.*, tile.*, multiply16.*) or bytes/s: the best of several slices within about `seconds`, on `threads`
// threads at once. Zero where the level has no such instruction or the machine does not tell the size of that cache. Memory for DRAM loops (4 times the
// last-level cache) is kept until another kind is measured. Cache sizes per thread: half of L1, half of L2, and L3 / (4 ·
// threads) but at least twice L2, each rounded down to a power of two.
double measure_roof(const RoofKind& kind, Isa isa, int threads, double seconds, Status& status);

}  // namespace affuse
