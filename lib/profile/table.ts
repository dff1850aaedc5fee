/** A native profile summed up per operator. */
import type { NativeProfile } from "../native/addon.ts";
import { compare, type Limit, type Load, type Roofs } from "./roofs.ts";

/** Steps of a span that are not operators (NativeProfile). */
const WHOLE_RUN = -1;
const OTHER: Readonly<Record<number, string>> = {
  [-2]: "(copy in)",
  [-3]: "(copy out)",
  [-4]: "(pack weights)",
};
const WIDTH = 6;

export interface ProfileRow {
  /** Operator, or "(copy in)", "(copy out)", "(pack weights)", "(between operators)". */
  name: string;
  /** Shapes of the inputs; with `detail` only. */
  shapes?: string;
  /** Calls per step. */
  calls: number;
  /** Milliseconds per step. */
  milliseconds: number;
  /** Of the step's time; all rows together 1. */
  share: number;
  /** Per step; null where the row is no operator. */
  flops: number | null;
  bytes: number | null;
  gflops: number | null;
  /** GB/s by the least traffic: inputs read once, outputs written once. */
  gbytes: number | null;
  /** FLOPs per byte. */
  intensity: number | null;
  /** Least time that the roofs allow over the time taken; null for a row without work. */
  roof: number | null;
  limit: Limit | null;
}

export interface Summary {
  /** Runs that were timed. */
  runs: number;
  /** Milliseconds per run: mean and median. */
  mean: number;
  median: number;
  /** GFLOP/s and share of the multiply-add roof over the whole run. */
  gflops: number;
  roof: number;
  rows: ProfileRow[];
}

/** @param detail one row per instruction and shape instead of one per operator */
export function summarize(profile: NativeProfile, roofs: Roofs, detail = false): Summary {
  const groups = new Map<string, { name: string; shapes: string | null; loads: Map<string, Load> }>();
  const durations: number[] = [];
  let inside = 0;
  for (const { program, spans } of profile.runs) {
    for (let at = 0; at < spans.length; at += WIDTH) {
      const [step, begin, end, flops, read, written] = spans.subarray(at, at + WIDTH) as unknown as SpanTuple;
      const seconds = (end - begin) / 1e9;
      if (step === WHOLE_RUN) {
        durations.push(seconds);
        continue;
      }
      inside += seconds;
      const instruction = step >= 0 ? profile.programs[program]?.[step] : undefined;
      const name = instruction?.op ?? OTHER[step] ?? `(step ${step})`;
      const shapes = instruction?.shapes ?? "";
      const key = detail ? `${name} ${shapes}` : name;
      const group = groups.get(key) ?? { name, shapes: instruction ? shapes : null, loads: new Map() };
      groups.set(key, group);
      // Floors are worked out per shape: an operator's large calls and its small ones have different roofs.
      const load = group.loads.get(shapes) ?? { ...NOTHING, inPlace: instruction?.inPlace ?? false };
      group.loads.set(shapes, load);
      load.calls++;
      load.seconds += seconds;
      load.flops += flops;
      load.read += read;
      load.written += written;
    }
  }
  const runs = durations.length;
  const total = durations.reduce((sum, seconds) => sum + seconds, 0);
  const rows: ProfileRow[] = [];
  for (const { name, shapes, loads } of groups.values()) {
    rows.push(
      rowOf(name, detail ? shapes : null, [...loads.values()], shapes !== null, { runs, total, roofs }),
    );
  }
  const rest = Math.max(0, total - inside);
  if (runs > 0) {
    const load = { ...NOTHING, calls: runs, seconds: rest };
    rows.push(rowOf("(between operators)", null, [load], false, { runs, total, roofs }));
  }
  rows.sort((a, b) => b.milliseconds - a.milliseconds);
  const flops = rows.reduce((sum, row) => sum + (row.flops ?? 0), 0);
  const sorted = [...durations].sort((a, b) => a - b);
  const mean = runs > 0 ? total / runs : 0;
  return {
    runs,
    mean: mean * 1e3,
    median: (sorted[runs >> 1] ?? 0) * 1e3,
    gflops: mean > 0 ? flops / mean / 1e9 : 0,
    roof: mean > 0 && roofs.fma > 0 ? flops / mean / roofs.fma : 0,
    rows,
  };
}

type SpanTuple = [number, number, number, number, number, number];
const NOTHING: Load = { calls: 0, seconds: 0, flops: 0, read: 0, written: 0, inPlace: false };

function rowOf(
  name: string,
  shapes: string | null,
  loads: Load[],
  operator: boolean,
  { runs, total, roofs }: { runs: number; total: number; roofs: Roofs },
): ProfileRow {
  const sum = (key: "calls" | "seconds" | "flops" | "read" | "written") =>
    loads.reduce((result, load) => result + load[key], 0);
  const seconds = sum("seconds");
  const flops = sum("flops");
  const bytes = sum("read") + sum("written");
  const row = {
    name,
    ...(shapes !== null && { shapes }),
    calls: sum("calls") / runs,
    milliseconds: (seconds / runs) * 1e3,
    share: total > 0 ? seconds / total : 0,
  };
  if (!operator) {
    const none = { flops: null, bytes: null, gflops: null, gbytes: null, intensity: null, roof: null };
    return { ...row, ...none, limit: null };
  }
  // Floors add up over the shapes; the longest of them says what limits the operator.
  let floor = 0;
  let longest: { seconds: number; limit: Limit } | null = null;
  for (const load of loads) {
    const { roof, limit } = compare(load, roofs);
    floor += (roof ?? 0) * load.seconds;
    if (!longest || load.seconds > longest.seconds) longest = { seconds: load.seconds, limit };
  }
  return {
    ...row,
    flops: flops / runs,
    bytes: bytes / runs,
    gflops: seconds > 0 ? flops / seconds / 1e9 : null,
    gbytes: seconds > 0 ? bytes / seconds / 1e9 : null,
    intensity: bytes > 0 ? flops / bytes : null,
    roof: seconds > 0 && floor > 0 ? floor / seconds : null,
    limit: longest?.limit ?? null,
  };
}

/** The summary as text: a line per row, columns aligned. */
export function formatSummary(summary: Summary, roofs: Roofs): string {
  const number = (value: number | null, digits = 1) => (value === null ? "" : value.toFixed(digits));
  const percent = (value: number | null) => (value === null ? "" : `${(value * 100).toFixed(1)} %`);
  const head = ["operator", "calls", "ms", "share", "GFLOP/s", "GB/s", "FLOP/B", "roof", "limit"];
  const lines = summary.rows.map((row) => [
    row.shapes === undefined ? row.name : `${row.name} ${row.shapes}`.trim(),
    Number.isInteger(row.calls) ? String(row.calls) : row.calls.toFixed(1),
    number(row.milliseconds, 3),
    percent(row.share),
    number(row.gflops),
    number(row.gbytes),
    number(row.intensity),
    percent(row.roof),
    row.limit ?? "",
  ]);
  const widths = head.map((title, i) =>
    Math.max(title.length, ...lines.map((line) => (line[i] as string).length)),
  );
  const last = head.length - 1;
  const aligned = [head, ...lines].map((line) =>
    line
      .map((cell, i) => {
        const width = widths[i] as number;
        return i === 0 ? cell.padEnd(width) : i === last ? cell : cell.padStart(width);
      })
      .join("  ")
      .trimEnd(),
  );
  const giga = (value: number) => (value / 1e9).toFixed(1);
  const { threads, fma, l1, l2, l3, dram, copy, update } = roofs;
  return [
    `${summary.median.toFixed(2)} ms per run (median of ${summary.runs}, mean ${summary.mean.toFixed(2)}), ` +
      `${summary.gflops.toFixed(1)} GFLOP/s, ${(summary.roof * 100).toFixed(1)} % of the multiply-add roof`,
    `roofs on ${threads} thread${threads === 1 ? "" : "s"}: ${giga(fma)} GFLOP/s; reading ` +
      `L1 ${giga(l1)}, L2 ${giga(l2)}, L3 ${giga(l3)}, ` +
      `DRAM ${giga(dram)} GB/s; DRAM copy ${giga(copy)}, update ${giga(update)} GB/s`,
    "",
    ...aligned,
  ].join("\n");
}
