/** The bench behind `affuse bench`. */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import os from "node:os";
import { packageRoot } from "#root";
import { AffuseError, isAffuseError } from "../lib/errors.ts";
import { loadAddon } from "../lib/native/load.ts";
import { runStart, tanhSeconds } from "./account.ts";
import { Calm } from "./calm.ts";
import { ALL_CASES } from "./cases/index.ts";
import { loadOrt, type OrtPeer } from "./peers/ort.ts";
import { type TorchInfo, TorchPeer } from "./peers/torch.ts";
import { Perf } from "./perf.ts";
import { measureRoofs, type RoofTable } from "./roofs.ts";
import { type Bench, type Outcome, runOperator } from "./run.ts";
import { runModel, runOverhead } from "./run-models.ts";
import { printable } from "./table.ts";
import { evaluateTargets, type TargetResult } from "./targets.ts";
import type { Case, Entry, Skipped } from "./types.ts";

export interface BenchOptions {
  filter?: string;
  /** Only these cases, by their names. */
  only?: ReadonlySet<string>;
  peers: readonly ("ort" | "torch")[];
  threads?: number;
  quick: boolean;
  /** Seconds to spend in all on waiting for cores that nothing else uses (bench/calm.ts); 0 by default. */
  patience?: number;
  /** Sample where the time of operators with one thread goes (bench/perf.ts). */
  perf?: boolean;
  python?: string;
  command: string;
  /** Aborted: the running case ends with the samples it needs, no other begins; what is finished is reported. */
  signal?: AbortSignal;
  note(text: string): void;
  /** Called as cases end. */
  done?(entries: readonly Entry[]): void;
}

export interface BenchReport {
  context: {
    date: string;
    host_name: string;
    executable: string;
    num_cpus: number;
    mhz_per_cpu: number;
    cpu_scaling_enabled: boolean;
    caches: { type: string; level: number; size: number; num_sharing: number }[];
    load_avg: number[];
    library_build_type: "release";
    cpu: string;
    level: string;
    threads: number[];
    roofs: RoofTable[];
    commit: string | null;
    versions: Record<string, string>;
    torch: TorchInfo | null;
    quick: boolean;
    /** Seconds that were given to wait for cores of one's own, and what was left of them. */
    patience: { given: number; left: number };
  };
  benchmarks: Entry[];
  targets: TargetResult[];
  skipped: Skipped[];
  /** Cases are missing because `signal` was aborted. */
  interrupted?: boolean;
}

/**
 * Which cases a filter chooses: those whose name, or one of whose tags, matches.
 * @param all without a filter the sweep too
 * @throws AffuseError ERR_AFFUSE_BENCH_FILTER
 */
export function chooser(
  filter: string | undefined,
  quick: boolean,
  all: boolean,
): (test: Pick<Case, "name" | "tags">) => boolean {
  let pattern: RegExp | null = null;
  try {
    if (filter !== undefined) pattern = new RegExp(filter);
  } catch (error) {
    throw new AffuseError(
      "ERR_AFFUSE_BENCH_FILTER",
      `expected --filter as a regular expression, got "${filter}" (${(error as Error).message}).`,
    );
  }
  return ({ name, tags }) =>
    pattern
      ? pattern.test(name) || tags.some((tag) => pattern.test(tag))
      : (all || !tags.includes("sweep")) && (!quick || tags.includes("quick"));
}

/** The cases that are chosen. @throws AffuseError ERR_AFFUSE_BENCH_FILTER, ERR_AFFUSE_BENCH_COMPARE for none */
export function selectCases(filter: string | undefined, quick: boolean, only?: ReadonlySet<string>): Case[] {
  const matches = chooser(filter, quick, only !== undefined);
  const chosen = ALL_CASES.filter((test) => (only === undefined || only.has(test.name)) && matches(test));
  if (chosen.length === 0 && only && filter === undefined) {
    throw new AffuseError(
      "ERR_AFFUSE_BENCH_COMPARE",
      `expected stored results of cases that there are, got ${printable([...only].slice(0, 3).join(", "))}.`,
      "`affuse bench --list` names all cases.",
    );
  }
  if (chosen.length === 0) {
    throw new AffuseError(
      "ERR_AFFUSE_BENCH_FILTER",
      `expected a filter that some case matches, got "${filter ?? ""}".`,
      "`affuse bench --list` names all cases and tags.",
    );
  }
  return chosen;
}

function commitOf(): string | null {
  try {
    return execFileSync("git", ["describe", "--always", "--dirty"], {
      cwd: packageRoot,
      encoding: "utf8",
      stdio: ["ignore", "pipe", "ignore"],
    }).trim();
  } catch {
    return null;
  }
}

const version = () =>
  (JSON.parse(readFileSync(`${packageRoot}/package.json`, "utf8")) as { version: string }).version;

/** Thread counts: one and all, or the one that was asked for. */
function threadCounts(asked: number | undefined, available: number): number[] {
  return asked === undefined ? [...new Set([1, available])] : [asked];
}

function runCase(bench: Bench, test: Case): Promise<Outcome> {
  if (test.kind === "operator") return runOperator(bench, test);
  if (test.kind === "overhead") return runOverhead(bench, test);
  return runModel(bench, test);
}

/**
 * Runs the chosen cases. @throws AffuseError for what makes all of it impossible; a peer or a case that fails
 * is skipped
 */
export async function runBench(options: BenchOptions): Promise<BenchReport> {
  const cases = selectCases(options.filter, options.quick, options.only);
  const addon = loadAddon();
  const { isa, threads: available, caches } = addon.cpu();
  const threads = threadCounts(options.threads, available);
  const skipped: Skipped[] = [];
  const patience = options.patience ?? 0;
  const load = os.loadavg();
  if ((load[0] as number) > 0.5 * os.availableParallelism()) {
    options.note(
      `note: the load is ${(load[0] as number).toFixed(1)} on ${os.availableParallelism()} cores; other work disturbs what is measured`,
    );
  }
  const start = async <T>(
    wanted: boolean,
    peer: Skipped["peer"],
    open: () => Promise<T>,
  ): Promise<T | null> => {
    if (!wanted) return null;
    try {
      return await open();
    } catch (error) {
      if (!isAffuseError(error)) throw error;
      options.note(`${error.code}: ${error.message}\nThe rest runs.`); // a line of its own: messages may end with a command
      skipped.push({ case: "*", peer, code: error.code, reason: error.message });
      return null;
    }
  };
  const ort: OrtPeer | null = await start(options.peers.includes("ort"), "onnxruntime", loadOrt);
  const torch = await start(options.peers.includes("torch"), "torch", () => TorchPeer.start(options.python));
  if (torch?.info.warning) options.note(`warning: ${torch.info.warning}`);
  // The ways of waiting differ where there are several threads. Another process costs --quick too much of its half minute.
  const passive =
    torch && !options.quick && threads.some((n) => n > 1)
      ? await start(true, "torch", () => TorchPeer.start(options.python, undefined, "passive"))
      : null;
  const perf = await start(options.perf === true, "perf", () => Perf.start());
  const entries: Entry[] = [];
  try {
    options.note("measuring roofs");
    const seconds = options.quick ? 0.02 : 0.1;
    const patient = new Calm(addon, [], patience, options.signal);
    const roofs: RoofTable[] = [];
    for (const count of threads)
      roofs.push((await patient.around(count, () => measureRoofs(addon, isa, count, seconds))).value);
    const calm = new Calm(addon, roofs, patient.left, options.signal);
    const bench: Bench = {
      addon,
      threads,
      roofs,
      calm,
      signal: options.signal,
      ort,
      torch: [torch, passive].filter((peer) => peer !== null),
      perf,
      rounds: options.quick ? 5 : 15,
      sampleSeconds: options.quick ? 0.005 : 0.02,
      caseSeconds: options.quick ? 0.7 : 12,
      memory: !options.quick,
      start: await runStart(addon),
      tanh: tanhSeconds(addon),
      note: options.note,
    };
    let interrupted = false;
    for (const [i, test] of cases.entries()) {
      // Lets a signal be heard between cases that only compute.
      await new Promise((resolve) => setImmediate(resolve));
      interrupted = options.signal?.aborted === true;
      if (interrupted) break;
      options.note(`[${i + 1}/${cases.length}] ${test.name}`);
      try {
        const outcome = await runCase(bench, test);
        entries.push(...outcome.entries);
        skipped.push(...outcome.skipped);
        for (const { peer, reason } of outcome.skipped) options.note(`  ${peer}: ${reason}`);
        options.done?.(outcome.entries);
      } catch (error) {
        if (!isAffuseError(error)) throw error;
        options.note(`  ${error.code}: ${error.message}`);
        skipped.push({ case: test.name, peer: "affuse", code: error.code, reason: error.message });
      }
    }
    if (perf && !interrupted && !entries.some(({ where }) => where))
      options.note("--perf samples operators with one thread: no case here gave any.");
    const cpu = os.cpus()[0];
    const level = (n: number, size: number) => ({
      type: n === 1 ? "Data" : "Unified",
      level: n,
      size,
      num_sharing: n < 3 ? 1 : os.availableParallelism(),
    });
    return {
      context: {
        date: new Date().toISOString(),
        host_name: os.hostname(),
        executable: options.command,
        num_cpus: os.availableParallelism(),
        mhz_per_cpu: cpu?.speed ?? 0,
        cpu_scaling_enabled: false,
        caches: [level(1, caches.l1), level(2, caches.l2), level(3, caches.l3)],
        load_avg: load,
        library_build_type: "release",
        cpu: cpu?.model.trim() ?? "unknown",
        level: isa,
        threads,
        roofs,
        commit: commitOf(),
        versions: {
          affuse: version(),
          node: process.version,
          ...(ort ? { onnxruntime: ort.version } : {}),
          ...(torch ? { torch: torch.info.torch } : {}),
        },
        torch: torch?.info ?? null,
        quick: options.quick,
        patience: { given: patience, left: Math.max(0, calm.left) },
      },
      benchmarks: entries,
      targets: evaluateTargets(entries, () => roofs),
      skipped,
      ...(interrupted && { interrupted }),
    };
  } finally {
    torch?.stop();
    passive?.stop();
    addon.setThreads(available);
  }
}
