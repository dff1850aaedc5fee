/** Encoders in worker threads: sessions, a shared budget of threads, and the encoding of whole clips. */
import { createHash } from "node:crypto";
import { createReadStream, existsSync } from "node:fs";
import { stat } from "node:fs/promises";
import os from "node:os";
import type { Worker } from "node:worker_threads";
import { requireFromRoot } from "#root";
import { AffuseError } from "../errors.ts";
import type { FrameBlock } from "../media/image.ts";
import { startWorker } from "../workers/entry.ts";
import { BUILTIN, builtinModel } from "./builtin.ts";
import { type EncoderManifest, parseManifest, readManifest } from "./manifest.ts";
import { PRESETS } from "./presets.ts";
import { meanRow, type Rows, stackRows } from "./tensors.ts";
import type { EncodeJob, Provider, ProviderReport, WorkerReport, WorkerTask } from "./worker.ts";

/** An encoder whose model file has been found and hashed. */
export interface ResolvedEncoder {
  manifest: EncoderManifest;
  /** Path of the ONNX file, or its bytes. */
  model: string | Uint8Array;
  /** SHA-256 of the ONNX file (of an external data file beside it nothing is known). */
  sha256: string;
  bytes: number;
}

export interface PoolOptions {
  /** Threads for everything together; default: the cores this process may use. */
  threads?: number;
  /** Worker threads, each with its own sessions; default: as many as `threads`, fewer when models are large. */
  workers?: number;
  /** "cpu" by default; "cuda" falls back to the CPU and says why (see {@link EncoderPool.providers}). */
  provider?: Provider;
}

/** Features of one clip. */
export interface ClipFeatures extends Rows {
  /** Visual only: frames seen and how many of them were empty pictures. */
  frames?: number;
  blankFrames?: number;
}

/** Copies of model weights across workers stay below this, in bytes, unless `workers` is given. */
const WEIGHT_BUDGET = 2 ** 31;

async function fileSha256(file: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const part of createReadStream(file, { highWaterMark: 1 << 20 })) hash.update(part as Buffer);
  return hash.digest("hex");
}

/**
 * Finds an encoder: a built-in name, a manifest file, or a manifest itself.
 * @throws ERR_AFFUSE_ENCODER_UNKNOWN, ERR_AFFUSE_MANIFEST, ERR_AFFUSE_NOT_FOUND, ERR_AFFUSE_ENCODER_SHA256
 */
export async function resolveEncoder(spec: string | EncoderManifest): Promise<ResolvedEncoder> {
  const manifest = typeof spec === "string" ? findManifest(spec) : parseManifest(spec);
  if (manifest.model.startsWith("builtin:")) {
    const name = manifest.model.slice("builtin:".length);
    if (!(name in BUILTIN)) {
      throw new AffuseError(
        "ERR_AFFUSE_ENCODER_UNKNOWN",
        `there is no built-in model "${name}".`,
        `Built in: ${Object.keys(BUILTIN).join(", ")}.`,
      );
    }
    const bytes = builtinModel(name);
    const sha256 = createHash("sha256").update(bytes).digest("hex");
    return checkSha({ manifest, model: bytes, sha256, bytes: bytes.length });
  }
  const info = await stat(manifest.model).catch(() => null);
  if (!info?.isFile()) {
    throw new AffuseError(
      "ERR_AFFUSE_NOT_FOUND",
      `encoder ${manifest.name}: its ONNX file ${manifest.model} does not exist.`,
      "No weights come with this package: export the model to ONNX and name the file in the manifest.",
    );
  }
  return checkSha({
    manifest,
    model: manifest.model,
    sha256: await fileSha256(manifest.model),
    bytes: info.size,
  });
}

function checkSha(encoder: ResolvedEncoder): ResolvedEncoder {
  const { sha256: wanted, name } = encoder.manifest;
  if (wanted === undefined || wanted === encoder.sha256) return encoder;
  throw new AffuseError(
    "ERR_AFFUSE_ENCODER_SHA256",
    `encoder ${name}: expected an ONNX file with SHA-256 ${wanted}, got ${encoder.sha256}.`,
    "It is another model: correct the manifest or the file.",
  );
}

function findManifest(spec: string): EncoderManifest {
  const builtin = BUILTIN[spec];
  if (builtin) return builtin.manifest;
  if (/\.(json|ya?ml)$/i.test(spec) || existsSync(spec)) return readManifest(spec);
  const hint =
    spec in PRESETS
      ? `"${spec}" is a preset: write a manifest with preset: ${spec} and model: your-file.onnx.`
      : `Built in: ${Object.keys(BUILTIN).join(", ")}; otherwise give a manifest file (.yaml or .json).`;
  throw new AffuseError("ERR_AFFUSE_ENCODER_UNKNOWN", `there is no encoder "${spec}".`, hint);
}

/** @throws ERR_AFFUSE_NO_ONNXRUNTIME when the optional package is not installed */
function requireOnnxruntime(): void {
  try {
    requireFromRoot.resolve("onnxruntime-node");
  } catch (error) {
    throw new AffuseError(
      "ERR_AFFUSE_NO_ONNXRUNTIME",
      "encoders need the package onnxruntime-node, which is not installed.",
      "Run: npm install onnxruntime-node (offline or behind a proxy: ONNXRUNTIME_NODE_INSTALL=skip npm install onnxruntime-node).",
      { cause: error },
    );
  }
}

interface Pending {
  job: EncodeJob;
  transfer: ArrayBuffer[];
  resolve: (answer: { rows: Rows; blank: number }) => void;
  reject: (error: Error) => void;
}

/** A thread and what it is working on. */
interface Slot {
  worker: Worker;
  current: Pending | undefined;
}

/** Work as a caller gives it, before it has a number. */
type JobInput<T = EncodeJob> = T extends EncodeJob ? Omit<T, "id"> : never;

/** Sessions of several encoders in worker threads. Close it, or the process does not end. */
export class EncoderPool {
  readonly encoders: readonly ResolvedEncoder[];
  /** Per encoder, what it runs on. */
  readonly providers: readonly ProviderReport[];
  readonly #task: WorkerTask;
  readonly #slots: Slot[] = [];
  readonly #queue: Pending[] = [];
  #nextId = 1;
  #closed = false;

  private constructor(
    encoders: readonly ResolvedEncoder[],
    providers: readonly ProviderReport[],
    task: WorkerTask,
  ) {
    this.encoders = encoders;
    this.providers = providers;
    this.#task = task;
  }

  /** Number of worker threads: how many clips are worth offering at once. */
  get workers(): number {
    return this.#slots.length;
  }

  /**
   * Opens every encoder in every worker.
   * @throws ERR_AFFUSE_NO_ONNXRUNTIME, ERR_AFFUSE_ENCODER_MODEL, and resolveEncoder's errors
   */
  static async open(
    specs: readonly (string | EncoderManifest | ResolvedEncoder)[],
    options: PoolOptions = {},
  ): Promise<EncoderPool> {
    const encoders: ResolvedEncoder[] = [];
    for (const spec of specs) {
      encoders.push(typeof spec === "object" && "manifest" in spec ? spec : await resolveEncoder(spec));
    }
    requireOnnxruntime();
    const threads = Math.max(1, Math.floor(options.threads ?? os.availableParallelism()));
    const weights = Math.max(
      1,
      encoders.reduce((sum, e) => sum + e.bytes, 0),
    );
    const affordable = Math.max(1, Math.floor(WEIGHT_BUDGET / weights));
    const workers = Math.max(1, Math.floor(options.workers ?? Math.min(threads, affordable)));
    const task: WorkerTask = {
      encoders: encoders.map(({ manifest, model }) => ({ manifest, model })),
      intraOpThreads: Math.max(1, Math.floor(threads / workers)),
      provider: options.provider ?? "cpu",
    };
    const started = await Promise.allSettled(Array.from({ length: workers }, () => EncoderPool.#start(task)));
    const failed = started.find((s) => s.status === "rejected");
    if (failed) {
      await Promise.all(started.map((s) => (s.status === "fulfilled" ? s.value.worker.terminate() : 0)));
      throw failed.reason;
    }
    const ready = started.flatMap((s) => (s.status === "fulfilled" ? [s.value] : []));
    const pool = new EncoderPool(encoders, ready[0]?.providers ?? [], task);
    for (const { worker } of ready) pool.#add(worker);
    return pool;
  }

  static #start(task: WorkerTask): Promise<{ worker: Worker; providers: ProviderReport[] }> {
    const worker = startWorker("encoders/worker", { workerData: task });
    return new Promise((resolve, reject) => {
      const fail = (error: Error): void => {
        void worker.terminate();
        reject(error);
      };
      const exited = (code: number): void =>
        fail(new AffuseError("ERR_AFFUSE_ENCODER", `an encoder thread ended with code ${code}.`));
      worker.once("error", fail);
      worker.once("exit", exited);
      worker.once("message", (report: WorkerReport) => {
        worker.off("error", fail).off("exit", exited);
        if ("ready" in report) resolve({ worker, providers: report.ready });
        else if ("failed" in report) fail(new AffuseError(report.failed.code, report.failed.message));
      });
    });
  }

  #add(worker: Worker): void {
    const slot: Slot = { worker, current: undefined };
    const finish = (answer: (pending: Pending) => void): void => {
      const pending = slot.current;
      slot.current = undefined;
      if (pending) answer(pending);
    };
    worker.on("message", (report: WorkerReport) => {
      finish((pending) => {
        if ("rows" in report) pending.resolve({ rows: report.rows, blank: report.blank });
        else if ("error" in report) pending.reject(new AffuseError(report.error.code, report.error.message));
      });
      this.#pump();
    });
    const died = (why: string): void => {
      const at = this.#slots.indexOf(slot);
      if (at < 0) return;
      this.#slots.splice(at, 1);
      finish((pending) =>
        pending.reject(new AffuseError("ERR_AFFUSE_ENCODER", `an encoder thread ended: ${why}.`)),
      );
      if (!this.#closed) void this.#replace();
    };
    worker.on("error", (error) => died(error.message));
    worker.on("exit", (code) => died(`code ${code}`));
    this.#slots.push(slot);
    this.#pump();
  }

  /** A thread that died (out of memory, say) must not take the others' work with it. */
  async #replace(): Promise<void> {
    try {
      const { worker } = await EncoderPool.#start(this.#task);
      if (this.#closed) await worker.terminate();
      else this.#add(worker);
    } catch (error) {
      if (this.#slots.length === 0)
        for (const pending of this.#queue.splice(0)) pending.reject(error as Error);
    }
  }

  #pump(): void {
    for (const slot of this.#slots) {
      if (slot.current || this.#queue.length === 0) continue;
      const pending = this.#queue.shift() as Pending;
      slot.current = pending;
      slot.worker.postMessage(pending.job, pending.transfer);
    }
  }

  #submit(input: JobInput, transfer: ArrayBuffer[]): Promise<{ rows: Rows; blank: number }> {
    if (this.#closed) throw new AffuseError("ERR_AFFUSE_DISPOSED", "the encoder pool is closed.");
    return new Promise((resolve, reject) => {
      this.#queue.push({ job: { ...input, id: this.#nextId++ }, transfer, resolve, reject });
      this.#pump();
    });
  }

  #pooled(index: number, rows: Rows): Rows {
    return (this.encoders[index] as ResolvedEncoder).manifest.pooling === "mean" ? meanRow(rows) : rows;
  }

  /**
   * Features of a clip's sound.
   * @param index of the encoder @param samples mono, full scale ±1; its buffer is handed over and empty afterwards
   * @param sampleRate of the samples in Hz; the worker resamples
   */
  async encodeAudio(index: number, samples: Float32Array, sampleRate: number): Promise<ClipFeatures> {
    const own = samples.byteLength === samples.buffer.byteLength ? samples : samples.slice();
    const { rows } = await this.#submit({ encoder: index, kind: "audio", samples: own, sampleRate }, [
      own.buffer as ArrayBuffer,
    ]);
    return this.#pooled(index, rows);
  }

  /**
   * Features of a clip's pictures. Frames are taken from the source only as fast as they are encoded, a few blocks of
   * `manifest.chunk.frames` at a time, so memory does not grow with the clip's length.
   * @throws whatever the source throws
   */
  async encodeFrames(index: number, blocks: AsyncIterable<FrameBlock>): Promise<ClipFeatures> {
    const { manifest } = this.encoders[index] as ResolvedEncoder;
    const results: Promise<{ rows: Rows; blank: number }>[] = [];
    let frames = 0;
    for await (const block of blocks) {
      frames += block.frames;
      const done = this.#submit({ encoder: index, kind: "frames", block }, [
        block.data.buffer as ArrayBuffer,
      ]);
      done.catch(() => {}); // reported below, in order
      results.push(done);
      // Keep at most two blocks in flight; a failure ends the clip here.
      if (results.length > 2) await results[results.length - 3];
    }
    const parts = await Promise.all(results);
    const rows = this.#pooled(
      index,
      stackRows(
        parts.map((p) => p.rows),
        manifest.output.dim,
      ),
    );
    return { ...rows, frames, blankFrames: parts.reduce((sum, p) => sum + p.blank, 0) };
  }

  /** Ends the threads; unfinished work is rejected with ERR_AFFUSE_DISPOSED. */
  async close(): Promise<void> {
    this.#closed = true;
    const error = new AffuseError("ERR_AFFUSE_DISPOSED", "the encoder pool was closed.");
    for (const pending of this.#queue.splice(0)) pending.reject(error);
    const slots = this.#slots.splice(0);
    for (const slot of slots) slot.current?.reject(error);
    await Promise.all(slots.map((slot) => slot.worker.terminate()));
  }
}
