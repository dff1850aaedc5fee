/**
 * Calls that suites make on the emulator, kept so that they can be made again under a sanitizer: for every kernel the
 * cheapest that runs it on several blocks (on one, where no call has more). With AFFUSE_TEST_SHARED=<folder> (test/run.mjs)
 * suites write theirs there when they end: calls-<suite>. With them, how much shared memory the launches of each kernel asked for
 * at most, in all calls.
 */
import { readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { deserialize, serialize } from "node:v8";
import type { Attributes, HostTensor, TypedArray } from "../../lib/native/addon.ts";
import type { Call } from "../operators/run.ts";

/** What decides how a call runs, beside its arguments. */
const ENVIRONMENT = ["AFFUSE_CUDA_PROCESSORS", "AFFUSE_CUDA_UNALIGNED"] as const;

export interface Recorded {
  op: string;
  inputs: (HostTensor | null)[];
  attributes: Attributes;
  want: boolean[];
  environment: Record<string, string | undefined>;
  outputs: (TypedArray | null)[];
  /** Kernels by their place in the library, and on how many blocks at most. */
  kernels: Map<string, number>;
  cost: number;
}

/** The larger of what `map` has and `value`. */
export function raise(map: Map<string, number>, key: string, value: number): void {
  map.set(key, Math.max(map.get(key) ?? 0, value));
}

const folder = process.env.AFFUSE_TEST_SHARED;
export const recording = folder !== undefined;

/** The launches of `action`: blocks and bytes of shared memory at most, and how often their threads waited or began. */
export function launchesOf<T>(action: () => T): {
  value: T;
  kernels: Map<string, number>;
  shared: Map<string, number>;
  cost: number;
} {
  const log = path.join(tmpdir(), `affuse-launches-${process.pid}`);
  writeFileSync(log, "");
  process.env.AFFUSE_CUDA_LAUNCHES = log;
  try {
    const value = action();
    const kernels = new Map<string, number>();
    const shared = new Map<string, number>();
    let cost = 0;
    for (const line of readFileSync(log, "utf8").split("\n").filter(Boolean)) {
      const [at, blocks, waits, bytes] = line.split(" ") as [string, string, string, string];
      raise(kernels, at, Number(blocks));
      raise(shared, at, Number(bytes));
      cost += Number(waits);
    }
    return { value, kernels, shared, cost };
  } finally {
    delete process.env.AFFUSE_CUDA_LAUNCHES;
    rmSync(log, { force: true });
  }
}

export const callsOf = (shared: string, suite: string) => path.join(shared, `calls-${suite}`);

/** True where b should stand for a kernel rather than a: several blocks, and less work. */
const better = (at: string, a: Recorded, b: Recorded) => {
  const several = (call: Recorded) => Number((call.kernels.get(at) as number) > 1);
  return several(b) - several(a) || a.cost - b.cost;
};

/** For every kernel its call. */
export function chosen(calls: Iterable<Recorded>, best = new Map<string, Recorded>()): Map<string, Recorded> {
  for (const call of calls)
    for (const at of call.kernels.keys()) {
      const other = best.get(at);
      if (!other || better(at, other, call) > 0) best.set(at, call);
    }
  return best;
}

const kept = new Map<string, Recorded>();
const asked = new Map<string, number>();

/** `call`, and where calls are to be written its arguments and results. */
export const recorded =
  (call: Call): Call =>
  (where, op, inputs, attributes, outputs, ...rest) => {
    const { value, kernels, shared, cost } = launchesOf(() => call(where, op, inputs, attributes, outputs, ...rest));
    const environment = Object.fromEntries(ENVIRONMENT.map((name) => [name, process.env[name]]));
    const entry: Recorded = {
      ...{ op, attributes, environment, kernels, cost },
      inputs: inputs.map((input) => input && { ...input, data: input.data.slice() }),
      want: outputs.map((output) => output !== null && output !== false),
      outputs: outputs.map((output, k) => {
        const data = typeof output === "object" ? output : (value[k]?.data ?? null);
        return data?.slice() ?? null;
      }),
    };
    chosen([entry], kept);
    for (const [at, bytes] of shared) raise(asked, at, bytes);
    return value;
  };

if (folder !== undefined)
  process.on("exit", () => {
    if (kept.size === 0) return;
    const file = callsOf(folder, path.basename(process.argv[1] as string, ".test.ts"));
    writeFileSync(`${file}.new`, serialize({ calls: [...new Set(kept.values())], shared: asked }));
    renameSync(`${file}.new`, file);
  });

export const callsIn = (name: string): { calls: Recorded[]; shared: Map<string, number> } => deserialize(readFileSync(name));
