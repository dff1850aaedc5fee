/** `affuse extract`: clips to feature files. */
import cliProgress from "cli-progress";
import { InvalidArgumentError, Option } from "commander";
import type { ExtractSummary } from "../extract/extract.ts";
import { interruption } from "./interrupt.ts";
import { EXIT, note, print, printJson } from "./io.ts";
import type { Register } from "./main.ts";

interface Flags {
  encoder?: string[];
  out?: string;
  threads?: number;
  workers?: number;
  device?: "cpu" | "cuda";
  overwrite?: boolean;
  partial?: boolean;
  json?: boolean;
}

function count(text: string): number {
  if (!/^[1-9]\d{0,3}$/.test(text)) throw new InvalidArgumentError("expected a whole number from 1.");
  return Number(text);
}

export const register: Register = (program) => {
  program
    .command("extract")
    .summary("run encoders on clips and write feature files")
    .description(
      "Runs ONNX encoders on every clip and writes OUT/<encoder>-FRA/<clip>.npy (float32 [T,D]; -UTT [D] for encoders that\n" +
        "average over time) with a manifest.json beside them. Run it again to go on: finished clips are recognised and skipped.\n" +
        "Clips that cannot be read are listed in OUT/failed.json and make the exit code 1; all others are written.",
    )
    .argument(
      "<data>",
      "folder with audio/*.wav and faces/*.npy, or with media files (there or in clips/ or video/), or one file",
    )
    .option(
      "--encoder <name>",
      "built-in name or manifest file (.yaml, .json); may be repeated (logmel, gabor-face)",
      (text, before: string[] = []) => [...before, text],
    )
    .option("--out <dir>", "where the feature folders go (DATA/features)")
    .option("--threads <n>", "threads for everything together (all cores)", count)
    .option(
      "--workers <n>",
      "worker threads, each with its own copy of the models (chosen from threads and model size)",
      count,
    )
    .addOption(
      new Option("--device <d>", "cuda falls back to the CPU and says why")
        .choices(["cpu", "cuda"])
        .default("cpu"),
    )
    .option("--overwrite", "delete features in the way and extract everything again")
    .option("--partial", "accept media files that end before their stated length")
    .option("--json", "print a summary as JSON")
    .addHelpText(
      "after",
      `
Examples:
  affuse extract corpus                                     both built-in encoders, into corpus/features
  affuse extract clips/ --encoder hubert.yaml --encoder clip.yaml --out features
  affuse extract corpus --encoder logmel --json > summary.json

A manifest for your own ONNX file:
  preset: hubert-large
  model: ./hubert-large.onnx`,
    )
    .action(async (data: string, flags: Flags) => {
      const { extract } = await import("../extract/extract.ts");
      const interrupted = interruption("finishing the running clips");
      const shown = process.stderr.isTTY === true;
      const bar = new cliProgress.SingleBar({
        stream: process.stderr,
        format: "extract {bar} {value}/{total} | {eta_formatted} left | {failed} failed",
      });
      let started = false;
      try {
        const summary = await extract(data, {
          ...(flags.encoder && { encoders: flags.encoder }),
          ...(flags.out !== undefined && { out: flags.out }),
          ...(flags.threads !== undefined && { threads: flags.threads }),
          ...(flags.workers !== undefined && { workers: flags.workers }),
          provider: flags.device ?? "cpu",
          overwrite: flags.overwrite === true,
          partial: flags.partial === true,
          signal: interrupted.signal,
          onProgress: ({ done, total, failed }) => {
            if (!shown) return;
            if (!started) bar.start(total, 0, { failed });
            started = true;
            bar.update(done, { failed });
          },
        });
        if (started) bar.stop();
        report(summary, flags.json === true);
        process.exitCode = summary.failed.length > 0 ? EXIT.failed : EXIT.ok;
      } finally {
        if (started) bar.stop();
        interrupted.release();
      }
    });
};

function report(summary: ExtractSummary, json: boolean): void {
  for (const { clip, encoder, code, message } of summary.failed.slice(0, 20))
    note(`${clip} (${encoder}): ${code}: ${message}`);
  if (summary.failed.length > 20) note(`… and ${summary.failed.length - 20} more`);
  for (const { name, fallback } of summary.encoders)
    if (fallback !== undefined) note(`${name}: CUDA is not used: ${fallback}`);
  if (json) {
    printJson(summary);
    return;
  }
  for (const { name, dim, written, skipped, missing, folder } of summary.encoders) {
    const lacking = missing.length > 0 ? `, ${missing.length} clips lack it` : "";
    print(`${name} [T,${dim}]: ${written} written, ${skipped} were there${lacking} → ${folder}`);
  }
  if (summary.failed.length > 0)
    print(`${summary.failed.length} failed, listed in ${summary.out}/failed.json`);
  print(`${summary.clips} clips in ${summary.seconds.toFixed(1)} s`);
}
