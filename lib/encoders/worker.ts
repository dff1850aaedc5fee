/**
 * Worker thread that holds the ONNX sessions of every encoder of a pool. `session.run()` of onnxruntime-node blocks its
 * thread, which is why it happens here and never on the main one.
 */
import { parentPort, workerData } from "node:worker_threads";
import type { InferenceSession, Tensor } from "onnxruntime-node";
import { AffuseError, isAffuseError } from "../errors.ts";
import { countBlank, type FrameBlock } from "../media/image.ts";
import type { EncoderManifest } from "./manifest.ts";
import { buildMelFront } from "./mel.ts";
import {
  collectRows,
  framesTensor,
  logMelTensor,
  type PlainTensor,
  prepareWaveform,
  type Rows,
  stackRows,
  waveformTensor,
} from "./tensors.ts";

export type Provider = "cpu" | "cuda";

/** What the thread is started with. */
export interface WorkerTask {
  encoders: { manifest: EncoderManifest; model: string | Uint8Array }[];
  intraOpThreads: number;
  provider: Provider;
}

/** One piece of work. Audio: a whole clip. Frames: one block. */
export type EncodeJob = { id: number; encoder: number } & (
  | { kind: "audio"; samples: Float32Array; sampleRate: number }
  | { kind: "frames"; block: FrameBlock }
);

/** What an encoder runs on, and why not on what was asked for. */
export interface ProviderReport {
  provider: Provider;
  /** Why CUDA was not used although it was asked for. */
  fallback?: string;
}

export type WorkerReport =
  | { ready: ProviderReport[] }
  | { failed: { code: string; message: string } }
  | { id: number; rows: Rows; blank: number }
  | { id: number; error: { code: string; message: string } };

const { encoders, intraOpThreads, provider } = workerData as WorkerTask;
type Ort = typeof import("onnxruntime-node");

async function open(
  ort: Ort,
  { manifest, model }: WorkerTask["encoders"][number],
): Promise<[InferenceSession, ProviderReport]> {
  const create = (executionProviders: Provider[]): Promise<InferenceSession> => {
    const options: InferenceSession.SessionOptions = {
      executionProviders,
      intraOpNumThreads: intraOpThreads,
      interOpNumThreads: 1,
      logSeverityLevel: 4,
      // Threads of the runtime would otherwise spin between runs and take the cores from everyone else.
      extra: { session: { intra_op: { allow_spinning: "0" }, inter_op: { allow_spinning: "0" } } },
    };
    return typeof model === "string"
      ? ort.InferenceSession.create(model, options)
      : ort.InferenceSession.create(model, options);
  };
  let fallback: string | undefined;
  if (provider === "cuda") {
    try {
      return [await create(["cuda"]), { provider: "cuda" }];
    } catch (error) {
      fallback = (error as Error).message;
    }
  }
  try {
    return [await create(["cpu"]), { provider: "cpu", ...(fallback === undefined ? {} : { fallback }) }];
  } catch (error) {
    const { message } = error as Error;
    throw new AffuseError(
      "ERR_AFFUSE_ENCODER_MODEL",
      `encoder ${manifest.name}: onnxruntime cannot load its model: ${message}`,
    );
  }
}

async function run(
  ort: Ort,
  session: InferenceSession,
  manifest: EncoderManifest,
  input: PlainTensor,
): Promise<Rows> {
  const inputName = manifest.input.tensor ?? (session.inputNames[0] as string);
  const feeds: Record<string, Tensor> = { [inputName]: new ort.Tensor("float32", input.data, input.dims) };
  if (manifest.input.kind === "waveform" && manifest.input.mask !== undefined) {
    feeds[manifest.input.mask] = new ort.Tensor(
      "int64",
      new BigInt64Array(input.data.length).fill(1n),
      input.dims,
    );
  }
  const names = manifest.output.tensors ?? [session.outputNames[0] as string];
  for (const [what, wanted, has] of [
    ["input", Object.keys(feeds), session.inputNames],
    ["output", names, session.outputNames],
  ] as const) {
    const unknown = wanted.find((name) => !has.includes(name));
    if (unknown !== undefined) {
      throw new AffuseError(
        "ERR_AFFUSE_MANIFEST",
        `encoder ${manifest.name}: the model has no ${what} "${unknown}".`,
        `It has: ${has.join(", ")}.`,
      );
    }
  }
  let results: InferenceSession.OnnxValueMapType;
  try {
    results = await session.run(feeds, names);
  } catch (error) {
    const shape = `[${input.dims.join(",")}]`;
    throw new AffuseError(
      "ERR_AFFUSE_ENCODER",
      `encoder ${manifest.name} failed on input ${shape}: ${(error as Error).message}`,
    );
  }
  const outputs = names.map((name): PlainTensor => {
    const value = results[name] as Tensor;
    if (value.type !== "float32") {
      throw new AffuseError(
        "ERR_AFFUSE_ENCODER_OUTPUT",
        `encoder ${manifest.name}: expected float32 output, got ${value.type}.`,
      );
    }
    return { dims: [...value.dims], data: value.data as Float32Array };
  });
  return collectRows(outputs, manifest);
}

/** Long audio in pieces, each with context on both sides whose rows are cut off again. */
async function encodeAudio(
  ort: Ort,
  session: InferenceSession,
  front: InferenceSession | undefined,
  manifest: EncoderManifest,
  samples: Float32Array,
): Promise<Rows> {
  const { input, output, chunk } = manifest;
  if (input.kind === "frames") throw new TypeError("not an audio encoder");
  const once = async (part: Float32Array): Promise<Rows> => {
    if (input.kind === "waveform") return run(ort, session, manifest, waveformTensor(part, input));
    const feeds = { waveform: new ort.Tensor("float32", part, [1, part.length]) };
    const { mel } = (await (front as InferenceSession).run(feeds)) as { mel: Tensor };
    const plain = { dims: [...mel.dims], data: mel.data as Float32Array };
    return run(ort, session, manifest, logMelTensor(plain, input));
  };
  const step = Math.round((chunk?.seconds ?? 0) * input.sampleRate);
  const context = Math.round((chunk?.context ?? 0) * input.sampleRate);
  const rate = output.rate;
  if (step === 0 || rate === null || samples.length <= step + context) return once(samples);
  const parts: Rows[] = [];
  for (let at = 0; at < samples.length; at += step) {
    const from = Math.max(0, at - context);
    const last = at + step + context >= samples.length;
    const table = await once(samples.slice(from, last ? samples.length : at + step + context));
    const skip = Math.round(((at - from) / input.sampleRate) * rate);
    const take = last
      ? table.rows - skip
      : Math.min(table.rows - skip, Math.round((step / input.sampleRate) * rate));
    parts.push({
      data: table.data.slice(skip * table.dim, (skip + take) * table.dim),
      rows: take,
      dim: table.dim,
    });
    if (last) break;
  }
  return stackRows(parts, output.dim);
}

const plain = (error: unknown): { code: string; message: string } => ({
  code: isAffuseError(error) ? error.code : "ERR_AFFUSE_ENCODER",
  message: error instanceof Error ? error.message : String(error),
});

const post = (report: WorkerReport, transfer: ArrayBuffer[] = []): void =>
  parentPort?.postMessage(report, transfer);

try {
  const module = await import("onnxruntime-node");
  const ort = ((module as unknown as { default?: Ort }).default ?? module) as Ort;
  ort.env.logLevel = "fatal"; // what goes wrong comes as an exception and is reported once
  const sessions: InferenceSession[] = [];
  const fronts: (InferenceSession | undefined)[] = [];
  const reports: ProviderReport[] = [];
  for (const encoder of encoders) {
    const [session, report] = await open(ort, encoder);
    sessions.push(session);
    const { input } = encoder.manifest;
    const front = input.kind === "log-mel" ? { ...encoder, model: buildMelFront(input) } : undefined;
    fronts.push(front && (await open(ort, front))[0]);
    reports.push(report);
  }
  // One job at a time: the main thread sends the next one when this one has been answered.
  parentPort?.on("message", async (job: EncodeJob) => {
    try {
      const { manifest } = encoders[job.encoder] as WorkerTask["encoders"][number];
      const session = sessions[job.encoder] as InferenceSession;
      let rows: Rows;
      let blank = 0;
      if (job.kind === "audio") {
        if (manifest.input.kind === "frames") throw new TypeError("not an audio encoder");
        rows = await encodeAudio(
          ort,
          session,
          fronts[job.encoder],
          manifest,
          prepareWaveform(job.samples, job.sampleRate, manifest.input),
        );
      } else {
        if (manifest.input.kind !== "frames") throw new TypeError("not a visual encoder");
        blank = countBlank(job.block);
        rows = await run(ort, session, manifest, framesTensor(job.block, manifest.input));
      }
      post({ id: job.id, rows, blank }, [rows.data.buffer as ArrayBuffer]);
    } catch (error) {
      post({ id: job.id, error: plain(error) });
    }
  });
  post({ ready: reports });
} catch (error) {
  post({ failed: plain(error) });
}
