/** Predictions of one model for many clips, and the file that holds predictions. */
import { z } from "zod";
import { assembleBatch, type Standardization } from "../data/dataset.ts";
import type { FeatureSource } from "../data/features.ts";
import { readJson, writeFileAtomic, writeJson } from "../data/files.ts";
import { formatCsv } from "../data/csv.ts";
import { AffuseError } from "../errors.ts";
import { argmax } from "../metrics/evaluate.ts";
import type { Model } from "../models/types.ts";
import { longest } from "./schedule.ts";

/** One model's answer for one clip. Vectors are in the order of the file's (or model's) class names. */
export interface ClipPrediction {
  name: string;
  posteriors: number[];
  logits: number[];
  /** Raw scale. */
  valence: number;
}

export interface DetailedPrediction extends ClipPrediction {
  /** Stream → weight of each of the clip's own frames (no padding); empty where the clip lacks the stream. */
  attention: Record<string, Float32Array>;
  embedding: Float32Array;
}

export interface PredictOptions {
  /** Per stream of the source, in its order. */
  standardization?: readonly Standardization[];
  /** Default 32. */
  batchSize?: number;
}

/**
 * Runs a model over clips, longest together with longest. Results come in the order of `clips` and do not
 * depend on the batching.
 * @param features must hold the model's streams, by name
 */
export async function predictModel(
  model: Model,
  features: FeatureSource,
  clips: readonly string[],
  options: PredictOptions = {},
): Promise<DetailedPrediction[]> {
  const { batchSize = 32, standardization } = options;
  const used = model.streams.map(({ name }) => name);
  const order = [...clips.keys()].sort(
    (a, b) => longest(features, clips[a] as string) - longest(features, clips[b] as string) || a - b,
  );
  const out = new Array<DetailedPrediction>(clips.length);
  const C = model.classes.length;
  for (let at = 0; at < order.length; at += batchSize) {
    const indices = order.slice(at, at + batchSize);
    const names = indices.map((i) => clips[i] as string);
    const batch = await assembleBatch(features, names, {
      streams: used,
      ...(standardization && { standardization }),
    });
    const result = await model.infer(batch);
    const H = model.embeddingWidth;
    for (const [b, i] of indices.entries()) {
      const attention: Record<string, Float32Array> = {};
      for (const name of used) {
        const stream = batch.streams[name];
        const weights = result.attention[name];
        if (stream && weights)
          attention[name] = weights.slice(b * stream.T, b * stream.T + (stream.lengths[b] ?? 0));
      }
      const prediction = {
        name: names[b] as string,
        posteriors: [...result.posteriors.subarray(b * C, (b + 1) * C)],
        logits: [...result.logits.subarray(b * C, (b + 1) * C)],
        valence: result.valence[b] as number,
        attention,
        embedding: result.embedding.slice(b * H, (b + 1) * H),
      };
      if (![...prediction.posteriors, prediction.valence].every(Number.isFinite)) {
        throw new AffuseError(
          "ERR_AFFUSE_NONFINITE",
          `the prediction for clip ${prediction.name} is not finite.`,
          "The model's weights are damaged or its training diverged.",
        );
      }
      out[i] = prediction;
    }
  }
  return out;
}

const predictionsSchema = z.strictObject({
  format: z.literal("affuse-predictions-1"),
  classes: z.array(z.string()).min(2),
  clips: z.array(
    z.strictObject({
      name: z.string(),
      /** Which part of the fold: "test", "validation", or a split's name. */
      part: z.string(),
      posteriors: z.array(z.number()),
      logits: z.array(z.number()),
      valence: z.number(),
    }),
  ),
});

/** Contents of predictions.json: class names travel with the numbers, clips are found by name. */
export type Predictions = z.output<typeof predictionsSchema>;

/**
 * Writes `<base>.json` (complete) and `<base>.csv` (name, part, emotion, valence, one posterior column per
 * class).
 */
export function writePredictions(
  base: string,
  classes: readonly string[],
  clips: readonly (ClipPrediction & { part: string })[],
): void {
  const value: Predictions = {
    format: "affuse-predictions-1",
    classes: [...classes],
    clips: clips.map(({ name, part, posteriors, logits, valence }) => ({
      name,
      part,
      posteriors,
      logits,
      valence,
    })),
  };
  writeJson(`${base}.json`, value, "the predictions");
  const rows = value.clips.map(({ name, part, posteriors, valence }) => [
    name,
    part,
    classes[argmax(posteriors)] as string,
    valence.toFixed(6),
    ...posteriors.map((p) => p.toFixed(6)),
  ]);
  writeFileAtomic(
    `${base}.csv`,
    formatCsv(["name", "part", "discrete", "valence", ...classes.map((c) => `p:${c}`)], rows),
    "the predictions",
  );
}

/** @throws ERR_AFFUSE_FORMAT, ERR_AFFUSE_NOT_FOUND */
export function readPredictions(file: string): Predictions {
  const parsed = predictionsSchema.safeParse(readJson(file));
  const bad = (what: string) =>
    new AffuseError("ERR_AFFUSE_FORMAT", `${file} is not a predictions file: ${what}.`);
  if (!parsed.success)
    throw bad(`${parsed.error.issues[0]?.path.join(".")}: ${parsed.error.issues[0]?.message}`);
  const { classes, clips } = parsed.data;
  if (new Set(classes).size !== classes.length) throw bad("a class is named twice");
  const wrong = clips.find(
    (clip) => clip.posteriors.length !== classes.length || clip.logits.length !== classes.length,
  );
  if (wrong)
    throw bad(`clip ${wrong.name} has ${wrong.posteriors.length} posteriors for ${classes.length} classes`);
  return parsed.data;
}
