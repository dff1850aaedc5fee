/** What the comparisons with PyTorch share: a peer process that answers one JSON line per command, and summaries. */
import { spawn } from "node:child_process";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { packageRoot } from "#root";

export interface Peer {
  /** Sends a command, returns the answer. Throws when the process ends, e.g. because PyTorch is not installed. */
  ask(command: object): Promise<Record<string, number>>;
  stop(): void;
}

/** @param script file in bench/peers @param python interpreter with PyTorch; it gets one thread */
export function startPeer(script: string, python: string): Peer {
  const one = { OMP_NUM_THREADS: "1", OPENBLAS_NUM_THREADS: "1", MKL_NUM_THREADS: "1" };
  const child = spawn(python, [join(packageRoot, "bench/peers", script)], {
    env: { ...process.env, ...one },
    stdio: ["pipe", "pipe", "inherit"],
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return {
    ask: async (command) => {
      child.stdin.write(`${JSON.stringify(command)}\n`);
      const { value, done } = await lines.next();
      if (done) throw new Error("the peer ended early");
      return JSON.parse(value) as Record<string, number>;
    },
    stop: () => child.stdin.end(),
  };
}

/** Median and spread of seconds. */
export function summary(seconds: readonly number[]) {
  const sorted = [...seconds].sort((a, b) => a - b);
  const at = (q: number) => sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] as number;
  return { median: at(0.5), p20: at(0.2), p80: at(0.8), samples: sorted.length };
}
