/**
 * From labels and features to batches: matching by name, standardisation with training statistics,
 * assembling.
 */
import { AffuseError } from "../errors.ts";
import { bucket } from "../models/bucket.ts";
import type { Batch, StreamBatch } from "../models/types.ts";
import { allocateFrames } from "../native/frames.ts";
import type { FeatureSource } from "./features.ts";
import type { ClipLabel } from "./labels.ts";

/**
 * What did and did not fit together; policy: both are reported and left out, missing single streams are fine.
 */
export interface Match {
  /** Labelled clips with at least one stream, sorted by name. */
  clips: ClipLabel[];
  /** Labels without any feature file: left out. */
  withoutFeatures: string[];
  /** Features without a label: left out. */
  withoutLabel: string[];
  /** Stream name → clips that lack this stream but have another: kept, the stream counts as missing. */
  lacking: Record<string, string[]>;
}

/** @throws ERR_AFFUSE_NOT_FOUND when no label has features */
export function matchClips(labels: readonly ClipLabel[], features: FeatureSource): Match {
  const labelled = new Set(labels.map((label) => label.name));
  const clips: ClipLabel[] = [];
  const withoutFeatures: string[] = [];
  const lacking: Record<string, string[]> = Object.fromEntries(
    features.streams.map(({ name }) => [name, []]),
  );
  for (const label of [...labels].sort((a, b) => (a.name < b.name ? -1 : 1))) {
    const missing = features.streams.filter((_, s) => features.length(label.name, s) === 0);
    if (missing.length === features.streams.length) withoutFeatures.push(label.name);
    else {
      clips.push(label);
      for (const { name } of missing) lacking[name]?.push(label.name);
    }
  }
  if (clips.length === 0 && labels.length > 0) {
    throw new AffuseError(
      "ERR_AFFUSE_NOT_FOUND",
      `none of the ${labels.length} labelled clips has features (first: ${labels[0]?.name}).`,
      "File stems must equal the clip names exactly.",
    );
  }
  return {
    clips,
    withoutFeatures,
    withoutLabel: features.clips.filter((clip) => !labelled.has(clip)),
    lacking,
  };
}

/** Sentences for a person about a match; empty when everything fitted. */
export function describeMatch(match: Match): string[] {
  const some = (names: string[]) => `${names.slice(0, 5).join(", ")}${names.length > 5 ? ", …" : ""}`;
  const out: string[] = [];
  if (match.withoutFeatures.length)
    out.push(
      `${match.withoutFeatures.length} labelled clips have no features and are left out: ${some(match.withoutFeatures)}`,
    );
  if (match.withoutLabel.length)
    out.push(
      `${match.withoutLabel.length} clips have features but no label and are left out: ${some(match.withoutLabel)}`,
    );
  for (const [stream, names] of Object.entries(match.lacking)) {
    if (names.length)
      out.push(
        `${names.length} clips lack the stream ${stream}, which counts as missing there: ${some(names)}`,
      );
  }
  return out;
}

/** Mean and inverse deviation of every dimension of a stream, from training frames only. */
export interface Standardization {
  mean: Float32Array;
  /** 1/σ; 1 where a dimension is (nearly) constant. */
  scale: Float32Array;
}

/**
 * Statistics of the given clips (a training fold), every frame counting once; float64 sums around the first
 * frame, in clip order, one clip in memory at a time. Streams without any frame get mean 0, scale 1.
 */
export async function standardization(
  features: FeatureSource,
  clips: readonly string[],
): Promise<Standardization[]> {
  const out: Standardization[] = [];
  for (let s = 0; s < features.streams.length; s++) {
    const { dim } = features.streams[s] as { dim: number };
    let shift: Float32Array | null = null;
    const sum = new Float64Array(dim);
    const square = new Float64Array(dim);
    let count = 0;
    for (const clip of clips) {
      const data = await features.load(clip, s);
      if (!data) continue;
      shift ??= data.slice(0, dim);
      for (let at = 0; at < data.length; at += dim) {
        for (let d = 0; d < dim; d++) {
          const x = (data[at + d] as number) - (shift[d] as number);
          sum[d] = (sum[d] as number) + x;
          square[d] = (square[d] as number) + x * x;
        }
      }
      count += data.length / dim;
    }
    const mean = new Float32Array(dim);
    const scale = new Float32Array(dim).fill(1);
    for (let d = 0; shift && d < dim; d++) {
      const m = (sum[d] as number) / count;
      const base = shift[d] as number;
      mean[d] = base + m;
      const sd = Math.sqrt(Math.max(0, (square[d] as number) / count - m * m));
      // Below this a dimension is constant up to float32 rounding, and dividing would blow the rounding up.
      if (sd > 1e-6 * Math.max(1e-6, Math.abs(base + m))) scale[d] = 1 / sd;
    }
    out.push({ mean, scale });
  }
  return out;
}

export interface BatchOptions {
  /** Per stream of the source, in its order. Absent: features as they are. */
  standardization?: readonly Standardization[];
  /** Class indices (−1 missing) and valences (NaN missing) of the clips; absent: an unlabelled batch. */
  labels?: readonly Pick<ClipLabel, "emotion" | "valence">[];
  /** Streams by name that the model uses. Default: all. */
  streams?: readonly string[];
}

/**
 * out[at + i] = (frames[i] − mean) · scale, by dimension. A function of its own: inside the async one the
 * same loop took twice the time.
 */
function standardize(
  frames: Float32Array,
  { mean, scale }: Standardization,
  out: Float32Array,
  at: number,
): void {
  const dim = mean.length;
  for (let i = 0; i < frames.length; i += dim) {
    for (let d = 0; d < dim; d++) {
      out[at + i + d] = ((frames[i + d] as number) - (mean[d] as number)) * (scale[d] as number);
    }
  }
}

/**
 * A source whose features come standardised. Keeps what it has standardised up to a bound, because training asks for every
 * clip once an epoch and copying is several times as fast as computing; beyond the bound clips are computed each time.
 */
export class StandardizedFeatures implements FeatureSource {
  readonly #source: FeatureSource;
  readonly #stats: readonly Standardization[];
  readonly #kept = new Map<string, Float32Array>();
  #room: number;

  /** @param stats per stream of the source, in its order @param cacheBytes most bytes to keep */
  constructor(source: FeatureSource, stats: readonly Standardization[], cacheBytes: number) {
    this.#source = source;
    this.#stats = stats;
    this.#room = cacheBytes;
  }

  get streams() {
    return this.#source.streams;
  }

  get clips() {
    return this.#source.clips;
  }

  length(clip: string, stream: number): number {
    return this.#source.length(clip, stream);
  }

  async load(clip: string, stream: number): Promise<Float32Array | null> {
    const key = `${stream} ${clip}`;
    const kept = this.#kept.get(key);
    if (kept) return kept;
    const frames = await this.#source.load(clip, stream);
    if (!frames) return null;
    const out = new Float32Array(frames.length);
    standardize(frames, this.#stats[stream] as Standardization, out, 0);
    if (out.byteLength <= this.#room && !this.#kept.has(key)) {
      this.#room -= out.byteLength;
      this.#kept.set(key, out);
    }
    return out;
  }
}

/** Loads clips into one padded batch; each stream is padded to the bucket of its own longest clip. */
export async function assembleBatch(
  features: FeatureSource,
  clips: readonly string[],
  options: BatchOptions = {},
): Promise<Batch> {
  const { standardization: stats, labels } = options;
  const streams: Record<string, StreamBatch> = {};
  for (let s = 0; s < features.streams.length; s++) {
    const { name, dim } = features.streams[s] as { name: string; dim: number };
    if (options.streams && !options.streams.includes(name)) continue;
    const T = bucket(Math.max(0, ...clips.map((clip) => features.length(clip, s))));
    const data = allocateFrames(clips.length * T * dim); // the model reads it in place
    const lengths = new Int32Array(clips.length);
    const presence = new Float32Array(clips.length);
    for (let b = 0; b < clips.length; b++) {
      const frames = await features.load(clips[b] as string, s);
      if (!frames) continue;
      lengths[b] = frames.length / dim;
      presence[b] = 1;
      const at = b * T * dim;
      const stat = stats?.[s];
      if (stat) standardize(frames, stat, data, at);
      else data.set(frames, at);
    }
    streams[name] = { data, lengths, T, presence };
  }
  return {
    size: clips.length,
    streams,
    ...(labels && {
      labels: Int32Array.from(labels, (label) => label.emotion),
      valence: Float32Array.from(labels, (label) => label.valence),
    }),
  };
}
