/** `affuse eval`: scores of a run with intervals, and an HTML report. */
import path from "node:path";
import { InvalidArgumentError, Option } from "commander";
import { type Precision, PRECISIONS } from "../graph/precision.ts";
import { note, print, printJson } from "./io.ts";
import type { Register } from "./main.ts";

interface Flags {
  on?: string;
  data?: string;
  structure?: string[];
  against?: string;
  metric: string;
  resamples: number;
  seed: number;
  report?: string | false;
  precision?: Precision;
  threads?: number;
  device?: string;
  json?: boolean;
}

function whole(text: string): number {
  if (!/^\d{1,9}$/.test(text)) throw new InvalidArgumentError("expected a whole number.");
  return Number(text);
}

export const register: Register = (program) => {
  program
    .command("eval")
    .summary("score a trained run")
    .description(
      "Scores every structure of a run and their ensemble: accuracy (WA, UA), F1, valence " +
        "errors, the MER 2023 metric, confusion matrices, with 95 % bootstrap intervals. Without " +
        "--on it scores the saved predictions for the held-out folds. Writes eval-<split>.json, " +
        "predictions-<split>.csv and report-<split>.html into the run folder.",
    )
    .argument("<run>", "run folder")
    .option("--on <split>", "split to predict and score, e.g. test1")
    .option("--data <dir>", "where the data lies (default: as in the run)")
    .option(
      "--structure <name>",
      "only these structures; several with commas",
      (text: string, before: string[] = []) => [...before, ...text.split(",")],
    )
    .option("--against <run>", "paired test against another run on the same clips")
    .addOption(
      new Option("--metric <m>", "score of the paired test")
        .choices(["wa", "ua", "f1Weighted", "f1Macro", "mse", "ccc", "merMetric"])
        .default("f1Weighted"),
    )
    .option("--resamples <n>", "bootstrap resamples", whole, 1000)
    .option("--seed <n>", "seed of the bootstrap", whole, 0)
    .option("--report <file>", "where the HTML report goes")
    .option("--no-report", "no HTML report")
    .addOption(
      new Option("--precision <p>", "of the operands of matrix products (f32)").choices(PRECISIONS),
    )
    .option("--threads <n>", "threads of the kernels", whole)
    .option("--device <d>", "cpu, cuda, cuda:1 …; emulated for tests (cpu)")
    .option("--json", "print the scores as JSON")
    .addHelpText(
      "after",
      `
Examples:
  affuse eval run                                held-out folds
  affuse eval run --on test1
  affuse eval run --on test1 --against other --metric wa`,
    )
    .action(async (run: string, flags: Flags) => {
      const { compareSystems, evaluateRuns } = await import("../ensemble/evaluate.ts");
      const { writeEvaluationReport } = await import("../ensemble/report.ts");
      const { classTable, systemTable } = await import("../ensemble/table.ts");
      const { writeJson } = await import("../data/files.ts");
      const { writePredictions } = await import("../train/predict.ts");
      const options = {
        on: flags.on ?? null,
        resamples: flags.resamples,
        seed: flags.seed,
        ...(flags.data !== undefined && { data: flags.data }),
        ...(flags.structure && { structures: flags.structure }),
        ...(flags.precision && { precision: flags.precision }),
        ...(flags.threads !== undefined && { threads: flags.threads }),
        ...(flags.device !== undefined && { device: flags.device }),
      };
      const result = await evaluateRuns([run], options);
      for (const text of result.notes) note(text);
      const best = result.systems.ensemble ? "ensemble" : (Object.keys(result.systems)[0] as string);
      const main = result.systems[best];
      const systems = Object.fromEntries(
        Object.entries(result.systems).map(([name, { evaluation }]) => [name, evaluation]),
      );
      const value: Record<string, unknown> = {
        run,
        on: result.on,
        clips: result.clips,
        classes: result.classes,
        systems,
      };
      if (flags.against !== undefined) {
        const other = await evaluateRuns([flags.against], options);
        const theirs = other.systems.ensemble ?? other.systems[Object.keys(other.systems)[0] as string];
        if (other.classes.join("\n") !== result.classes.join("\n")) {
          const { AffuseError } = await import("../errors.ts");
          throw new AffuseError(
            "ERR_AFFUSE_CLASSES",
            `${flags.against} has the classes ${other.classes.join(", ")}, expected ${result.classes.join(", ")} in this order.`,
          );
        }
        const test = compareSystems(
          main?.predictions ?? [],
          theirs?.predictions ?? [],
          result.truth,
          result.classes,
          flags.metric,
          { seed: flags.seed, resamples: flags.resamples },
        );
        value.pairedTest = { against: flags.against, system: best, metric: flags.metric, ...test };
      }
      const stem = flags.on ?? "heldout";
      writeJson(path.join(run, `eval-${stem}.json`), value, "the scores");
      writePredictions(
        path.join(run, `predictions-${stem}`),
        result.classes,
        (main?.predictions ?? []).map((p) => ({ ...p, part: result.on })),
      );
      let report: string | null = null;
      if (flags.report !== false && main?.evaluation) {
        report = flags.report ?? path.join(run, `report-${stem}.html`);
        writeEvaluationReport(report, [run], result);
      }
      if (flags.json) {
        printJson({ ...value, report });
        return;
      }
      print(`${result.clips} clips of ${result.on}`);
      print(systemTable(Object.entries(systems).map(([name, evaluation]) => ({ name, evaluation }))));
      if (main?.evaluation) print(`\n${best}, by class\n${classTable(main.evaluation)}`);
      else note("None of these clips has an emotion label: nothing was scored.");
      const test = value.pairedTest as
        | { difference: number; p: number; interval: { low: number; high: number } }
        | undefined;
      if (test) {
        print(
          `\n${flags.metric} against ${flags.against}: ${test.difference >= 0 ? "+" : ""}${test.difference.toFixed(4)} [${test.interval.low.toFixed(4)}, ${test.interval.high.toFixed(4)}], p = ${test.p.toFixed(4)}`,
        );
      }
      if (report) print(`\nReport: ${report}`);
    });
};
