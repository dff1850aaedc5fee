/** Results as text. */
import type { Change } from "./compare.ts";
import { type TargetResult, verdict } from "./targets.ts";
import type { Entry, Where } from "./types.ts";

/** What a program or a file said may be anything, also orders to the terminal. */
export const printable = (text: string): string => text.replace(/[^ -~]/g, "?");

/** "12.3 µs", three significant digits. */
export function duration(seconds: number): string {
  // What would be rounded to 1000 of a unit is 1.00 of the next.
  const [value, unit] =
    seconds < 999.5e-6 ? [seconds * 1e6, "µs"] : seconds < 0.9995 ? [seconds * 1e3, "ms"] : [seconds, "s"];
  return `${value >= 100 ? value.toFixed(0) : value.toPrecision(3)} ${unit}`;
}

/** One line per contender of a case. */
export function describeCase(entries: readonly Entry[]): string {
  const first = entries[0];
  if (!first) return "";
  const lines = entries.map((entry) => {
    const who = `${entry.peer}${entry.setting ? ` (${entry.setting})` : ""}, ${entry.threads} thread${entry.threads > 1 ? "s" : ""}`;
    const rate =
      entry.flops_per_second && entry.bytes_per_second
        ? `${(entry.flops_per_second / 1e9).toFixed(1)} GFLOP/s  ${(entry.bytes_per_second / 1e9).toFixed(1)} GB/s`
        : "";
    const beside = entry.shared ? ` (shared core: issues ${entry.issue_percent.toFixed(0)} %)` : "";
    const roof =
      entry.roof_percent === null ? "" : `${entry.roof_percent.toFixed(0)} % of ${entry.roof_kind}${beside}`;
    const ratio = entry.ratio === null ? "" : `×${entry.ratio.toFixed(2)}`;
    const spread = `[${duration(entry.p20)}, ${duration(entry.p80)}]`;
    return `  ${who.padEnd(34)} ${duration(entry.median).padStart(9)} ${spread.padEnd(22)} ${rate.padEnd(32)} ${roof.padEnd(24)} ${ratio}`.trimEnd();
  });
  const sampled = entries.flatMap((entry) => (entry.where ? [`    where: ${describeWhere(entry.where)}`] : []));
  return [first.case, ...lines, ...sampled].join("\n");
}

/** "register tiles 61 %, packing 9 %, …". */
export function describeWhere({ tiles, packing, kernels, between }: Where): string {
  const percent = (name: string, part: number) => `${name} ${(100 * part).toFixed(0)} %`;
  return [
    percent("register tiles", tiles),
    percent("packing", packing),
    percent("other kernels", kernels),
    percent("between runs", between),
  ].join(", ");
}

const withUnit = (value: number, unit: TargetResult["unit"]) =>
  unit === "%" ? `${value.toFixed(1)} %` : unit === "×" ? `${value.toFixed(2)} ×` : `${value.toFixed(2)} µs`;

/** Every row with what was reached, the target, and pass or miss. */
export function describeTargets(targets: readonly TargetResult[]): string {
  const width = Math.max(...targets.map(({ row }) => row.length));
  const lines = targets.map((target) => {
    const { row, value, bound, sense, unit } = target;
    const reached = value === null ? "–" : withUnit(value, unit);
    const sign = sense === "at least" ? "≥" : "≤";
    return `  ${row.padEnd(width)}  ${reached.padStart(9)}  ${sign} ${withUnit(bound, unit).padEnd(9)}  ${verdict(target)}`.trimEnd();
  });
  return ["targets", ...lines].join("\n");
}

/** Null where the cores were this process's own all the time. */
export function describeShared(entries: readonly Entry[]): string | null {
  const shared = entries.filter((entry) => entry.shared).length;
  if (shared === 0) return null;
  return (
    `note: something else used the cores during ${shared} of ${entries.length} timings: instructions that do nothing took longer\n` +
    "beside them too, so their percents are too low. --patience 600 waits up to ten minutes for calm moments."
  );
}

/** Cases by how much they changed. */
export function describeChanges(changes: readonly Change[]): string {
  return changes
    .map(({ name, change, slower, faster, clear }) => {
      const text = `${change >= 0 ? "+" : "−"}${Math.abs(100 * change).toFixed(1)} %`;
      return `  ${text.padStart(9)}  ${name}${slower ? "  SLOWER" : faster ? "  faster" : clear ? "" : "  (within the spread)"}`;
    })
    .join("\n");
}
