/** What training one fold takes, tells while it runs, and gives. */
import type { FeatureSource } from "../data/features.ts";
import type { Fold } from "../data/folds.ts";
import type { ClipLabel } from "../data/labels.ts";
import type { ModelConfigInput, Structure } from "../models/config.ts";
import type { Model, StreamSpec } from "../models/types.ts";
import type { TrainConfig } from "./config.ts";
import type { ClipPrediction } from "./predict.ts";

export type ModelFactory = (
  config: ModelConfigInput,
  streams: readonly StreamSpec[],
  classes: readonly string[],
) => Model;

/** What happens while training; for progress bars and logs. */
export type TrainEvent =
  | {
      type: "fold";
      structure: Structure;
      fold: number;
      folds: number;
      epochs: number;
      steps: number;
      /** Epochs that were done before; null: a training that begins. */
      resumedAt: number | null;
      /** Nothing is left to train: predictions are made again from what was saved. */
      finished: boolean;
    }
  | {
      type: "step";
      structure: Structure;
      fold: number;
      epoch: number;
      batch: number;
      batches: number;
      loss: number;
    }
  | { type: "epoch"; structure: Structure; fold: number; record: EpochRecord; best: boolean }
  | { type: "done"; structure: Structure; fold: number; bestEpoch: number; metric: string; value: number };

/** One line of history.jsonl. Losses are raw batch means over the epoch, weighted by batch size. */
export interface EpochRecord {
  epoch: number;
  step: number;
  lr: number;
  /** The optimised objective; may be negative, chooses nothing. */
  loss: number;
  ce: number;
  mse: number;
  /** σ = exp(s/2) of the two tasks after the epoch, and the losses' weights e^{−s}. */
  sigmaEmotion: number;
  sigmaValence: number;
  weightEmotion: number;
  weightValence: number;
  gradNorm: number;
  /** On the validation part. */
  validation: {
    metric: number | null;
    wa: number;
    ua: number;
    f1Weighted: number;
    mse: number | null;
    merMetric: number | null;
  };
}

export interface FoldJob {
  createModel: ModelFactory;
  features: FeatureSource;
  /** Labels of every clip of the fold. */
  labels: ReadonlyMap<string, ClipLabel>;
  classes: readonly string[];
  fold: Fold;
  index: number;
  folds: number;
  structure: Structure;
  config: TrainConfig;
  /** RUN/<structure>/fold<k>. */
  folder: string;
  /** Package version. */
  version: string;
  /** Continue from last.safetensors if it is there. */
  resume: boolean;
  signal?: AbortSignal;
  onEvent?: (event: TrainEvent) => void;
}

export interface FoldResult {
  bestEpoch: number;
  metric: string;
  value: number;
  epochs: number;
  /** Predictions of the best weights for the validation and the test part. */
  predictions: (ClipPrediction & { part: "validation" | "test" })[];
}
