/**
 * Peak memory of training: a process of its own, which sets its high-water mark back once the inputs are
 * there.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { loadAddon } from "../lib/native/load.ts";
import type { ModelCase } from "./types.ts";

/** Command line that prints the peak of a case in bytes. */
export function memoryCommand(name: string, threads: number): string[] {
  const file = fileURLToPath(import.meta.url);
  const loader = file.endsWith(".ts") ? ["--import", "tsx"] : [];
  return [process.execPath, "--expose-gc", ...loader, file, name, String(threads)];
}

/** Largest resident memory of this process since resetPeak(), bytes; 0 where the system does not tell. */
export function peakMemory(): number {
  try {
    const line = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync("/proc/self/status", "utf8"));
    return 1024 * Number(line?.[1] ?? 0);
  } catch {
    return 0;
  }
}

export function resetPeak(): void {
  try {
    writeFileSync("/proc/self/clear_refs", "5");
  } catch {
    // The peak then includes what came before.
  }
}

async function main(name: string, threads: number): Promise<void> {
  const [{ ALL_CASES }, { CLASSES, makeBatch }, { createModel }] = await Promise.all([
    import("./cases/index.ts"),
    import("./models.ts"),
    import("../lib/models/index.ts"),
  ]);
  const test = ALL_CASES.find((candidate) => candidate.name === name) as ModelCase;
  loadAddon().setThreads(threads);
  const batch = makeBatch(test);
  const model = createModel(
    { structure: test.structure, attention: { dim: test.attention } },
    test.streams,
    CLASSES,
    test.precision ? { precision: test.precision } : {},
  );
  globalThis.gc?.();
  resetPeak();
  for (let step = 1; step <= 5; step++) await model.trainStep(batch, { lr: 1e-3, step });
  process.stdout.write(`${peakMemory()}\n`);
}

const [, script, name, threads] = process.argv;
if (script === fileURLToPath(import.meta.url)) await main(name as string, Number(threads));
