/** Ceilings of this machine, measured here and now, and what they mean for one operator call. */
import type { Precision } from "../graph/compile.ts";
import type { NativeAddon } from "../native/addon.ts";

/** FLOP/s and bytes/s at a thread count. */
export interface Roofs {
  threads: number;
  /** Multiply-adds in registers, of float32 or, asked for and there, bf16. */
  fma: number;
  /** Reading, by where the data lies. `l1`, `l2`: all threads together, each in its own cache. */
  l1: number;
  l2: number;
  l3: number;
  dram: number;
  /** DRAM to DRAM into other memory: bytes read + written. */
  copy: number;
  /** Updating in place through DRAM: bytes read + written. */
  update: number;
  /** Bytes of one L1, one L2 and the L3. */
  caches: { l1: number; l2: number; l3: number };
}

/**
 * @param seconds about how long each of the eight takes
 * @param precision bf16: multiply-adds of bf16 where the processor has them, else float32's
 */
export function measureRoofs(
  addon: NativeAddon,
  threads: number,
  seconds = 0.03,
  precision: Precision = "f32",
): Roofs {
  const of = (kind: Parameters<NativeAddon["roof"]>[0]) => addon.roof(kind, threads, seconds);
  return {
    threads,
    fma: (precision === "bf16" && of("fma.bf16")) || of("fma.f32"),
    l1: of("read.l1"),
    l2: of("read.l2"),
    l3: of("read.l3"),
    dram: of("read.dram"),
    copy: of("copy.dram"),
    update: of("update.dram"),
    caches: addon.cpu().caches,
  };
}

/** FLOPs and bytes of calls, their time in seconds and how many they were. */
export interface Load {
  calls: number;
  seconds: number;
  flops: number;
  read: number;
  written: number;
  inPlace: boolean;
}

export type Limit = "compute" | "L1" | "L2" | "L3" | "DRAM" | "overhead" | "latency";

/** Time per call below which a call far from every roof is put down to what any call costs. */
const OVERHEAD_SECONDS = 20e-6;
/** Share of a roof from which it is what limits a call. */
const NEAR = 0.4;

/**
 * The least time that the roofs allow for these calls over the time they took, and what limits them: the
 * higher of the two floors if the calls come near it, else `overhead` for calls of a few microseconds, or
 * `latency` (chains of dependent instructions, special functions, tasks of uneven size) for longer ones. Data
 * is taken to lie in the smallest level that holds one call's inputs and outputs.
 */
export function compare(load: Load, roofs: Roofs): { roof: number | null; limit: Limit } {
  const { calls, seconds, flops, read, written } = load;
  const level = levelOf((read + written) / calls, roofs);
  const compute = roofs.fma > 0 ? flops / roofs.fma : 0;
  const memory = memoryFloor(load, level, roofs);
  const floor = Math.max(compute, memory);
  if (!(floor > 0) || seconds === 0) return { roof: null, limit: "overhead" };
  const roof = floor / seconds;
  if (roof >= NEAR) return { roof, limit: compute >= memory ? "compute" : level };
  return { roof, limit: seconds / calls < OVERHEAD_SECONDS ? "overhead" : "latency" };
}

function levelOf(bytes: number, { threads, caches }: Roofs): "L1" | "L2" | "L3" | "DRAM" {
  if (bytes <= threads * caches.l1) return "L1";
  if (bytes <= threads * caches.l2) return "L2";
  return bytes <= caches.l3 ? "L3" : "DRAM";
}

function memoryFloor(load: Load, level: "L1" | "L2" | "L3" | "DRAM", roofs: Roofs): number {
  const { read, written, inPlace } = load;
  const over = (bytes: number, rate: number) => (rate > 0 ? bytes / rate : 0);
  if (level !== "DRAM")
    return over(read + written, level === "L1" ? roofs.l1 : level === "L2" ? roofs.l2 : roofs.l3);
  // A byte written costs what copying or updating says, with the byte read beside it; others cost reading.
  const pairs = Math.min(read, written);
  return (
    over(2 * pairs, inPlace ? roofs.update : roofs.copy) +
    over(read - pairs, roofs.dram) +
    over(2 * (written - pairs), roofs.copy)
  );
}
