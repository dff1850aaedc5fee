/**
 * Learning rate and order of the clips, as functions of seed and epoch alone: nothing has to be replayed on
 * resuming.
 */
import type { FeatureSource } from "../data/features.ts";
import { Random } from "../data/random.ts";
import type { TrainConfig } from "./config.ts";

/** Learning rate of an epoch (from 0): linear warm-up, then × decay every `decayEvery` epochs. */
export function learningRate(
  train: Pick<TrainConfig["train"], "lr" | "warmup" | "decay" | "decayEvery">,
  epoch: number,
): number {
  if (epoch < train.warmup) return (train.lr * (epoch + 1)) / train.warmup;
  let rate = train.lr;
  // Repeated multiplication rather than Math.pow, whose last bit engines may choose.
  for (let n = Math.floor((epoch - train.warmup) / train.decayEvery); n > 0; n--) rate *= train.decay;
  return rate;
}

/** Frames of a clip's longest stream. */
export function longest(features: FeatureSource, clip: string): number {
  return Math.max(0, ...features.streams.map((_, s) => features.length(clip, s)));
}

/**
 * Batches per pool: clips are sorted by length inside a pool, so batches are nearly even in length and still
 * vary.
 */
const POOL = 8;

/**
 * Clips of one epoch in batches. Shuffled; pools of 8 batches sorted by length, cut into batches, and the
 * batches shuffled, so that little of a batch is padding. Every clip occurs once; only one batch is smaller
 * than `size`.
 */
export function epochBatches(
  features: FeatureSource,
  clips: readonly string[],
  size: number,
  seed: number,
  epoch: number,
): string[][] {
  const random = new Random(seed, `order of epoch ${epoch}`);
  const order = random.shuffle([...clips]);
  const batches: string[][] = [];
  for (let at = 0; at < order.length; at += POOL * size) {
    const pool = order.slice(at, at + POOL * size);
    const lengths = new Map(pool.map((clip) => [clip, longest(features, clip)]));
    // stable: ties keep the shuffled order
    pool.sort((a, b) => (lengths.get(a) as number) - (lengths.get(b) as number));
    for (let i = 0; i < pool.length; i += size) batches.push(pool.slice(i, i + size));
  }
  return random.shuffle(batches);
}
