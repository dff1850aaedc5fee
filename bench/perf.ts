/**
 * Where the time of a case goes, from samples: Linux perf looks at this process some thousand times a second while a contender
 * repeats its call. Its clock is a timer of the operating system, so no hardware counters are needed. But it disturbs: on a
 * virtual machine all that computes takes up to a sixth longer, and waking a thread for a run several times as long. So samples
 * say only what the processor time goes to; how much of the wall time that is, is measured before, undisturbed.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Readable, Writable } from "node:stream";
import { AffuseError } from "../lib/errors.ts";
import { collectGarbage } from "./adapter.ts";
import { printable } from "./table.ts";
import type { Where } from "./types.ts";
import { Tally } from "./where.ts";

const HERTZ = 4000;
const LOOP_SECONDS = 0.5;
/** Starting perf and reading what it wrote take a part of a second each. */
const PATIENCE_SECONDS = 30;
/** More than any loop gives: a sample is a line of at most some kilobytes. */
const MOST_BYTES = 2 ** 28;

const perfError = (why: string) =>
  new AffuseError(
    "ERR_AFFUSE_BENCH_PERF",
    `expected samples of perf, but ${printable(why)}.`,
    "--perf wants Linux, its perf on PATH and /proc/sys/kernel/perf_event_paranoid of at most 2, or root.",
  );

/** perf in a process of its own. */
class Child {
  readonly process: ChildProcess;
  /** How it ended; "" is well. */
  readonly #over: Promise<string>;
  readonly #patience: number;
  #said = "";

  constructor(args: readonly string[], stdio: ("ignore" | "pipe")[], patience: number) {
    this.#patience = patience;
    // In a group of its own: an interrupt from the keyboard is for us. Nobody's settings change what it writes.
    const env = { ...process.env, LC_ALL: "C", PERF_CONFIG: "/dev/null" };
    this.process = spawn("perf", args, { stdio, env, detached: true });
    for (const stream of this.process.stdio) stream?.on("error", () => {}); // it may end without reading
    this.process.stderr?.setEncoding("utf8").on("data", (text: string) => {
      this.#said = (this.#said + text).slice(0, 4000);
    });
    this.#over = new Promise((resolve) => {
      this.process.on("error", (error) => resolve(`it cannot be run (${error.message})`));
      this.process.on("close", (code, signal) => resolve(code === 0 ? "" : this.#ending(code, signal)));
    });
  }

  #ending(code: number | null, signal: string | null): string {
    const lines = this.#said.split("\n").map((line) => line.trim());
    const first = lines.find((line) => !/^(?:|Error:?|Events (?:en|dis)abled)$/.test(line));
    return `it ended with ${signal ?? `exit code ${code}`}${first ? ` (${first.slice(0, 200)})` : ""}`;
  }

  /** Waits for a promise, but not for ever. */
  async #within<T>(promise: Promise<T>): Promise<T> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(perfError(`it took more than ${this.#patience} s`)), 1000 * this.#patience);
    });
    try {
      return await Promise.race([promise, late]);
    } finally {
      clearTimeout(timer);
    }
  }

  /** Has it begin or stop to sample. Done when this resolves: it takes a fifth of a second to start. */
  async control(command: "enable" | "disable"): Promise<void> {
    const [, , , orders, answers] = this.process.stdio as unknown as [null, null, null, Writable, Readable];
    const answer = new Promise<void>((resolve) => answers?.once("data", () => resolve()));
    orders?.write(`${command}\n`);
    const early = this.#over.then((how) => Promise.reject(perfError(how || "it ended at once")));
    await this.#within(Promise.race([answer, early]));
  }

  end(): Promise<string> {
    return this.#within(this.#over);
  }

  kill(signal: NodeJS.Signals): void {
    if (this.process.exitCode === null && this.process.signalCode === null) this.process.kill(signal);
  }
}

/**
 * Parts of the wall time.
 * @param busy processor time of this process over wall time
 * @throws AffuseError ERR_AFFUSE_BENCH_PERF for samples that say nothing
 */
export function partsOf(tally: Tally, busy: number): Where {
  const { seconds, samples } = tally.sum();
  if (tally.nameless > tally.samples / 10) throw perfError("the addon's functions have no names (it was stripped)");
  if (samples === 0) throw perfError(`none of ${tally.samples} is in a kernel`);
  const share = busy / tally.seconds;
  const kernels = (seconds.tiles + seconds.packing + seconds.kernels) * share;
  // One thread cannot be more than busy, but both times are a little off.
  const scale = share / Math.max(1, kernels);
  return {
    tiles: seconds.tiles * scale,
    packing: seconds.packing * scale,
    kernels: seconds.kernels * scale,
    between: Math.max(0, 1 - kernels),
  };
}

export class Perf {
  readonly #patience: number;

  private constructor(patience: number) {
    this.#patience = patience;
  }

  /**
   * Tries perf out on a loop that does nothing.
   * @param patience seconds that each of its steps may take; it is ended then
   * @throws AffuseError ERR_AFFUSE_BENCH_PERF when it is missing, not permitted, or gives no samples
   */
  static async start(patience = PATIENCE_SECONDS): Promise<Perf> {
    if (process.platform !== "linux") throw perfError(`${process.platform} has none`);
    const perf = new Perf(patience);
    await perf.sampled(async () => {
      for (const end = performance.now() + 20; performance.now() < end; );
    });
    return perf;
  }

  /**
   * Where the time of a contender's calls goes.
   * @param loop repeats them for at least so many seconds, and tells how many
   * @throws AffuseError ERR_AFFUSE_BENCH_PERF
   */
  async where(loop: (seconds: number) => Promise<number>): Promise<{ where: Where; where_samples: number }> {
    collectGarbage();
    const used = process.cpuUsage();
    const wall = await loop(LOOP_SECONDS);
    // Of all threads, as the samples are; without the operating system's own time, as they are too.
    const busy = process.cpuUsage(used).user / 1e6 / wall;
    collectGarbage();
    const { tally } = await this.sampled(() => loop(LOOP_SECONDS));
    return { where: partsOf(tally, busy), where_samples: tally.sum().samples };
  }

  /** Runs something while perf samples all threads of this process, and sums the samples up. Leaves no files. */
  async sampled<T>(run: () => Promise<T>): Promise<{ value: T; tally: Tally }> {
    let folder: string;
    try {
      folder = mkdtempSync(join(tmpdir(), "affuse-perf-"));
    } catch (error) {
      throw perfError(`there is no room for them (${(error as Error).message})`);
    }
    const file = join(folder, "samples");
    let child: Child | undefined;
    const leave = () => {
      child?.kill("SIGKILL");
      rmSync(folder, { recursive: true, force: true });
    };
    process.once("exit", leave);
    try {
      // The operating system's own time is left out (":u"): perf adds to it, and seeing it takes more rights.
      const events = [`--freq=${HERTZ}`, "--event=cpu-clock:u", "--no-bpf-event"];
      const about = ["--no-buildid", "--no-buildid-cache", `--pid=${process.pid}`, `--output=${file}`];
      const args = ["record", ...events, ...about, "--delay=-1", "--control=fd:3,4"];
      child = new Child(args, ["ignore", "ignore", "pipe", "pipe", "pipe"], this.#patience);
      await child.control("enable");
      const value = await run();
      await child.control("disable");
      child.kill("SIGINT"); // it writes what it has, and ends with this signal
      await child.end();
      const reading = ["script", `--input=${file}`, "--fields=tid,period,ip,sym,dso"];
      child = new Child(reading, ["ignore", "pipe", "pipe"], this.#patience);
      return { value, tally: await this.#read(child) };
    } finally {
      process.off("exit", leave);
      leave();
    }
  }

  async #read(child: Child): Promise<Tally> {
    const tally = new Tally();
    const output = child.process.stdout as Readable;
    let bytes = 0;
    output.on("data", (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes > MOST_BYTES) child.kill("SIGKILL");
    });
    let other = "";
    const lines = createInterface({ input: output }).on("line", (line) => {
      if (line.trim() !== "" && !tally.add(line)) other ||= line.trim();
    });
    const read = new Promise((resolve) => lines.on("close", resolve));
    const how = await child.end();
    if (how) throw perfError(how);
    await read;
    if (other) throw perfError(`it said "${other.slice(0, 100)}"`);
    if (tally.samples === 0) throw perfError("it gave none");
    return tally;
  }
}
