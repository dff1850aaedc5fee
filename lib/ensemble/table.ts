/** Scores as plain text tables, for people. */
import type { Evaluation } from "../metrics/evaluate.ts";

const COLUMNS = [
  ["WA", "wa", (e: Evaluation) => e.emotion.wa],
  ["UA", "ua", (e: Evaluation) => e.emotion.ua],
  ["F1 weighted", "f1Weighted", (e: Evaluation) => e.emotion.f1Weighted],
  ["MSE", "mse", (e: Evaluation) => e.valence?.mse ?? Number.NaN],
  ["CCC", "ccc", (e: Evaluation) => e.valence?.ccc ?? Number.NaN],
  ["MER", "merMetric", (e: Evaluation) => e.merMetric ?? Number.NaN],
] as const;

/** Columns padded to equal width, first left, others right. */
export function textTable(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, c) => Math.max(...rows.map((row) => (row[c] ?? "").length)));
  return rows
    .map((row) =>
      row
        .map((cell, c) => (c === 0 ? cell.padEnd(widths[c] ?? 0) : cell.padStart(widths[c] ?? 0)))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

const number = (x: number, digits = 3) => (Number.isFinite(x) ? x.toFixed(digits) : "-");

/** One row per system: score and 95 % interval. */
export function systemTable(systems: readonly { name: string; evaluation: Evaluation | null }[]): string {
  const used = COLUMNS.filter(([, , pick]) =>
    systems.some(({ evaluation }) => evaluation && Number.isFinite(pick(evaluation))),
  );
  const head = ["", ...used.map(([label]) => label)];
  const rows = systems.map(({ name, evaluation }) => [
    name,
    ...used.map(([, key, pick]) => {
      if (!evaluation) return "-";
      const interval = evaluation.intervals[key];
      return `${number(pick(evaluation))}${interval ? ` [${number(interval.low, 2)}, ${number(interval.high, 2)}]` : ""}`;
    }),
  ]);
  return textTable([head, ...rows]);
}

/** Precision, recall, F1 and support of every class. */
export function classTable({ classes, emotion, intervals }: Evaluation): string {
  return textTable([
    ["", "precision", "recall", "F1", "clips"],
    ...classes.map((name, c) => {
      const score = emotion.perClass[c];
      const interval = intervals[`f1:${name}`];
      const range = interval ? ` [${number(interval.low, 2)}, ${number(interval.high, 2)}]` : "";
      return [
        name,
        number(score?.precision ?? Number.NaN),
        number(score?.recall ?? Number.NaN),
        `${number(score?.f1 ?? Number.NaN)}${range}`,
        String(score?.support ?? 0),
      ];
    }),
  ]);
}
