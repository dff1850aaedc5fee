/** `affuse predict`: emotion, valence and time ranges of clips. */
import { existsSync, readdirSync, statSync } from "node:fs";
import path from "node:path";
import { InvalidArgumentError, Option } from "commander";
import { AffuseError } from "../errors.ts";
import type { ClipError, ClipResult, TimeRange } from "../extract/predict.ts";
import { type Precision, PRECISIONS } from "../graph/precision.ts";
import type { ClipFiles } from "../media/source.ts";
import { EXIT, note, print, printJson } from "./io.ts";
import type { Register } from "./main.ts";

interface Flags {
  model?: string[];
  encoder?: string[];
  precision?: Precision;
  threads?: number;
  device?: "cpu" | "cuda";
  partial?: boolean;
  json?: boolean;
}

function count(text: string): number {
  if (!/^[1-9]\d{0,3}$/.test(text)) throw new InvalidArgumentError("expected a whole number from 1.");
  return Number(text);
}

const collect = (text: string, before: string[] = []): string[] => [...before, text];

/** The run trained last: of runs/<run> and demo/<seed>/run, the one changed last that holds trained models. */
async function latestRun(): Promise<string> {
  const { findMembers } = await import("../ensemble/load.ts");
  const found: { run: string; time: number }[] = [];
  for (const parent of ["runs", "demo"]) {
    if (!existsSync(parent)) continue;
    for (const entry of readdirSync(parent, { withFileTypes: true })) {
      const run = path.join(parent, entry.name, parent === "demo" ? "run" : "");
      try {
        const member = findMembers(run)[0];
        if (member) found.push({ run, time: statSync(member.folder).mtimeMs });
      } catch {
        // no trained run
      }
    }
  }
  const best = found.sort((a, b) => b.time - a.time)[0];
  if (best) return best.run;
  throw new AffuseError(
    "ERR_AFFUSE_NOT_FOUND",
    "expected a trained model, found none in runs/ or demo/.",
    "Give one with --model RUN; `affuse demo` or `affuse train` makes one.",
  );
}

export const register: Register = (program) => {
  program
    .command("predict")
    .summary("emotion, valence and time ranges of clips")
    .description(
      "Runs the model's encoders and the ensemble of all its folds and structures on clips, and prints for each the emotion,\n" +
        "the posteriors, the valence, where in time the attention gathered from, and what was missing. A file without sound, or\n" +
        "without pictures or faces, is predicted from what it has. Video is taken as face crops: the middle square of the picture.",
    )
    .argument(
      "<file...>",
      "video or sound files, face frames (.npy), or folders laid out as for affuse extract",
    )
    .option("--model <run>", "run folder; may be repeated (the newest in runs/ or demo/)", collect)
    .option(
      "--encoder <manifest>",
      "an encoder's manifest, where the one in the checkpoint no longer finds its file",
      collect,
    )
    .addOption(
      new Option("--precision <p>", "of the operands of matrix products (f32)").choices(PRECISIONS),
    )
    .option("--threads <n>", "threads (all cores)", count)
    .addOption(
      new Option("--device <d>", "of the encoders; cuda falls back to the CPU")
        .choices(["cpu", "cuda"])
        .default("cpu"),
    )
    .option("--partial", "accept media files that end before their stated length")
    .option("--json", "print one JSON document")
    .addHelpText(
      "after",
      `
Examples:
  affuse predict clip.mp4 --model runs/corpus
  affuse predict voice.wav faces.npy --json
  affuse predict clips/ --model run-a --model run-b

Exit code: 0 if every file got a prediction, 1 if any did not (its entry holds the error).`,
    )
    .action(async (files: string[], flags: Flags) => {
      const { clipOfFile, findClips } = await import("../extract/discover.ts");
      const { predictClips } = await import("../extract/predict.ts");
      const { loadEnsemble } = await import("../ensemble/load.ts");
      const clips: ClipFiles[] = [];
      for (const file of files) {
        const folder = statSync(file, { throwIfNoEntry: false })?.isDirectory() ?? false;
        clips.push(...(folder ? findClips(file) : [{ ...clipOfFile(file), name: file }]));
      }
      const runs = flags.model ?? [await latestRun()];
      if (!flags.model) note(`Model: ${runs[0]}`);
      const ensemble = await loadEnsemble(runs, {
        ...(flags.precision && { precision: flags.precision }),
        ...(flags.threads !== undefined && { threads: flags.threads }),
      });
      try {
        const results = await predictClips(ensemble, clips, {
          ...(flags.encoder && { encoders: flags.encoder }),
          ...(flags.threads !== undefined && { threads: flags.threads }),
          provider: flags.device ?? "cpu",
          partial: flags.partial === true,
        });
        if (flags.json)
          printJson({
            model: runs,
            members: ensemble.members.length,
            classes: ensemble.classes,
            clips: results,
          });
        else for (const result of results) show(result);
        process.exitCode = results.some((r) => "error" in r) ? EXIT.failed : EXIT.ok;
      } finally {
        ensemble.dispose();
      }
    });
};

const percent = (x: number): string => `${(100 * x).toFixed(0)} %`;
const range = ({ start, end, weight }: TimeRange): string =>
  `${start.toFixed(2)}–${end.toFixed(2)} s (${percent(weight)})`;

function show(result: ClipResult | ClipError): void {
  if ("error" in result) {
    note(`${result.name}: ${result.error.code}: ${result.error.message}`);
    return;
  }
  const posteriors = Object.entries(result.posteriors).sort((a, b) => b[1] - a[1]);
  const lines = [
    `${result.name}`,
    `  emotion   ${result.emotion}`,
    `            ${posteriors.map(([label, p]) => `${label} ${p.toFixed(3)}`).join("  ")}`,
    `  valence   ${result.valence.toFixed(2)}`,
  ];
  for (const { stream, modality, ranges } of result.attention) {
    lines.push(`  ${modality.padEnd(9)} attention of ${stream}: ${ranges.map(range).join(", ")}`);
  }
  for (const { modality, stream, why } of result.missing)
    lines.push(`  missing   ${modality} (${stream}): ${why}`);
  print(lines.join("\n"));
}
