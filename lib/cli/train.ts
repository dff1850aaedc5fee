/** `affuse train`: every structure on every fold, resumable. */
import { existsSync, statSync } from "node:fs";
import path from "node:path";
import { InvalidArgumentError, Option } from "commander";
import { PRECISIONS } from "../graph/precision.ts";
import type { TrainFlags } from "../train/cli-config.ts";
import { interruption } from "./interrupt.ts";
import { note, print, printJson } from "./io.ts";
import type { Register } from "./main.ts";

interface Flags extends TrainFlags {
  out?: string;
  resume?: boolean;
  json?: boolean;
}

function whole(text: string): number {
  if (!/^\d{1,15}$/.test(text)) throw new InvalidArgumentError("expected a whole number.");
  return Number(text);
}

function real(text: string): number {
  const value = Number(text);
  if (text.trim() === "" || !Number.isFinite(value)) throw new InvalidArgumentError("expected a number.");
  return value;
}

const list = (text: string, before: string[] = []) => [
  ...before,
  ...text.split(",").filter((item) => item !== ""),
];

function pair(text: string): [string, string] {
  const at = text.indexOf("=");
  if (at < 1) throw new InvalidArgumentError("expected NAME=VALUE.");
  return [text.slice(0, at), text.slice(at + 1)];
}

export const register: Register = (program) => {
  program
    .command("train")
    .summary("train models on features, in folds")
    .description(
      "Trains one or several structures on features and labels, in seeded folds. Each fold " +
        "validates on clips of its own, which choose the epoch; its test clips are only reported. " +
        "Saves a checkpoint after every epoch; Ctrl-C saves and stops, and --resume continues " +
        "(also after kill -9) to the same bits.",
    )
    .argument(
      "<config>",
      "configuration (.yaml), a folder with features and labels, or a run folder with --resume",
    )
    .option(
      "--structure <name>",
      "concat, weighted, hierarchical, gfbp, audio or visual; several with commas",
      list,
    )
    .option("--epochs <n>", "most epochs (100)", whole)
    .option("--folds <n>", "folds (5); 1 trains one model and holds nothing out", whole)
    .option("--by <column>", "label column that folds must not tear apart: session, speaker, …")
    .option("--batch <n>", "clips per step (32)", whole)
    .option("--lr <x>", "learning rate after warm-up (0.001)", real)
    .option("--seed <n>", "seed of folds, weights, order and dropout (0)", whole)
    .option("--split <name>", "split to train on (train)")
    .option("--stream <name>", "use only these streams; several with commas", list)
    .option(
      "--modality <stream=kind>",
      "a stream's modality where its manifest does not tell",
      (text, before: Record<string, string> = {}) => {
        const [name, kind] = pair(text);
        return { ...before, [name]: kind };
      },
    )
    .option(
      "--set <key=value>",
      "any key of the configuration, e.g. model.modalityDropout=0.2",
      (text, before: [string, string][] = []) => [...before, pair(text)],
    )
    .option("--out <run>", "run folder (runs/<name of the data>)")
    .option("--resume", "continue the run in --out")
    .addOption(new Option("--precision <p>", "of the operands of matrix products (f32)").choices(PRECISIONS))
    .option("--threads <n>", "threads of the kernels", whole)
    .option("--device <d>", "cpu, cuda, cuda:1 …; emulated for tests (cpu)")
    .option("--json", "print the results as JSON")
    .addHelpText(
      "after",
      `
Examples:
  affuse train corpus --structure concat,weighted,hierarchical --out run
  affuse train experiment.yaml --seed 7
  affuse train corpus --folds 1 --epochs 30 --set model.attention.dim=64 --set train.patience=null
  affuse train run --resume                      continue what was interrupted`,
    )
    .action(async (source: string, flags: Flags) => {
      const { loadTrainConfig } = await import("../train/cli-config.ts");
      const { trainRun } = await import("../train/run.ts");
      const isRun =
        existsSync(path.join(source, "config.yaml")) && existsSync(path.join(source, "folds.json"));
      const file = isRun ? path.join(source, "config.yaml") : source;
      const config = loadTrainConfig(file, isFolder(file), flags);
      const out =
        flags.out ??
        (isRun ? source : path.join("runs", path.basename(path.resolve(source)).replace(/\.ya?ml$/i, "")));
      const interrupted = interruption("finishing the running step and saving");
      const { trainProgress } = await import("../train/progress.ts");
      const progress = trainProgress(flags.json !== true && process.stderr.isTTY === true);
      try {
        const results = await trainRun(config, {
          out,
          resume: flags.resume === true,
          signal: interrupted.signal,
          onEvent: progress.event,
          onNote: note,
        });
        progress.stop();
        if (flags.json) {
          printJson({ run: out, ...results });
          return;
        }
        const { systemTable } = await import("../ensemble/table.ts");
        const evaluations = Object.entries(results.systems).map(([name, system]) => ({
          name,
          evaluation: system.heldOut ?? system.validation,
        }));
        print(systemTable(evaluations));
        print(
          config.train.folds > 1 || config.train.foldsBy !== "clip"
            ? "Scores on the held-out folds, with 95 % bootstrap intervals."
            : "Scores on the validation clips, which also chose the epoch (one fold holds nothing out).",
        );
        print(`Saved in ${out}`);
      } finally {
        progress.stop();
        interrupted.release();
      }
    });
};

function isFolder(file: string): boolean {
  return existsSync(file) && statSync(file).isDirectory();
}
