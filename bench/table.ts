/** Results as text. */
import type { Entry } from "./types.ts";

/** "12.3 µs", three significant digits. */
export function duration(seconds: number): string {
  const [value, unit] =
    seconds < 1e-3 ? [seconds * 1e6, "µs"] : seconds < 1 ? [seconds * 1e3, "ms"] : [seconds, "s"];
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
    const roof =
      entry.roof_percent === null ? "" : `${entry.roof_percent.toFixed(0)} % of ${entry.roof_kind}`;
    const ratio = entry.ratio === null ? "" : `×${entry.ratio.toFixed(2)}`;
    const spread = `[${duration(entry.p20)}, ${duration(entry.p80)}]`;
    return `  ${who.padEnd(34)} ${duration(entry.median).padStart(9)} ${spread.padEnd(22)} ${rate.padEnd(32)} ${roof.padEnd(24)} ${ratio}`.trimEnd();
  });
  return [first.case, ...lines].join("\n");
}
