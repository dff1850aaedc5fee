/** What the HTML report shows about trained runs. */
import { existsSync, readdirSync } from "node:fs";
import path from "node:path";
import { readText } from "../data/files.ts";
import { writeReport } from "../report/index.ts";
import type { LearningCurve, ReportData } from "../report/types.ts";
import type { RunEvaluation } from "./evaluate.ts";

/**
 * Learning curves from a run's history.jsonl files; lines that are not JSON are left out (the file is for
 * reading, not for resuming).
 */
export function learningCurves(run: string): LearningCurve[] {
  const folders = (at: string) =>
    existsSync(at)
      ? readdirSync(at, { withFileTypes: true })
          .filter((entry) => entry.isDirectory())
          .map(({ name }) => name)
      : [];
  return folders(run).flatMap((system) =>
    folders(path.join(run, system)).flatMap((fold): LearningCurve[] => {
      const file = path.join(run, system, fold, "history.jsonl");
      if (!existsSync(file)) return [];
      const epochs = readText(file)
        .split("\n")
        .flatMap((line): LearningCurve["epochs"][number][] => {
          try {
            const { epoch, loss, validation } = JSON.parse(line) as {
              epoch: number;
              loss: number;
              validation: { metric: number | null };
            };
            return [{ epoch, loss, metric: validation.metric }];
          } catch {
            return [];
          }
        });
      if (epochs.length === 0) return [];
      const best = epochs.reduce((top, record) =>
        (record.metric ?? Number.NEGATIVE_INFINITY) > (top.metric ?? Number.NEGATIVE_INFINITY) ? record : top,
      );
      return [
        {
          system,
          run: fold.replace(/^fold/, "fold "),
          epochs,
          metricName: "validation metric",
          best: best.epoch,
        },
      ];
    }),
  );
}

function kindOf(name: string): "audio" | "visual" | "ensemble" | "fusion" {
  return name === "audio" || name === "visual" || name === "ensemble" ? name : "fusion";
}

/** Report data of an evaluation; demo and others add clips and ceilings. */
export function reportData(
  runs: readonly string[],
  evaluation: RunEvaluation,
  provenance: ReportData["provenance"] = {},
): ReportData {
  return {
    title: `Evaluation on ${evaluation.on}`,
    subtitle: runs.map((run) => path.basename(path.resolve(run))).join(", "),
    classes: evaluation.classes,
    testSet: { name: evaluation.on, clips: evaluation.clips },
    systems: Object.entries(evaluation.systems).flatMap(([name, system]) =>
      system.evaluation ? [{ name, kind: kindOf(name), evaluation: system.evaluation }] : [],
    ),
    curves: runs.flatMap(learningCurves),
    notes: evaluation.notes,
    provenance,
  };
}

/** @throws ERR_AFFUSE_WRITE */
export function writeEvaluationReport(
  file: string,
  runs: readonly string[],
  evaluation: RunEvaluation,
  provenance?: ReportData["provenance"],
): void {
  writeReport(file, reportData(runs, evaluation, provenance));
}
