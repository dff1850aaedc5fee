/**
 * Checkpoints: `.safetensors` files with weights and, in the metadata, everything that says what the weights
 * are.
 *
 * Tensors: `parameters/<name>`, `standardization/<stream>/mean|scale`; a training checkpoint
 * (last.safetensors) also has `m/<name>`, `v/<name>` (Adam's moments) and `best/<name>` (weights of the best
 * epoch so far). Metadata: one key `affuse`, JSON, see CheckpointInfo.
 */
import { z } from "zod";
import type { Standardization } from "../data/dataset.ts";
import type { StreamInfo } from "../data/features.ts";
import { readSafetensors, type WritableTensor, writeSafetensors } from "../data/safetensors.ts";
import { AffuseError } from "../errors.ts";
import { type ModelConfig, modelConfigSchema } from "../models/config.ts";
import type { ModelState, NamedTensor } from "../models/types.ts";

const progressSchema = z.strictObject({
  /** Epoch that is running or comes next, from 0. */
  epoch: z.int().min(0),
  /** Batches of that epoch that are done. */
  batch: z.int().min(0),
  /** Optimiser steps done. */
  step: z.int().min(0),
  /** Nothing is left to do. */
  finished: z.boolean(),
  /** Epoch of the best validation metric so far; −1: none yet. */
  bestEpoch: z.int().min(-1),
  bestMetric: z.number().nullable(),
  /** Sums over the running epoch's batches. */
  sums: z.record(z.string(), z.number()),
  /** One record per finished epoch, as in history.jsonl. */
  history: z.array(z.record(z.string(), z.unknown())),
});

/** Where training stands: enough, with the tensors, to continue to the same bits. */
export type Progress = z.output<typeof progressSchema>;

const infoSchema = z.strictObject({
  format: z.literal("affuse-checkpoint-1"),
  /** Package version that wrote the file. */
  version: z.string(),
  classes: z.array(z.string()).min(2),
  /** Complete model configuration, structure and seed included. */
  config: modelConfigSchema,
  /** Streams of the data set in order, with their extractors' manifests. */
  streams: z
    .array(
      z.strictObject({ name: z.string(), modality: z.string(), dim: z.int().min(1), manifest: z.unknown() }),
    )
    .min(1),
  structure: z.string(),
  fold: z.int().min(0),
  /** The run's seed. */
  seed: z.int(),
  /** Name of the metric that chose the epoch, its value and the epoch (from 0). */
  metric: z.string(),
  metricValue: z.number().nullable(),
  epoch: z.int(),
  /** Digest of the data and settings that training may not change while it runs. */
  identity: z.record(z.string(), z.unknown()),
  progress: progressSchema.nullable(),
});

export type CheckpointInfo = Omit<z.output<typeof infoSchema>, "config" | "streams"> & {
  config: ModelConfig;
  streams: StreamInfo[];
};

export interface Checkpoint {
  info: CheckpointInfo;
  /** Weights to continue with (training checkpoint) or to predict with (model). */
  state: ModelState;
  /** Weights of the best epoch; null in a model file or before the first epoch. */
  best: Record<string, NamedTensor> | null;
  /** One per stream of `info.streams`; null: features are used as they are. */
  standardization: Standardization[] | null;
}

/**
 * Writes a checkpoint atomically.
 * @param durable false skips fsync, for files that are written again later
 * @throws ERR_AFFUSE_WRITE; the previous file then stays
 */
export function writeCheckpoint(
  file: string,
  { info, state, best, standardization }: Checkpoint,
  durable = true,
): void {
  const tensors: [string, WritableTensor][] = [];
  const add = (prefix: string, group: Record<string, NamedTensor> | null | undefined) => {
    for (const [name, tensor] of Object.entries(group ?? {})) tensors.push([`${prefix}/${name}`, tensor]);
  };
  add("parameters", state.parameters);
  add("m", state.m);
  add("v", state.v);
  add("best", best);
  for (const [s, { mean, scale }] of (standardization ?? []).entries()) {
    const name = info.streams[s]?.name;
    tensors.push([`standardization/${name}/mean`, { shape: [mean.length], data: mean }]);
    tensors.push([`standardization/${name}/scale`, { shape: [scale.length], data: scale }]);
  }
  writeSafetensors(file, tensors, { affuse: JSON.stringify(info) }, "the checkpoint", durable);
}

/** @throws ERR_AFFUSE_FORMAT not a checkpoint of ours or damaged, ERR_AFFUSE_NOT_FOUND */
export function readCheckpoint(file: string): Checkpoint {
  const { tensors, metadata } = readSafetensors(file);
  const bad = (what: string) =>
    new AffuseError(
      "ERR_AFFUSE_FORMAT",
      `${file} is not a usable checkpoint: ${what}.`,
      "Train again, or use another file.",
    );
  let json: unknown;
  try {
    json = JSON.parse(metadata.affuse ?? "null");
  } catch (error) {
    throw bad((error as Error).message);
  }
  const parsed = infoSchema.safeParse(json);
  if (!parsed.success)
    throw bad(`${parsed.error.issues[0]?.path.join(".")}: ${parsed.error.issues[0]?.message}`);
  const info = parsed.data as CheckpointInfo;
  const groups: Record<string, Record<string, NamedTensor>> = {
    parameters: {},
    m: {},
    v: {},
    best: {},
    standardization: {},
  };
  for (const [name, { shape, data }] of tensors) {
    const slash = name.indexOf("/");
    const group = Object.hasOwn(groups, name.slice(0, slash)) ? groups[name.slice(0, slash)] : undefined;
    if (!group || !(data instanceof Float32Array)) throw bad(`unexpected tensor ${name}`);
    Object.defineProperty(group, name.slice(slash + 1), {
      value: { shape, data },
      enumerable: true,
      configurable: true,
      writable: true,
    });
  }
  const { parameters = {}, m = {}, v = {}, best = {}, standardization = {} } = groups;
  let stats: Standardization[] | null = null;
  if (Object.keys(standardization).length > 0) {
    stats = info.streams.map(({ name, dim }) => {
      const mean = standardization[`${name}/mean`]?.data;
      const scale = standardization[`${name}/scale`]?.data;
      if (mean?.length !== dim || scale?.length !== dim)
        throw bad(`the statistics of stream ${name} are missing or of another width`);
      return { mean, scale };
    });
  }
  const some = (group: Record<string, NamedTensor>) => Object.keys(group).length > 0;
  return {
    info,
    state: { step: info.progress?.step ?? 0, parameters, ...(some(m) && { m }), ...(some(v) && { v }) },
    best: some(best) ? best : null,
    standardization: stats,
  };
}
