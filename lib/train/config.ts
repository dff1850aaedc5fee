/** The training configuration: YAML or flags, checked by a schema, stored in every run. */
import path from "node:path";
import { stringify } from "yaml";
import { z } from "zod";
import { readYaml } from "../data/yaml.ts";
import { AffuseError } from "../errors.ts";
import { PRECISIONS } from "../graph/precision.ts";
import { modelConfigSchema } from "../models/config.ts";

const structure = modelConfigSchema.shape.structure;

export const trainConfigSchema = z.strictObject({
  /** Folder with labels and features; relative paths are relative to the configuration file. */
  data: z.string().min(1),
  /** Folder of the stream folders; null: `data`, or `data`/features. */
  features: z.string().min(1).nullable().default(null),
  /** Label file or folder; null: `data`. */
  labels: z.string().min(1).nullable().default(null),
  /** Class names in order; null: MER 2023's six; "auto": those that occur, alphabetically. */
  classes: z
    .union([z.array(z.string().min(1)).min(2), z.literal("auto")])
    .nullable()
    .default(null),
  /** Split whose clips are trained and cross-validated on. Other splits are never touched by training. */
  split: z.string().min(1).default("train"),
  /** Streams to use, by name; null: every one that is found. */
  streams: z.array(z.string().min(1)).min(1).nullable().default(null),
  /** Stream name → modality, where neither manifest nor name tells. */
  modalities: z.record(z.string(), z.string().min(1)).default({}),
  /** Structures to train, one after another, on the same folds. */
  structures: z.array(structure).min(1).default(["concat"]),
  /** Model options (spec 1.2, 1.4, 1.5, 2.1) for every structure. */
  model: modelConfigSchema.omit({ structure: true, seed: true }).prefault({}),
  train: z
    .strictObject({
      epochs: z.int().min(1).max(100_000).default(100),
      batchSize: z.int().min(1).max(65_536).default(32),
      /** Learning rate after the warm-up. */
      lr: z.number().positive().default(1e-3),
      /** Epochs of linear warm-up: epoch e (from 0) has lr·(e+1)/warmup. */
      warmup: z.int().min(0).default(5),
      /** Factor applied every `decayEvery` epochs after the warm-up. */
      decay: z.number().positive().max(1).default(0.9),
      decayEvery: z.int().min(1).default(2),
      /** Stop after this many epochs without a better validation metric; null: never. */
      patience: z.int().min(1).nullable().default(20),
      /**
       * What chooses the epoch, on the validation part; auto: the MER metric when there is valence, else
       * weighted F1.
       */
      metric: z.enum(["auto", "merMetric", "f1Weighted", "wa", "ua"]).default("auto"),
      /** balanced: every class weighs n/(C·n_c), from the training part. */
      classWeights: z.enum(["none", "balanced"]).default("none"),
      /** Features are centred and scaled with the training part's statistics. */
      standardize: z.boolean().default(true),
      /** Number of folds; 1: one model, no held-out fold (validation still apart). */
      folds: z.int().min(1).max(1000).default(5),
      /** "clip", or a label column that folds must not tear apart (session, speaker, …). */
      foldsBy: z.string().min(1).default("clip"),
      /** Share of each fold's training part that validates. */
      validation: z.number().gt(0).lt(1).default(0.15),
      seed: z.int().min(0).max(Number.MAX_SAFE_INTEGER).default(0),
      /**
       * bf16: operands of matrix products are rounded to bf16; weights, sums, gradients and the optimiser stay
       * float32.
       */
      precision: z.enum(PRECISIONS).default("f32"),
    })
    .prefault({}),
  /** Things that change no result. */
  run: z
    .strictObject({
      device: z.string().min(1).default("cpu"),
      /** null: as many as the runtime chooses. */
      threads: z.int().min(1).max(1024).nullable().default(null),
      /** Also save a checkpoint every so many steps; 0: only after each epoch. */
      checkpointSteps: z.int().min(0).default(0),
      /** Features kept in memory, MiB. */
      cacheMiB: z.int().min(1).default(256),
    })
    .prefault({}),
});

/** Complete: every default filled in. */
export type TrainConfig = z.output<typeof trainConfigSchema>;
/** What a user writes: only `data` is required. */
export type TrainConfigInput = z.input<typeof trainConfigSchema>;

/** Fills in the defaults. @throws ERR_AFFUSE_CONFIG naming every wrong key */
export function parseTrainConfig(value: unknown): TrainConfig {
  const parsed = trainConfigSchema.safeParse(value);
  if (parsed.success) return parsed.data;
  const problems = parsed.error.issues.map((issue) =>
    issue.code === "unrecognized_keys"
      ? `unknown key ${issue.keys.map((key) => [...issue.path, key].join(".")).join(", ")}`
      : `${issue.path.join(".") || "(top level)"}: ${issue.message}`,
  );
  throw new AffuseError(
    "ERR_AFFUSE_CONFIG",
    `the training configuration has problems: ${problems.join("; ")}.`,
    "Correct these keys; unknown keys are refused.",
  );
}

/**
 * Reads a YAML configuration; relative paths become relative to its folder.
 * @throws ERR_AFFUSE_CONFIG, ERR_AFFUSE_NOT_FOUND
 */
export function readTrainConfig(file: string): TrainConfig {
  const config = readYaml(file, trainConfigSchema);
  const from = (value: string) => path.resolve(path.dirname(file), value);
  return {
    ...config,
    data: from(config.data),
    features: config.features === null ? null : from(config.features),
    labels: config.labels === null ? null : from(config.labels),
  };
}

/** The resolved configuration as YAML. */
export function formatTrainConfig(config: TrainConfig): string {
  return `# Written by affuse train: the complete configuration of this run.\n${stringify(config)}`;
}

/** Paths of the keys in which two plain values differ, e.g. ["train.lr"]. */
export function differences(a: unknown, b: unknown, at = ""): string[] {
  if (Object.is(a, b)) return [];
  const isObject = (x: unknown): x is Record<string, unknown> => typeof x === "object" && x !== null;
  if (!isObject(a) || !isObject(b) || Array.isArray(a) !== Array.isArray(b)) return [at || "(all)"];
  const keys = [...new Set([...Object.keys(a), ...Object.keys(b)])];
  return keys.flatMap((key) => differences(a[key], b[key], at ? `${at}.${key}` : key));
}
