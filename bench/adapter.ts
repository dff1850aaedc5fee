/**
 * benchmark.js behind one function: it calibrates how many calls make a sample and times them; which
 * contender is timed when is decided outside (run.ts), so that contenders take turns.
 */
import v8 from "node:v8";
import vm from "node:vm";
import { requireFromRoot } from "#root";
import type { Sample } from "./types.ts";

/** What we use of benchmark.js 2 (it has no types of its own). */
interface Bench {
  error?: unknown;
  count: number;
  stats: { sample: number[] };
  on(event: string, listener: () => void): Bench;
  run(options?: { async: boolean }): Bench;
}
interface Deferred {
  resolve(): void;
}
type BenchConstructor = new (options: {
  defer: boolean;
  fn: ((deferred: Deferred) => void) | (() => void);
  initCount: number;
  minTime: number;
  maxTime: number;
  minSamples: number;
  delay: number;
}) => Bench;

let loaded: BenchConstructor | null = null;
let collect: (() => void) | null = null;

/**
 * Collects garbage. Results that a peer allocated in this process otherwise set off marking in somebody else's sample: a
 * quarter of one that takes 23 ms, in every fourth of them.
 */
export function collectGarbage(): void {
  if (!collect) {
    v8.setFlagsFromString("--expose-gc");
    collect = vm.runInNewContext("gc") as () => void;
  }
  collect();
}

/** benchmark.js, when it is first needed. */
function benchmark(): BenchConstructor {
  loaded ??= requireFromRoot("benchmark") as BenchConstructor;
  return loaded;
}

/** A call again and again, at least so long and three times, without benchmark.js around it. @returns wall seconds */
export async function repeat(call: () => unknown, seconds: number): Promise<number> {
  const begin = performance.now();
  for (let calls = 1; ; calls++) {
    const result = call();
    if (result instanceof Promise) await result;
    const wall = (performance.now() - begin) / 1000;
    if (wall >= seconds && calls >= 3) return wall;
  }
}

/**
 * Wraps a function as a source of samples.
 * @param call one call; a promise makes it asynchronous, each call awaited before the next
 * @param calls how many calls of interest `call` makes
 */
export function sampler(call: () => void, calls?: number): (seconds: number) => Promise<Sample>;
export function sampler(
  call: () => Promise<unknown>,
  calls: number,
  asynchronous: true,
): (seconds: number) => Promise<Sample>;
export function sampler(
  call: () => unknown,
  calls = 1,
  asynchronous = false,
): (seconds: number) => Promise<Sample> {
  const Benchmark = benchmark();
  let count = 1;
  let longest = 0; // what `count` was calibrated for
  return async (seconds) => {
    collectGarbage();
    // benchmark.js itself calls a synchronous function once before it times it.
    if (asynchronous) await call();
    let failure: unknown;
    const fn = asynchronous
      ? (deferred: Deferred) => {
          (call() as Promise<unknown>).then(
            () => deferred.resolve(),
            (error: unknown) => {
              failure ??= error;
              deferred.resolve();
            },
          );
        }
      : () => {
          call();
        };
    // One sample per run: contenders take turns between samples.
    const options = { defer: asynchronous, fn, initCount: count, maxTime: 0, minSamples: 1, delay: 0 };
    const bench = new Benchmark({ ...options, minTime: longest < seconds ? seconds : seconds / 2 });
    const used = process.cpuUsage();
    const begin = performance.now();
    await new Promise<void>((resolve) => {
      bench.on("complete", resolve).run({ async: false });
    });
    const wall = (performance.now() - begin) / 1000;
    const { user, system } = process.cpuUsage(used);
    if (failure !== undefined) throw failure;
    if (bench.error) throw bench.error;
    count = bench.count;
    longest = Math.max(longest, seconds);
    const period = bench.stats.sample[0] as number;
    // Processor time covers benchmark.js's own calls too: its share of the wall time is what one call used.
    return {
      seconds: period / calls,
      cpu: ((user + system) / 1e6 / wall) * (period / calls),
      count: count * calls,
    };
  };
}
