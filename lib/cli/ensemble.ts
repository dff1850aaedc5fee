/** `affuse ensemble`: several runs answer as one. */
import { InvalidArgumentError, Option } from "commander";
import { type Precision, PRECISIONS } from "../graph/precision.ts";
import { note, print, printJson } from "./io.ts";
import type { Register } from "./main.ts";

interface Flags {
  on?: string;
  data?: string;
  method: "mean" | "fitted" | "entropy" | "logits";
  temperature: number;
  structure?: string[];
  out?: string;
  submission?: string;
  precision?: Precision;
  threads?: number;
  device?: string;
  json?: boolean;
}

function positive(text: string): number {
  const value = Number(text);
  if (!(value > 0) || !Number.isFinite(value)) throw new InvalidArgumentError("expected a number above 0.");
  return value;
}

function whole(text: string): number {
  if (!/^\d{1,9}$/.test(text)) throw new InvalidArgumentError("expected a whole number.");
  return Number(text);
}

export const register: Register = (program) => {
  program
    .command("ensemble")
    .summary("combine the posteriors of several runs")
    .description(
      "Combines every fold of every structure of the given runs: p = sum of w_s p_s, and the " +
        "same for valence. Members are aligned by clip name and class name. Without --on the " +
        "saved predictions for the held-out folds are combined; with --on the models predict a " +
        "split of the data.",
    )
    .argument("<run...>", "run folders")
    .option("--on <split>", "split to predict, e.g. test1")
    .option("--data <dir>", "where the data lies (default: as in the first run)")
    .addOption(
      new Option(
        "--method <m>",
        "mean of the posteriors; weights fitted on validation; weights by each clip's entropy; mean of the logits",
      )
        .choices(["mean", "fitted", "entropy", "logits"])
        .default("mean"),
    )
    .option("--temperature <x>", "of the entropy weighting", positive, 1)
    .option(
      "--structure <name>",
      "only these structures; several with commas",
      (text: string, before: string[] = []) => [...before, ...text.split(",")],
    )
    .option("--out <base>", "write the predictions as BASE.json and BASE.csv")
    .option("--submission <file>", "write a submission CSV: name,discrete,valence")
    .addOption(
      new Option("--precision <p>", "of the operands of matrix products (f32)").choices(PRECISIONS),
    )
    .option("--threads <n>", "threads of the kernels", whole)
    .option("--device <d>", "cpu, cuda, cuda:1 …; emulated for tests (cpu)")
    .option("--json", "print scores and weights as JSON")
    .addHelpText(
      "after",
      `
Examples:
  affuse ensemble run --on test1
  affuse ensemble run1 run2 --on test1 --method fitted --submission test1.csv
  affuse ensemble run                            held-out folds, from the saved predictions`,
    )
    .action(async (runs: string[], flags: Flags) => {
      const { evaluateRuns } = await import("../ensemble/evaluate.ts");
      const { systemTable } = await import("../ensemble/table.ts");
      const { writePredictions } = await import("../train/predict.ts");
      const { writeSubmission } = await import("../data/labels.ts");
      const { argmax } = await import("../metrics/evaluate.ts");
      const result = await evaluateRuns(runs, {
        on: flags.on ?? null,
        method: flags.method,
        temperature: flags.temperature,
        ...(flags.data !== undefined && { data: flags.data }),
        ...(flags.structure && { structures: flags.structure }),
        ...(flags.precision && { precision: flags.precision }),
        ...(flags.threads !== undefined && { threads: flags.threads }),
        ...(flags.device !== undefined && { device: flags.device }),
      });
      for (const text of result.notes) note(text);
      const name = result.systems.ensemble ? "ensemble" : (Object.keys(result.systems)[0] as string);
      const predictions = result.systems[name]?.predictions ?? [];
      if (flags.out !== undefined) {
        writePredictions(
          flags.out,
          result.classes,
          predictions.map((p) => ({ ...p, part: result.on })),
        );
        note(`Predictions: ${flags.out}.json and .csv`);
      }
      if (flags.submission !== undefined) {
        writeSubmission(
          flags.submission,
          predictions.map((p) => ({
            name: p.name,
            emotion: result.classes[argmax(p.posteriors)] as string,
            valence: p.valence,
          })),
        );
        note(`Submission: ${flags.submission}`);
      }
      const systems = Object.fromEntries(
        Object.entries(result.systems).map(([system, { evaluation }]) => [system, evaluation]),
      );
      if (flags.json)
        printJson({
          on: result.on,
          clips: result.clips,
          method: flags.method,
          classes: result.classes,
          weights: result.weights,
          systems,
        });
      else {
        print(`${result.clips} clips of ${result.on}, method ${flags.method}`);
        print(
          systemTable(Object.entries(systems).map(([system, evaluation]) => ({ name: system, evaluation }))),
        );
        if (flags.method === "fitted" && result.weights) {
          for (const { structure, fold, weight } of result.weights)
            print(`weight of ${structure} fold ${fold}: ${weight.toFixed(4)}`);
        }
      }
    });
};
