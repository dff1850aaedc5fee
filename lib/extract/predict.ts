/** From clips to predictions: the encoders that a trained ensemble names, then the ensemble. */
import { FeatureMemory } from "../data/features.ts";
import type { EncoderManifest } from "../encoders/manifest.ts";
import { EncoderPool, type PoolOptions, type ResolvedEncoder, resolveEncoder } from "../encoders/pool.ts";
import type { Ensemble, EnsemblePrediction } from "../ensemble/load.ts";
import { AffuseError, isAffuseError } from "../errors.ts";
import type { DecodeOptions } from "../media/decode.ts";
import type { ClipFiles } from "../media/source.ts";
import { clipFeatures } from "./features.ts";
import { featureManifestSchema, fingerprint } from "./store.ts";

/** A stretch of time and the share of a stream's attention that lies in it. */
export interface TimeRange {
  /** Seconds. */
  start: number;
  end: number;
  /** 0 … 1. */
  weight: number;
}

export interface StreamAttention {
  stream: string;
  modality: string;
  /** Where the attention gathered from: the fewest frames that hold at least half of it, joined where they touch. */
  ranges: TimeRange[];
}

export interface MissingStream {
  stream: string;
  modality: string;
  why: string;
}

export interface ClipResult {
  name: string;
  /** Class of the largest posterior. */
  emotion: string;
  /** By class name; they sum to 1. */
  posteriors: Record<string, number>;
  /** Raw label scale. */
  valence: number;
  attention: StreamAttention[];
  missing: MissingStream[];
}

export interface ClipError {
  name: string;
  error: { code: string; message: string };
}

/** The attention's share that the reported ranges hold at least. */
export const ATTENTION_MASS = 0.5;

/**
 * The fewest frames that hold `mass` of the weights, as time ranges in order.
 * @param weights [T], summing to 1 @param rate frames per second
 */
export function attentionRanges(weights: Float32Array, rate: number, mass = ATTENTION_MASS): TimeRange[] {
  const order = [...weights.keys()].sort((a, b) => (weights[b] as number) - (weights[a] as number) || a - b);
  const total = weights.reduce((a, b) => a + b, 0);
  const chosen = new Set<number>();
  let sum = 0;
  for (const t of order) {
    if (sum >= mass * total - 1e-6) break;
    chosen.add(t);
    sum += weights[t] as number;
  }
  const ranges: TimeRange[] = [];
  for (let t = 0; t < weights.length; t++) {
    if (!chosen.has(t)) continue;
    const last = ranges.at(-1);
    if (last && chosen.has(t - 1)) {
      last.end = (t + 1) / rate;
      last.weight += weights[t] as number;
    } else ranges.push({ start: t / rate, end: (t + 1) / rate, weight: weights[t] as number });
  }
  return ranges;
}

/**
 * The encoders that made the ensemble's streams, from the manifests in its checkpoints.
 * @param given take precedence over the checkpoints' by name, e.g. when a model file has moved
 * @throws ERR_AFFUSE_PREDICT_ENCODER a stream whose encoder is not known, or is not the one of the training
 */
export async function encodersOf(
  ensemble: Pick<Ensemble, "streams">,
  given: readonly (string | EncoderManifest)[] = [],
): Promise<ResolvedEncoder[]> {
  const own = new Map<string, ResolvedEncoder>();
  for (const spec of given) {
    const encoder = await resolveEncoder(spec);
    own.set(encoder.manifest.name, encoder);
  }
  const encoders: ResolvedEncoder[] = [];
  for (const stream of ensemble.streams) {
    const trained = featureManifestSchema.safeParse(stream.manifest);
    const override = own.get(stream.name);
    if (!trained.success && !override) {
      throw new AffuseError(
        "ERR_AFFUSE_PREDICT_ENCODER",
        `the model was trained on features ${stream.name} whose encoder its checkpoint does not know.`,
        "Give --encoder with a manifest of that name, or extract features yourself and run affuse eval.",
      );
    }
    const encoder =
      override ?? (await resolveEncoder((trained.data as { encoder: EncoderManifest }).encoder));
    if (trained.success && fingerprint(encoder) !== trained.data.fingerprint) {
      throw new AffuseError(
        "ERR_AFFUSE_PREDICT_ENCODER",
        `encoder ${stream.name} is not the one that the model was trained with (SHA-256 ${trained.data.sha256}, now ${encoder.sha256}).`,
        "Use the manifest and ONNX file of the training.",
      );
    }
    encoders.push(encoder);
  }
  return encoders;
}

export interface PredictClipsOptions extends PoolOptions, DecodeOptions {
  encoders?: readonly (string | EncoderManifest)[];
  onProgress?: (done: number, total: number) => void;
}

interface Encoded {
  features: Record<string, Float32Array | null>;
  missing: MissingStream[];
}

/**
 * Every stream of one clip. A stream that cannot be decoded counts as missing as long as another one is there (spec 2.3);
 * a clip of which nothing can be used is an error.
 */
async function encodeClip(pool: EncoderPool, clip: ClipFiles, options: DecodeOptions): Promise<Encoded> {
  const out: Encoded = { features: {}, missing: [] };
  let failure: unknown;
  const answers = await Promise.allSettled(pool.encoders.map((_, i) => clipFeatures(pool, i, clip, options)));
  for (const [i, answer] of answers.entries()) {
    const { name: stream, modality } = (pool.encoders[i] as ResolvedEncoder).manifest;
    out.features[stream] = null;
    if (answer.status === "fulfilled" && "data" in answer.value) {
      out.features[stream] = answer.value.data;
      continue;
    }
    if (answer.status === "rejected") {
      if (!isAffuseError(answer.reason)) throw answer.reason;
      failure ??= answer.reason;
      out.missing.push({ stream, modality, why: `${answer.reason.code}: ${answer.reason.message}` });
    } else out.missing.push({ stream, modality, why: (answer.value as { missing: string }).missing });
  }
  if (out.missing.length === pool.encoders.length) {
    if (failure !== undefined) throw failure;
    const why = [...new Set(out.missing.map((m) => m.why))].join("; ");
    throw new AffuseError("ERR_AFFUSE_EMPTY_CLIP", `nothing to predict from: ${why}.`);
  }
  return out;
}

/** Clips whose features are in memory at once. */
const GROUP = 32;

/**
 * Predicts clips from their files.
 * @returns one entry per clip, in order: a result, or the error that its files gave
 * @throws what concerns all clips: ERR_AFFUSE_PREDICT_ENCODER, ERR_AFFUSE_NO_ONNXRUNTIME, ERR_AFFUSE_NO_DECODER …
 */
export async function predictClips(
  ensemble: Pick<Ensemble, "streams" | "classes" | "predict">,
  clips: readonly ClipFiles[],
  options: PredictClipsOptions = {},
): Promise<(ClipResult | ClipError)[]> {
  const encoders = await encodersOf(ensemble, options.encoders);
  const pool = await EncoderPool.open(encoders, {
    ...options,
    workers: options.workers ?? Math.min(clips.length + 1, 8, options.threads ?? 8),
  });
  const results: (ClipResult | ClipError)[] = [];
  try {
    for (let at = 0; at < clips.length; at += GROUP) {
      const group = clips.slice(at, at + GROUP);
      const encoded = new Array<Encoded | ClipError>(group.length);
      let next = 0;
      const lane = async (): Promise<void> => {
        while (next < group.length) {
          const i = next++;
          const clip = group[i] as ClipFiles;
          try {
            encoded[i] = await encodeClip(pool, clip, options);
          } catch (error) {
            const code = isAffuseError(error) ? error.code : "ERR_AFFUSE_INTERNAL";
            encoded[i] = { name: clip.name, error: { code, message: (error as Error).message } };
          }
          options.onProgress?.(at + i + 1, clips.length);
        }
      };
      await Promise.all(Array.from({ length: pool.workers }, lane));
      // Two files may have the same name; their position tells them apart.
      const there = encoded.flatMap((e, i) => ("features" in e ? [[String(i), e.features] as const] : []));
      const answers =
        there.length > 0
          ? await ensemble.predict(
              new FeatureMemory(ensemble.streams, there),
              there.map(([id]) => id),
            )
          : [];
      const byId = new Map(there.map(([id], i) => [id, answers[i] as EnsemblePrediction]));
      for (const [i, clip] of group.entries()) {
        const e = encoded[i] as Encoded | ClipError;
        results.push(
          "error" in e
            ? e
            : describe(ensemble, clip.name, byId.get(String(i)) as EnsemblePrediction, e.missing, encoders),
        );
      }
    }
  } finally {
    await pool.close();
  }
  return results;
}

function describe(
  ensemble: Pick<Ensemble, "streams" | "classes">,
  name: string,
  answer: EnsemblePrediction,
  missing: MissingStream[],
  encoders: readonly ResolvedEncoder[],
): ClipResult {
  const attention: StreamAttention[] = [];
  for (const [i, { name: stream, modality }] of ensemble.streams.entries()) {
    const { output, pooling } = (encoders[i] as ResolvedEncoder).manifest;
    const weights = answer.attention[stream];
    if (!weights || weights.length === 0 || output.rate === null || pooling === "mean") continue;
    attention.push({ stream, modality, ranges: attentionRanges(weights, output.rate) });
  }
  const posteriors = Object.fromEntries(
    ensemble.classes.map((label, c) => [label, answer.posteriors[c] as number]),
  );
  return { name, emotion: answer.emotion, posteriors, valence: answer.valence, attention, missing };
}
