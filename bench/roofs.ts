/** The machine's ceilings, and which of them bounds a case. */
import type { Precision } from "../lib/graph/compile.ts";
import type { NativeAddon, RoofKind } from "../lib/native/addon.ts";

export const ROOF_KINDS: readonly RoofKind[] = [
  "fma.f32",
  "fma.bf16",
  "read.l1",
  "read.l2",
  "read.l3",
  "read.dram",
  "copy.dram",
  "copy-nt.dram",
  "update.dram",
  "tile.l1",
  "multiply16.dram",
  "issue.f32",
];

export interface RoofTable {
  level: string;
  threads: number;
  /** FLOP/s or bytes/s; kinds that this machine lacks are left out. */
  roofs: Partial<Record<RoofKind, number>>;
}

/** Every roof of a level. */
export function measureRoofs(addon: NativeAddon, level: string, threads: number, seconds: number): RoofTable {
  const roofs: Partial<Record<RoofKind, number>> = {};
  for (const kind of ROOF_KINDS) {
    const value = addon.roof(kind, threads, seconds, level);
    if (value > 0) roofs[kind] = value;
  }
  return { level, threads, roofs };
}

/** Copying is bounded by the better of ordinary and non-temporal stores. */
export function roofOf(table: RoofTable, kind: RoofKind): number {
  const value = table.roofs[kind] ?? 0;
  return kind === "copy.dram" ? Math.max(value, table.roofs["copy-nt.dram"] ?? 0) : value;
}

/**
 * The memory level that a working set of so many bytes, used again and again by `threads` threads, lives in.
 */
export function readRoofFor(addon: NativeAddon, bytes: number, threads: number): RoofKind {
  const { l1, l2, l3 } = addon.cpu().caches;
  if (bytes / threads <= l1 / 2) return "read.l1";
  if (bytes / threads <= 0.75 * l2) return "read.l2";
  if (bytes <= 0.75 * l3) return "read.l3";
  return "read.dram";
}

/** Without the instruction, products of bf16 operands are float32 multiply-adds. */
export function arithmeticRoof(table: RoofTable, precision: Precision = "f32"): "fma.f32" | "fma.bf16" {
  return precision === "bf16" && table.roofs["fma.bf16"] ? "fma.bf16" : "fma.f32";
}

export interface Bound {
  kind: RoofKind;
  /** Least seconds by the roofs measured at the start. */
  least: number;
  /** Least seconds if the bounding roof has this value. */
  seconds(roof: number): number;
}

/** What the traffic takes at each level's rate, one part after another, in seconds. */
export function memorySeconds(table: RoofTable, parts: readonly { bytes: number; kind: RoofKind }[]): number {
  return parts.reduce((sum, { bytes, kind }) => sum + (bytes > 0 ? bytes / roofOf(table, kind) : 0), 0);
}

/**
 * What bounds a case: arithmetic, or the sum of what its memory traffic takes at each level's rate. Of
 * several levels the slowest part names the roof; the other parts are kept in proportion.
 */
export function boundBy(
  table: RoofTable,
  flops: number,
  parts: readonly { bytes: number; kind: RoofKind }[],
  precision: Precision = "f32",
): Bound {
  const arithmetic = arithmeticRoof(table, precision);
  const compute = flops / (table.roofs[arithmetic] as number);
  const times = parts.map(({ bytes, kind }) => ({
    kind,
    seconds: bytes > 0 ? bytes / roofOf(table, kind) : 0,
  }));
  const memory = times.reduce((sum, { seconds }) => sum + seconds, 0);
  if (compute >= memory || !Number.isFinite(memory))
    return { kind: arithmetic, least: compute, seconds: (roof) => flops / roof };
  const slowest = times.reduce((a, b) => (b.seconds > a.seconds ? b : a));
  return {
    kind: slowest.kind,
    least: memory,
    seconds: (roof) => (memory * roofOf(table, slowest.kind)) / roof,
  };
}
