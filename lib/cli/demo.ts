/** `affuse demo`: the whole way on the synthetic corpus. */
import { InvalidArgumentError } from "commander";
import type { DemoResult, DemoStage } from "../demo/index.ts";
import { DEFAULT_SETTINGS, FUSION, UNIMODAL } from "../demo/settings.ts";
import { interruption } from "./interrupt.ts";
import { note, print, printJson } from "./io.ts";
import type { Register } from "./main.ts";

interface Flags {
  out?: string;
  seed: number;
  noise: number;
  clips: number;
  testClips: number;
  epochs: number;
  folds: number;
  threads?: number;
  json?: string | true;
}

function whole(text: string): number {
  if (!/^\d{1,9}$/.test(text)) throw new InvalidArgumentError("expected a whole number.");
  return Number(text);
}

function real(text: string): number {
  const value = Number(text);
  if (text.trim() === "" || !Number.isFinite(value)) throw new InvalidArgumentError("expected a number.");
  return value;
}

/** What a stage does, and what it has made. */
const STAGES: Record<DemoStage, [works: string, made: string]> = {
  corpus: ["Making the corpus", "Corpus"],
  features: ["Running the ONNX encoders", "Features"],
  training: ["Training six systems", "Training"],
  evaluation: ["Predicting the test clips", "Predictions"],
  report: ["Writing the report", "Report"],
};

/** The shape that `--json` gives. */
function summary(result: DemoResult) {
  const { ceilings, systems, attention, seconds, settings, testClips, report } = result;
  return {
    settings,
    testClips,
    ceiling: { audio: ceilings.audio.accuracy, visual: ceilings.visual.accuracy, fused: ceilings.fused.accuracy },
    results: Object.fromEntries(
      Object.entries(systems).map(([name, { emotion, valence, merMetric, intervals }]) => [
        name,
        { wa: emotion.wa, ua: emotion.ua, f1Weighted: emotion.f1Weighted, mse: valence?.mse ?? null, merMetric, intervals: pick(intervals) },
      ]),
    ),
    attention,
    seconds,
    report,
  };
}

/** The intervals of the scores that are in the summary. */
function pick(intervals: DemoResult["systems"]["ensemble"]["intervals"]) {
  return Object.fromEntries(["wa", "ua", "f1Weighted", "mse", "merMetric"].map((name) => [name, intervals[name] ?? null]));
}

export const register: Register = (program) => {
  program
    .command("demo")
    .summary("clips to trained ensemble to report, on synthetic clips with known truth")
    .description(
      "Makes a corpus of talking faces, runs two ONNX encoders over it, trains audio-only, visual-only, the three P1 structures and\n" +
        "G-FBP, and lets their ensemble predict clips that no training saw. Each modality alone has a known ceiling; only their\n" +
        "combination passes it. Ends with a table and OUT/report.html. An interrupted demonstration goes on where it stopped.",
    )
    .option("--out <dir>", "folder for corpus, features, run and report (demo/seed<seed>)")
    .option("--seed <n>", "seed of everything", whole, DEFAULT_SETTINGS.seed)
    .option("--noise <x>", "sound and picture noise: 0 clean, 1 moderate", real, DEFAULT_SETTINGS.noise)
    .option("--clips <n>", "training clips", whole, DEFAULT_SETTINGS.clips)
    .option("--test-clips <n>", "test clips", whole, DEFAULT_SETTINGS.testClips)
    .option("--epochs <n>", "epochs of every training", whole, DEFAULT_SETTINGS.epochs)
    .option("--folds <n>", "folds; the ensemble is over structures and folds", whole, DEFAULT_SETTINGS.folds)
    .option("--threads <n>", "threads (all processors)", whole)
    .option("--json [file]", "write the results as JSON to the file, or print them")
    .addHelpText(
      "after",
      `
Examples:
  affuse demo                                    about two minutes on two cores
  affuse demo --seed 2 --json demo2.json
  affuse demo --clips 200 --epochs 10 --folds 1  quicker, and worse`,
    )
    .action(async (flags: Flags) => {
      const { runDemo } = await import("../demo/index.ts");
      const { trainProgress } = await import("../train/progress.ts");
      const quiet = flags.json === true;
      const shown = !quiet && process.stderr.isTTY === true;
      const interrupted = interruption("saving");
      const bar = trainProgress(shown);
      let training = false;
      let before = 0; // systems that were trained when training began
      try {
        const { seed, noise, clips, testClips, epochs, folds } = flags;
        const result = await runDemo(
          { seed, noise, clips, testClips, epochs, folds },
          {
            out: flags.out ?? `demo/seed${seed}`,
            threads: flags.threads ?? null,
            signal: interrupted.signal,
            onStage: (stage) => {
              bar.stop();
              training = stage === "training";
              const left = UNIMODAL.length + FUSION.length - before;
              const rest = training && before > 0 ? `: ${before} finished before, ${left} to go` : "";
              if (!quiet) note(`${STAGES[stage][0]}${rest} …`);
            },
            onReused: (stage, from) => {
              if (!quiet) note(`${STAGES[stage][1]}: finished before, taken from ${from}`);
            },
            onTrainEvent: (event) => {
              bar.event(event);
              if (event.type !== "done" || event.fold !== folds - 1) return;
              if (!training) before++;
              else if (!quiet && !shown) note(`  ${event.structure}`);
            },
          },
        );
        bar.stop();
        if (quiet) printJson(summary(result));
        else await printResult(result);
        if (typeof flags.json === "string") {
          const { writeJson } = await import("../data/files.ts");
          writeJson(flags.json, summary(result), "the results");
        }
      } finally {
        bar.stop();
        interrupted.release();
      }
    });
};

async function printResult(result: DemoResult): Promise<void> {
  const { systemTable } = await import("../ensemble/table.ts");
  const percent = (x: number) => `${(100 * x).toFixed(1)} %`;
  const { audio, visual, fused } = result.ceilings;
  print(`\n${result.testClips} test clips, 95 % bootstrap intervals. Best possible accuracy from the voice alone ${percent(audio.accuracy)}, from the`);
  print(`face alone ${percent(visual.accuracy)}, from both ${percent(fused.accuracy)}.\n`);
  print(systemTable(Object.entries(result.systems).map(([name, evaluation]) => ({ name, evaluation }))));
  print("\nAttention (AFG), mean weight of a frame in the expressive part against one in the rest:");
  for (const [stream, { expressive, neutral, ratio }] of Object.entries(result.attention)) {
    print(`  ${stream.padEnd(12)} ${expressive.toFixed(4)} / ${neutral.toFixed(4)} = ${ratio.toFixed(1)} times`);
  }
  const { total, ...stages } = result.seconds;
  const parts = Object.entries(stages).map(([name, s]) => `${name} ${s.toFixed(0)} s`);
  print(`\n${total.toFixed(0)} s: ${parts.join(", ")}`);
  print(`Report: ${result.report}`);
}
