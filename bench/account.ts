/**
 * What a small or oddly shaped case must spend beside its roof: the roof takes arithmetic and memory as fully overlapped and
 * every tile as full. Here the same work is counted one after another: arithmetic in whole tiles, hyperbolic tangents, memory,
 * packing of weights that changed, the start of a run. A case far below its roof is explained by these as far as their sum reaches.
 */
import type { NativeAddon } from "../lib/native/addon.ts";
import { roofOf, type RoofTable } from "./roofs.ts";
import type { Account, OperatorCase } from "./types.ts";

/** Lanes of a register, the unit in which columns are computed (kernels/common/simd.h, kLanes). */
const LANES: Readonly<Record<string, number>> = { baseline: 4, avx2: 8, neon: 4 };

/** The part of the columns of a product that is not padding. */
export function fillOf(columns: number, level: string): number {
  const lanes = LANES[level] ?? 16;
  return columns / (Math.ceil(columns / lanes) * lanes);
}

/** Seconds from a run's call to its promise, for a program of one operator on one element: median. */
export async function runStart(addon: NativeAddon): Promise<number> {
  const program = addon.createProgram({
    device: "cpu",
    arenaBytes: 128,
    buffers: [],
    values: [
      { dtype: "f32", shape: [1], buffer: -1, offset: 0, feed: 0 },
      { dtype: "f32", shape: [1], buffer: -1, offset: 64 },
    ],
    instructions: [{ op: "scale", inputs: [0], outputs: [1], attributes: { factor: 2 } }],
    feeds: [0],
    fetches: [],
    scalars: 0,
  });
  const feed = new Float32Array(1);
  const times: number[] = [];
  for (let i = 0; i < 1200; i++) {
    const begin = performance.now();
    await program.run([feed], []);
    if (i >= 200) times.push((performance.now() - begin) / 1000);
  }
  program.dispose();
  return times.sort((a, b) => a - b)[times.length / 2] as number;
}

/** Seconds of one hyperbolic tangent among many in the cache, one thread: median. */
export function tanhSeconds(addon: NativeAddon): number {
  const data = Float32Array.from({ length: 16384 }, (_, i) => Math.sin(i));
  const x = { dtype: "f32", shape: [data.length], data } as const;
  const out = new Float32Array(data.length);
  const times: number[] = [];
  for (let i = 0; i < 60; i++) {
    const begin = performance.now();
    addon.call("cpu", "activation", [x], { activation: "tanh" }, [out], 1);
    if (i >= 10) times.push((performance.now() - begin) / 1000);
  }
  return (times.sort((a, b) => a - b)[times.length / 2] as number) / data.length;
}

export interface Spent {
  flops: number;
  /** Hyperbolic tangents, and what one takes. */
  tanhs: number;
  tanh: number;
  /** Least seconds of the memory traffic, at the levels that it goes through. */
  memory: number;
  /** Bytes of the weights that a run packs anew. */
  packed: number;
  runsPerCall: number;
  start: number;
}

export function accountFor(test: OperatorCase, table: RoofTable, spent: Spent): Account {
  const fma = table.roofs["fma.f32"] as number;
  const fill = test.columns === undefined ? 1 : fillOf(test.columns, table.level);
  return {
    tiles: spent.flops / fma / fill,
    functions: spent.tanhs * spent.tanh,
    memory: spent.memory,
    // Read and written once each.
    packing: (2 * spent.packed) / roofOf(table, "copy.dram"),
    start: spent.start * spent.runsPerCall,
  };
}

export const accounted = ({ tiles, functions, memory, packing, start }: Account): number =>
  tiles + functions + memory + packing + start;
