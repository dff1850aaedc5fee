import type { Random } from "../../lib/data/random.ts";
import { interpret } from "../../lib/graph/interpret.ts";
import { type Parameter, ParameterStore, type Role } from "../../lib/graph/parameters.ts";
import type { Value } from "../../lib/graph/value.ts";
import { type ModelConfigInput, parseModelConfig } from "../../lib/models/config.ts";
import { buildModelGraph, type ModelGraph, type ModelMode } from "../../lib/models/model.ts";
import { Presence } from "../../lib/models/presence.ts";
import { usedStreams } from "../../lib/models/structures.ts";
import type { Batch, StreamBatch, StreamSpec } from "../../lib/models/types.ts";
import type { NativeAddon, TypedArray } from "../../lib/native/addon.ts";

export const classes = ["neutral", "angry", "happy"];

export const streams: StreamSpec[] = [
  { name: "voice", modality: "audio", dim: 5 },
  { name: "prosody", modality: "audio", dim: 3 },
  { name: "face", modality: "visual", dim: 4 },
];

export const structures = ["concat", "weighted", "hierarchical", "gfbp", "audio", "visual"] as const;

export function tinyConfig(
  structure: (typeof structures)[number],
  extra: Partial<ModelConfigInput> = {},
): ModelConfigInput {
  return {
    structure,
    seed: 5,
    attention: { dim: 6 },
    mlp: { widths: [7, 6], dropout: 0.3 },
    fbp: { k: 3, outputs: 5, dropout: 0.1 },
    ...extra,
  };
}

/**
 * Clips of random frames. Padding rows hold NaN. `absent(b, stream)` clips lack the stream. Every third label and every
 * fourth valence is missing.
 */
export function makeBatch(
  random: Random,
  size: number,
  frames: Readonly<Record<string, number>>,
  absent: (b: number, stream: StreamSpec) => boolean = () => false,
  specs: readonly StreamSpec[] = streams,
): Batch {
  const made: Record<string, StreamBatch> = {};
  for (const spec of specs) {
    const T = frames[spec.name] as number;
    const data = new Float32Array(size * T * spec.dim).fill(Number.NaN);
    const lengths = new Int32Array(size);
    const presence = new Float32Array(size);
    for (let b = 0; b < size; b++) {
      if (absent(b, spec)) continue;
      presence[b] = 1;
      const length = b === 0 ? T : 1 + random.integer(T);
      lengths[b] = length;
      for (let i = 0; i < length * spec.dim; i++) data[b * T * spec.dim + i] = random.normal();
    }
    made[spec.name] = { data, lengths, T, presence };
  }
  const labels = Int32Array.from({ length: size }, (_, b) =>
    b % 3 === 2 ? -1 : random.integer(classes.length),
  );
  const valence = Float32Array.from({ length: size }, (_, b) => (b % 4 === 3 ? Number.NaN : random.normal()));
  return { size, streams: made, labels, valence };
}

/** The feeds of a model's graph for a batch. */
export function feedsOf(
  batch: Batch,
  used: readonly StreamSpec[],
  names: readonly string[],
): Record<string, TypedArray> {
  const presence = new Presence(used, batch);
  const feeds: Record<string, TypedArray> = {};
  for (const name of names) {
    const of = name.slice(name.indexOf(":") + 1);
    if (name === "labels") feeds[name] = batch.labels as Int32Array;
    else if (name === "valence") feeds[name] = batch.valence as Float32Array;
    else if (name.startsWith("x:")) feeds[name] = batch.streams[of]?.data as Float32Array;
    else if (name.startsWith("lengths:"))
      feeds[name] = presence.lengths(of, batch.streams[of]?.lengths as Int32Array);
    else feeds[name] = presence.feed(name);
  }
  return feeds;
}

export interface Fixture extends ModelGraph {
  store: ParameterStore;
  feeds: Record<string, TypedArray>;
  used: StreamSpec[];
}

/** A model's graph with its parameters and the feeds of one batch. */
export function fixture(
  addon: NativeAddon,
  config: ModelConfigInput,
  batch: Batch,
  mode: ModelMode,
): Fixture {
  const parsed = parseModelConfig(config);
  const used = usedStreams(parsed, streams);
  const store = new ParameterStore(addon, parsed.seed);
  const frames = Object.fromEntries(used.map(({ name }) => [name, batch.streams[name]?.T as number]));
  const built = buildModelGraph(
    addon,
    store,
    parsed,
    used,
    classes.length,
    { batch: batch.size, frames },
    mode,
  );
  store.layout();
  const names = built.graph.values.flatMap(({ source }) => (source.kind === "input" ? [source.name] : []));
  return { ...built, store, used, feeds: feedsOf(batch, used, names) };
}

/** Contents of a stored value: a parameter (or its part of another flat buffer), from the store. */
export function storedFrom(store: ParameterStore): (value: Value) => TypedArray {
  return ({ source }) => {
    if (source.kind !== "stored") throw new Error("not a stored value");
    return store.get((source.place as Parameter).name, source.storage.name as Role).data;
  };
}

/** Evaluates values in float64 on the reference device, some stored values replaced by given data (by parameter name). */
export function reference(
  addon: NativeAddon,
  { graph, store, feeds }: Fixture,
  wanted: readonly Value[],
  replaced: Readonly<Record<string, Float64Array>> = {},
  scalars: Record<string, number> = { step: 3, lr: 1e-3 },
): Float64Array[] {
  const stored = storedFrom(store);
  return interpret(addon, graph, wanted, {
    feeds,
    scalars,
    stored: (value) => {
      const name = value.source.kind === "stored" ? (value.source.place as Parameter).name : "";
      return replaced[name] ?? stored(value);
    },
  }) as Float64Array[];
}

/** Largest |a − b|; NaN counts as infinite. */
export function distance(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) return Number.POSITIVE_INFINITY;
  let largest = 0;
  for (let i = 0; i < a.length; i++) {
    const difference = Math.abs((a[i] as number) - (b[i] as number));
    largest = Number.isNaN(difference) ? Number.POSITIVE_INFINITY : Math.max(largest, difference);
  }
  return largest;
}

/** Frames per clip of toyBatch. */
export const toyFrames = { voice: 16, prosody: 8, face: 24 };

/** Clips whose class and valence are written into the frames of every stream. */
export function toyBatch(random: Random, size: number): Batch {
  const batch = makeBatch(random, size, toyFrames);
  const labels = Int32Array.from({ length: size }, () => random.integer(classes.length));
  for (const { name, dim } of streams) {
    const stream = batch.streams[name];
    if (!stream) continue;
    labels.forEach((label, b) => {
      for (let t = 0; t < (stream.lengths[b] as number); t++) {
        const at = (b * stream.T + t) * dim + label;
        stream.data[at] = (stream.data[at] as number) + 2;
      }
    });
  }
  return { ...batch, labels, valence: Float32Array.from(labels, (label) => label - 1) };
}
