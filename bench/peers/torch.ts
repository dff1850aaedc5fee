/**
 * PyTorch as a peer: a Python process that keeps the inputs and times itself on command
 * (peers/torch/main.py).
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { packageRoot } from "#root";
import { z } from "zod";
import { AffuseError } from "../../lib/errors.ts";
import type { HostTensor } from "../../lib/native/addon.ts";
import type { Sets } from "../tensors.ts";
import type { Contender } from "../types.ts";

const MAIN = join(packageRoot, "bench", "peers", "torch", "main.py");

/** How long an answer may take. The longest that a case asks for, on one slow thread, is far below. */
const PATIENCE_SECONDS = 300;

export interface TorchInfo {
  python: string;
  torch: string;
  /** OpenBLAS's own description, null when another library answers. */
  blas: string | null;
  libraries: string[];
  mkldnn: boolean;
  /** Why a comparison with this build would flatter us; null: nothing found. */
  warning: string | null;
}

/** The interpreter: --python, $AFFUSE_PYTHON, python3, /usr/bin/python3, whichever first has PyTorch. */
function findPython(asked: string | undefined): string {
  const candidates = asked
    ? [asked]
    : process.env.AFFUSE_PYTHON
      ? [process.env.AFFUSE_PYTHON]
      : ["python3", "/usr/bin/python3"];
  const tried: string[] = [];
  for (const python of candidates) {
    const { status, error, stderr } = spawnSync(python, ["-c", "import torch"], {
      encoding: "utf8",
      timeout: 120_000,
    });
    if (status === 0) return python;
    const why = error ? error.message : stderr.trim().split("\n").pop() || `exit code ${status}`;
    tried.push(`${python}: ${why.replace(/\.+$/, "")}`);
  }
  throw new AffuseError(
    "ERR_AFFUSE_BENCH_TORCH",
    `expected a Python with PyTorch, got: ${tried.join("; ")}.`,
    "Install it (pip install torch), or name one with --python PATH or AFFUSE_PYTHON.",
  );
}

/** What must not be compared with in silence. */
function warningOf({
  blas,
  libraries,
  mkldnn,
}: Pick<TorchInfo, "blas" | "libraries" | "mkldnn">): string | null {
  const names = libraries.join(", ");
  if (/libblas\.so|librefblas/.test(names) && !blas)
    return `PyTorch multiplies with the reference BLAS (${names}): a comparison says nothing`;
  if (!blas && !/mkl/i.test(names) && !mkldnn) return "no fast BLAS was found behind PyTorch";
  if (blas && /Prescott|Generic|Core2/i.test(blas))
    return `OpenBLAS runs code for an old processor (${blas})`;
  return null;
}

const aboutSchema = z.object({
  torch: z.string(),
  blas: z.string().nullable(),
  libraries: z.array(z.string()),
  mkldnn: z.boolean(),
});
const answerSchema = z.record(z.string(), z.unknown());
const sampleSchema = z.object({ seconds: z.number().positive(), cpu: z.number(), count: z.number() });
const resultsSchema = z.object({ names: z.array(z.tuple([z.string(), z.number()])) });
const peakSchema = z.object({ bytes: z.number() });

const torchError = (why: string) =>
  new AffuseError("ERR_AFFUSE_BENCH_TORCH", `expected an answer of the PyTorch process, but ${why}.`);

function parsedAs<T>(schema: z.ZodType<T>, value: unknown): T {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  throw torchError(`it said "${JSON.stringify(value)?.slice(0, 100)}"`);
}

/** What is sent with a case beside its tensors. */
export type TorchCase = Record<string, unknown> & { kind: "operator" | "step" | "inference" | "fcn" };

/**
 * What PyTorch's OpenMP threads do between their loops. Spinning ones take the cores from the threads of an OpenBLAS that has its
 * own, as Debian's has. Where all loops are OpenMP's, spinning is quicker. The setting is read when the process starts.
 */
export type Waiting = "as usual" | "passive";

export class TorchPeer {
  info: TorchInfo = { python: "", torch: "", blas: null, libraries: [], mkldnn: false, warning: null };
  readonly #child: ChildProcess;
  readonly #lines: AsyncIterator<string>;
  readonly #folder: string;
  readonly #patience: number;
  /** Why the process can no longer be asked. */
  #lost: string | null = null;
  readonly #waiting: Waiting;
  readonly #leave = () => this.stop();

  private constructor(child: ChildProcess, lines: AsyncIterator<string>, patience: number, waiting: Waiting) {
    this.#waiting = waiting;
    this.#child = child;
    this.#lines = lines;
    this.#folder = mkdtempSync(join(tmpdir(), "affuse-bench-"));
    this.#patience = patience;
    process.once("exit", this.#leave);
  }

  /**
   * @param patience seconds that an answer may take; a process that does not answer is ended
   * @param memory kept: what is freed stays in the process (glibc's malloc). Tensors of some megabytes otherwise get new pages in
   *   every operator or not, depending on what ran before: up to three times as long. given back: as malloc does by itself
   * @throws AffuseError ERR_AFFUSE_BENCH_TORCH when no Python has PyTorch, or it ends, hangs or answers
   *   something else
   */
  static async start(
    asked?: string,
    patience = PATIENCE_SECONDS,
    waiting: Waiting = "as usual",
    memory: "kept" | "given back" = "kept",
  ): Promise<TorchPeer> {
    const python = findPython(asked);
    // It has no standard error of its own in tables; what it says there is for people.
    const env = {
      ...(memory === "kept" && { MALLOC_MMAP_MAX_: "0", MALLOC_TRIM_THRESHOLD_: String(2 ** 40) }),
      ...process.env,
      PYTHONDONTWRITEBYTECODE: "1",
      ...(waiting === "passive" && { OMP_WAIT_POLICY: waiting }),
    };
    const child = spawn(python, [MAIN], { env, stdio: ["pipe", "pipe", "inherit"] });
    child.on("error", () => {}); // seen as an early end
    child.stdin?.on("error", () => {});
    const lines = createInterface({ input: child.stdout as NodeJS.ReadableStream })[Symbol.asyncIterator]();
    const peer = new TorchPeer(child, lines, patience, waiting);
    try {
      const about = parsedAs(aboutSchema, await peer.ask({ do: "about" }));
      peer.info = { python, ...about, warning: warningOf(about) };
      return peer;
    } catch (error) {
      peer.stop();
      throw error;
    }
  }

  async ask(command: object): Promise<Record<string, unknown>> {
    if (this.#lost !== null) throw torchError(this.#lost);
    this.#child.stdin?.write(`${JSON.stringify(command)}\n`);
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<"late">((resolve) => {
      timer = setTimeout(resolve, 1000 * this.#patience, "late");
    });
    const line = await Promise.race([this.#lines.next(), late]);
    clearTimeout(timer);
    if (line === "late") throw this.#lose(`it said nothing for ${this.#patience} s and was ended`);
    if (line.done) throw this.#lose("it ended");
    let answer: Record<string, unknown>;
    try {
      answer = parsedAs(answerSchema, JSON.parse(line.value));
    } catch {
      // What follows would answer another question.
      throw this.#lose(`it said "${line.value.slice(0, 100)}" and was ended`);
    }
    if (answer.error) throw new AffuseError("ERR_AFFUSE_BENCH_TORCH", `PyTorch: ${answer.error}.`);
    return answer;
  }

  #lose(why: string): AffuseError {
    this.#lost = why;
    this.#child.kill("SIGKILL");
    return torchError(why);
  }

  /** Gives the peer a case: tensors in one flat file, each shared one once. */
  async load(test: TorchCase, sets: Sets): Promise<void> {
    const path = join(this.#folder, "tensors.bin");
    const file = openSync(path, "w");
    const tensors: object[] = [];
    let offset = 0;
    const put = (name: string, set: number, { shape, dtype, data }: HostTensor) => {
      writeSync(file, Buffer.from(data.buffer, data.byteOffset, data.byteLength));
      tensors.push({ name, set, offset, count: data.length, shape, dtype });
      offset += data.length;
    };
    try {
      const first = sets[0] ?? {};
      const shared = (name: string) => sets.length > 1 && sets.every((set) => set[name] === first[name]);
      for (const [name, tensor] of Object.entries(first)) if (shared(name)) put(name, -1, tensor);
      sets.forEach((set, i) => {
        for (const [name, tensor] of Object.entries(set)) if (!shared(name)) put(name, i, tensor);
      });
    } finally {
      closeSync(file);
    }
    await this.ask({ do: "load", file: path, case: { ...test, sets: Math.max(1, sets.length), tensors } });
    rmSync(path, { force: true });
  }

  /** Results of set 0 by name. */
  async results(): Promise<Record<string, Float32Array>> {
    const path = join(this.#folder, "results.bin");
    const { names } = parsedAs(resultsSchema, await this.ask({ do: "results", file: path }));
    const bytes = readFileSync(path);
    const all = new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
    let at = 0;
    return Object.fromEntries(
      names.map(([name, count]) => {
        at += count;
        return [name, all.subarray(at - count, at)];
      }),
    );
  }

  contender(threads: number): Contender {
    return {
      peer: "torch",
      threads,
      ...(this.#waiting === "passive" && { setting: "waiting passively" }),
      sample: async (seconds) => parsedAs(sampleSchema, await this.ask({ do: "sample", threads, seconds })),
    };
  }

  async peakMemory(): Promise<number> {
    return parsedAs(peakSchema, await this.ask({ do: "peak" })).bytes;
  }

  /** Ends the process, whatever it is doing. */
  stop(): void {
    process.off("exit", this.#leave);
    this.#lost ??= "it was ended";
    this.#child.kill("SIGKILL");
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
