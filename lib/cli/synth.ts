/** `affuse synth`: the synthetic audio-visual corpus. */
import { InvalidArgumentError } from "commander";
import { note, print, printJson } from "./io.ts";
import type { Register } from "./main.ts";

function whole(text: string): number {
  if (!/^\d{1,9}$/.test(text)) throw new InvalidArgumentError("expected a whole number.");
  return Number(text);
}

function seed(text: string): bigint {
  if (!/^-?\d{1,20}$/.test(text)) throw new InvalidArgumentError("expected a whole number.");
  return BigInt(text);
}

function real(text: string): number {
  const value = Number(text);
  if (text.trim() === "" || !Number.isFinite(value)) throw new InvalidArgumentError("expected a number.");
  return value;
}

interface Flags {
  clips: number;
  testClips: number;
  seed?: bigint;
  noise: number;
  mp4?: number | true;
  threads?: number;
  json?: boolean;
}

export const register: Register = (program) => {
  program
    .command("synth")
    .summary("make the synthetic audio-visual corpus")
    .description(
      "Makes audio-visual clips with known truth in the MER 2023 layout: drawn faces, a synthetic voice, six emotions and " +
        "valence. A clip is expressive for 20-30 % of its length only; some classes share their face, some their voice, and " +
        "one pair differs only in the combination. The same seed gives the same files on every machine. Continues a corpus " +
        "that was interrupted, and leaves a complete one alone.",
    )
    .argument("<dir>", "new or empty folder, or one that holds the same corpus")
    .option("--clips <n>", "training clips", whole, 600)
    .option("--test-clips <n>", "test clips", whole, 300)
    .option("--seed <s>", "seed, a whole number of up to 64 bits (default: 1)", seed)
    .option("--noise <x>", "sound and picture noise: 0 clean, 1 moderate", real, 1)
    .option("--mp4 [n]", "also write MP4 files, of n clips (test clips first) or of all; needs the package node-av", whole)
    .option("--threads <n>", "rendering threads (default: all processors)", whole)
    .option("--json", "print corpus.json's content")
    .addHelpText(
      "after",
      `
Examples:
  affuse synth corpus                            600 training and 300 test clips
  affuse synth corpus --clips 60 --test-clips 30 --seed 7
  affuse synth noisy --noise 3                   harder
  affuse synth corpus --mp4 5                    with five MP4 files in corpus/video`,
    )
    .action(async (dir: string, flags: Flags) => {
      const { synthesise } = await import("../synth/index.ts");
      const { clips, testClips, noise, mp4, threads } = flags;
      let shown = -1;
      const info = await synthesise(dir, { clips, testClips, noise, seed: flags.seed ?? 1n, mp4, threads }, (progress) => {
        const tenth = Math.floor((10 * progress.done) / progress.total);
        if (tenth !== shown) note(`${progress.done} of ${progress.total} ${progress.unit}`);
        shown = tenth;
      });
      if (flags.json) {
        printJson(info);
        return;
      }
      if (testClips === 0) return;
      const percent = (value: number): string => `${(100 * value).toFixed(1).padStart(5)} %`;
      print(`${dir}: ${clips} training and ${testClips} test clips, seed ${info.seed}, noise ${noise}`);
      print("Ceilings on the test set     accuracy   valence MSE");
      for (const view of ["audio", "visual", "fused"] as const) {
        const { accuracy, mse } = info.ceilings[view];
        print(`  ${view.padEnd(26)} ${percent(accuracy)}   ${mse.toFixed(3).padStart(11)}`);
      }
    });
};
