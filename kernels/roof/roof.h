// The machine's ceilings: loops that do nothing but what is measured. Not an operator; native/runtime/roof.cc times them.
//
//   fma_f32    x ← x·m + a on independent register chains, enough of them to fill every multiply-add port: 2 FLOP per lane
//              (plain x86-64 has no fused instruction: a multiply and an add)
//   fma_bf16   the same with pairs of bf16 multiplied and summed into float32: 4 FLOP per lane; only on levels with the
//              instruction (AVX-512-BF16)
//   read       every float of x loaded once into a register, in the order of addresses; bytes = 4n. For caches
//   read_places  the same at four places at once, which is several streams to the hardware's own reading ahead
//   read_far   the same, and fetching ahead, as the loops below do
//   copy       y ← x with ordinary stores; bytes = 8n. What the stores read first (write-allocate) is not counted
//   copy_nt    y ← x with non-temporal stores, which skip that reading; bytes = 8n. Ordinary where the level has none
//   update     y ← y + c·x in place, as an optimiser does: two reads, one write, and the write hits what was just read;
//              bytes = 12n
//
// and loops that are no ceilings of the machine, but of a kernel of that shape, whatever else it has to do, or a look at the core:
//
//   tile       the matrix core's widest register tile over packed operands of n floats together: its multiply-adds with the
//              loads that feed them, for products whose operands cost nothing to bring; FLOP
//   issue      fma_f32 with an empty instruction after every multiply-add: as quick on a core of its own, slower where something
//              else takes issue slots from it, which multiply-adds alone hardly notice; FLOP
//   multiply16 read_far, where sixteen multiply-adds meet every register read: weights of DRAM times 16 rows, if rows and sums
//              cost no instruction; FLOP = 32n
#pragma once
#include "kernels/common/op.h"

namespace affuse::roof {

enum class Loop : int64_t { fma_f32 = 0, fma_bf16, read, read_places, read_far, copy, copy_nt, update, tile, multiply16, issue };

// A kernel like an operator's, so that the build's levels apply to it. attr[0].i: Loop, attr[1].i: how often the loop is
// repeated; in[0]: x, of a length n that is a power of two >= 512; out[0]: y, n floats, or 1 where nothing is stored;
// out[1]: float64 [1], receives the FLOPs or bytes done, 0 where the level cannot do the loop.
AFFUSE_DECLARE_KERNEL(roof_loop)

extern const KernelFn kRoofLoops[kIsaCount];  // null: not built

}  // namespace affuse::roof
