/** What can be profiled: a model on made-up or real batches, or one operator. Each runs step by step. */
import { existsSync, statSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { assembleBatch } from "../data/dataset.ts";
import { Random } from "../data/random.ts";
import { AffuseError } from "../errors.ts";
import { type Precision, PRECISIONS } from "../graph/precision.ts";
import type { Attributes, NativeAddon, OperatorInfo, TypedArray } from "../native/addon.ts";
import { type Batch, bucket, createModel, type ModelConfigInput, type StreamSpec } from "../models/index.ts";
import type { TrainFlags } from "../train/cli-config.ts";

export interface Subject {
  /** One line for people. */
  title: string;
  /** Of the operands of matrix products. */
  precision: Precision;
  /** One step or call; `index` counts from 1. */
  step(index: number): Promise<unknown>;
  dispose(): void;
}

export interface ModelSizes {
  /** Clips per batch. */
  batch: number;
  /** Frames of the longest clip. */
  frames: number;
  /** Streams, audio and visual in turn. */
  streams: number;
  /** Width of every stream. */
  dim: number;
  /** mixed: lengths from a third of `frames` to all; full: all. */
  lengths: "mixed" | "full";
  classes: number;
}

const LEARNING_RATE = 1e-3;

/** A model of this configuration on a made-up batch. @param train a whole training step, else inference */
export function syntheticSubject(
  config: ModelConfigInput,
  sizes: ModelSizes,
  train: boolean,
  precision: Precision = "f32",
): Subject {
  const streams: StreamSpec[] = Array.from({ length: sizes.streams }, (_, i) => ({
    name: `stream${i + 1}`,
    modality: i % 2 === 0 ? "audio" : "visual",
    dim: sizes.dim,
  }));
  const classes = Array.from({ length: sizes.classes }, (_, i) => `class${i + 1}`);
  const { batch, frames, streams: n, dim, lengths } = sizes;
  const title =
    `${train ? "training step" : "inference"}, ${config.structure}, batch ${batch}, ` +
    `streams ${n} x ${dim}, T = ${frames}${lengths === "mixed" ? ", mixed lengths" : ""}`;
  const batches = [syntheticBatch(streams, sizes)];
  return modelSubject(config, streams, classes, batches, train, title, precision);
}

function syntheticBatch(streams: readonly StreamSpec[], sizes: ModelSizes): Batch {
  const random = new Random(1, "profile");
  const { batch: size, frames } = sizes;
  const T = bucket(frames);
  requireRoom(4 * size * T * streams.reduce((sum, { dim }) => sum + dim, 0));
  const least = sizes.lengths === "full" ? frames : Math.max(1, Math.ceil(frames / 3));
  const one = ({ dim }: StreamSpec) => {
    const lengths = Int32Array.from({ length: size }, () => least + random.integer(frames - least + 1));
    lengths[0] = frames;
    const data = fitting(size * T * dim, (count) => new Float32Array(count));
    lengths.forEach((length, b) => {
      for (let i = 0; i < length * dim; i++) data[b * T * dim + i] = random.uniform(-1, 1);
    });
    return { data, lengths, T, presence: new Float32Array(size).fill(1) };
  };
  return {
    size,
    streams: Object.fromEntries(streams.map((stream) => [stream.name, one(stream)])),
    labels: Int32Array.from({ length: size }, () => random.integer(sizes.classes)),
    valence: Float32Array.from({ length: size }, () => random.uniform(-1, 1)),
  };
}

/**
 * More than there is would be filled for minutes before the system ends the process.
 * @throws AffuseError ERR_AFFUSE_MEMORY
 */
function requireRoom(bytes: number): void {
  const there = os.totalmem();
  if (bytes <= there) return;
  const gigabytes = (value: number) => `${(value / 1e9).toFixed(1)} GB`;
  throw new AffuseError(
    "ERR_AFFUSE_MEMORY",
    `expected made-up data that fits in this machine's ${gigabytes(there)}, got ${gigabytes(bytes)} (${bytes} bytes).`,
    "Choose smaller sizes.",
  );
}

/** @throws AffuseError ERR_AFFUSE_MEMORY where there is no room, or no array that long */
function fitting<T>(count: number, make: (count: number) => T): T {
  try {
    return make(count);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw new AffuseError(
      "ERR_AFFUSE_MEMORY",
      `expected made-up data that fits in memory, got a tensor of ${count} elements.`,
      "Choose smaller sizes.",
      { cause: error },
    );
  }
}

function modelSubject(
  config: ModelConfigInput,
  streams: readonly StreamSpec[],
  classes: readonly string[],
  batches: readonly Batch[],
  train: boolean,
  title: string,
  precision: Precision,
): Subject {
  const model = createModel(config, streams, classes, { precision });
  return {
    title: precision === "f32" ? title : `${title}, ${precision} operands`,
    precision,
    step: (index) => {
      const batch = batches[index % batches.length] as Batch;
      return train ? model.trainStep(batch, { lr: LEARNING_RATE, step: index }) : model.infer(batch);
    },
    dispose: () => model.dispose(),
  };
}

/**
 * A model on the first batches of real data.
 * @param source YAML configuration, run folder, or folder with labels and features
 * @param flags as for `affuse train`
 */
export async function dataSubject(
  source: string,
  flags: TrainFlags,
  train: boolean,
  batches: number,
): Promise<Subject> {
  const { loadTrainConfig } = await import("../train/cli-config.ts");
  const { loadData } = await import("../train/run.ts");
  const { epochBatches } = await import("../train/schedule.ts");
  if (!existsSync(source)) {
    const hint = "Name a configuration, a run, a folder with labels and features, or none for made-up data.";
    throw new AffuseError(
      "ERR_AFFUSE_NOT_FOUND",
      `expected data to profile on, got ${source}, which does not exist.`,
      hint,
    );
  }
  const run = path.join(source, "config.yaml");
  const file = existsSync(run) ? run : source;
  const config = loadTrainConfig(file, statSync(file).isDirectory(), flags);
  const { features, clips, labels } = loadData(config, config.split);
  const byName = new Map(clips.map((clip) => [clip.name, clip]));
  const order = epochBatches(features, [...byName.keys()], config.train.batchSize, config.train.seed, 0);
  const made: Batch[] = [];
  for (const names of order.slice(0, batches)) {
    const own = names.map((name) => byName.get(name) as (typeof clips)[number]);
    made.push(await assembleBatch(features, names, { labels: own }));
  }
  const structure = config.structures[0] as ModelConfigInput["structure"];
  const title =
    `${train ? "training step" : "inference"}, ${structure}, batches: ${made.length} of ` +
    `up to ${config.train.batchSize} clips from ${source}`;
  const model: ModelConfigInput = { ...config.model, structure, seed: config.train.seed };
  const { precision } = config.train;
  return modelSubject(model, features.streams, labels.classes, made, train, title, precision);
}

/**
 * One operator on made-up inputs, as a program of one instruction.
 * @param sizes values of the letters in the operator's shapes ("B", "T" …); a letter without one has 64
 * @param optional names of optional inputs to give and optional outputs to make
 */
export function operatorSubject(
  addon: NativeAddon,
  info: OperatorInfo,
  sizes: Readonly<Record<string, number>>,
  attributes: Attributes,
  optional: readonly string[],
): Subject {
  const known = new Set([...info.inputs, ...info.outputs].map(({ name }) => name));
  const stranger = optional.find((name) => !known.has(name));
  if (stranger !== undefined) {
    throw new AffuseError("ERR_AFFUSE_NAME", `expected --with tensors of ${info.name}, got "${stranger}".`);
  }
  const letters = new Set(info.inputs.flatMap(({ shape }) => shape.match(/[A-Za-z]+\d*/g) ?? []));
  const unknown = Object.keys(sizes).find((letter) => !letters.has(letter) && letter !== "N");
  if (unknown !== undefined) {
    const list = [...letters].join(", ") || "N, for a shape [...]";
    throw new AffuseError(
      "ERR_AFFUSE_NAME",
      `expected --size for the letters of ${info.name} (${list}), got ${unknown}.`,
    );
  }
  const shapes = info.inputs.map((rule) =>
    rule.optional && !optional.includes(rule.name)
      ? null
      : { dtype: rule.dtype, shape: shapeOf(rule.shape, sizes, attributes) },
  );
  const descs = addon.infer(info.name, shapes, attributes); // refuses what cannot be before anything is filled
  requireRoom(shapes.reduce((sum, desc) => sum + (desc ? desc.shape.reduce((a, b) => a * b, 4) : 0), 0));
  const random = new Random(1, `profile ${info.name}`);
  const inputs = info.inputs.map((rule, i) => {
    const desc = shapes[i];
    if (!desc) return null;
    const { shape } = desc;
    const count = shape.reduce((product, dim) => product * dim, 1);
    const data: TypedArray = fitting(count, (length) =>
      rule.dtype === "i32" ? new Int32Array(length) : new Float32Array(length),
    );
    const most = rule.name === "lengths" ? (sizes.T ?? DEFAULT_SIZE) : 1;
    for (let e = 0; e < count; e++) {
      if (rule.dtype === "i32") data[e] = rule.name === "labels" ? 0 : most;
      else data[e] = rule.name === "v" ? random.uniform(0, 1) : random.uniform(-1, 1);
    }
    return { dtype: rule.dtype, shape, data };
  });
  const wanted = descs.map((desc, i) => {
    const rule = info.outputs[i];
    return desc && (!rule?.optional || optional.includes(rule.name)) ? desc : null;
  });
  let arenaBytes = 0;
  const values: { dtype: "f32" | "i32" | "f64"; shape: readonly number[]; buffer: number; offset: number }[] =
    [];
  const place = (desc: { dtype: "f32" | "i32" | "f64"; shape: readonly number[] } | null) => {
    if (!desc) return -1;
    const bytes = desc.shape.reduce((product, dim) => product * dim, desc.dtype === "f64" ? 8 : 4);
    values.push({ dtype: desc.dtype, shape: desc.shape, buffer: -1, offset: arenaBytes });
    arenaBytes += Math.ceil(bytes / 64) * 64;
    return values.length - 1;
  };
  const given = inputs.map(place);
  const made = wanted.map(place);
  const program = addon.createProgram({
    device: "cpu",
    arenaBytes,
    buffers: [],
    values,
    instructions: [{ op: info.name, inputs: given, outputs: made, attributes }],
    feeds: given.filter((value) => value >= 0),
    fetches: [],
    scalars: 0,
  });
  const feeds = inputs.flatMap((input) => (input ? [input.data] : []));
  return {
    title: `operator ${info.name}`,
    precision: PRECISIONS.find((name) => name === attributes.precision) ?? "f32",
    step: () => program.run(feeds, []),
    dispose: () => program.dispose(),
  };
}

const DEFAULT_SIZE = 64;

/** "[B,o*k]" with B = 2, o = 3, k = 4 → [2, 12]; "[...]" → [N]. */
function shapeOf(text: string, sizes: Readonly<Record<string, number>>, attributes: Attributes): number[] {
  const inner = text.replace(/^\[|\]$/g, "");
  if (inner === "") return [];
  return inner.split(",").map((dimension) =>
    dimension
      .split(/[*·]/)
      .map((factor) => factorOf(factor.trim(), sizes, attributes))
      .reduce((product, factor) => product * factor, 1),
  );
}

function factorOf(factor: string, sizes: Readonly<Record<string, number>>, attributes: Attributes): number {
  if (/^\d+$/.test(factor)) return Number(factor);
  if (factor === "...") return sizes.N ?? DEFAULT_SIZE;
  return (
    sizes[factor] ?? (typeof attributes[factor] === "number" ? (attributes[factor] as number) : DEFAULT_SIZE)
  );
}
