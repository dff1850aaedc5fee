import type { Precision } from "../graph/compile.ts";
import type { ModelConfig } from "./config.ts";

/** One feature stream of a clip: a sequence of vectors from one extractor. */
export interface StreamSpec {
  /** Unique, e.g. "hubert-large". */
  name: string;
  /** "audio", "visual", "text", … */
  modality: string;
  /** Width D of a frame's vector. */
  dim: number;
}

/** One stream of a batch. */
export interface StreamBatch {
  /**
   * [B,T,D], row-major. Rows t >= lengths[b] are padding: any value, NaN included. Made by the addon's allocate() it is read
   * in place and must not change before the step is done; any other array is copied.
   */
  data: Float32Array;
  /** [B], 0 … T; 0 where the clip lacks the stream. */
  lengths: Int32Array;
  /** Padded length; `bucket(longest)` keeps the number of compiled programs small. May differ per stream. */
  T: number;
  /** [B], 1 where the clip has the stream, 0 where it lacks it. Length 0 counts as absent whatever stands here. */
  presence: Float32Array;
}

/** A batch of B clips. Every stream of the model must be given (absent ones with length and presence 0). */
export interface Batch {
  /** B >= 1. */
  size: number;
  streams: Readonly<Record<string, StreamBatch>>;
  /** [B], class index or −1 for missing. Absent: no clip has a label. */
  labels?: Int32Array;
  /** [B], raw valence or NaN for missing. Absent: no clip has a valence. */
  valence?: Float32Array;
}

export interface StepOptions {
  /** Learning rate of this step. */
  lr: number;
  /** Counts optimiser steps from 1; it also selects the dropout masks, so a resumed run passes the next number. */
  step: number;
}

/** Scalars of one training step. Losses are of the batch before the update; sE, sV are after it. */
export interface StepResult {
  /** The optimised objective L (may be negative): for logs only, never for model selection (spec 1.5). */
  loss: number;
  /** Mean cross-entropy over the labelled clips, 0 if none. */
  ce: number;
  /** Mean squared valence error over the labelled clips, 0 if none. */
  mse: number;
  /** log σ² of the emotion task. */
  sE: number;
  /** log σ² of the valence task. */
  sV: number;
  /** 2-norm of the whole gradient before clipping. */
  gradNorm: number;
}

/** Outputs for a batch of B clips, row-major. */
export interface Inference {
  /** [B,C] */
  logits: Float32Array;
  /** [B,C], softmax of the logits. */
  posteriors: Float32Array;
  /** [B], raw scale, not clamped. */
  valence: Float32Array;
  /** [B,H], the vector h that both heads read. */
  embedding: Float32Array;
  /** Per stream of the model [B,T]: weight of each frame, summing to 1 over a present clip's frames, 0 in padding. */
  attention: Record<string, Float32Array>;
}

export interface NamedTensor {
  shape: number[];
  data: Float32Array;
}

/** Everything that training changes. Tensors are copies; names are stable across versions of the same config. */
export interface ModelState {
  /** Optimiser steps done. */
  step: number;
  parameters: Record<string, NamedTensor>;
  /** Adam's first moments by parameter name; when left out, loading sets them to zero. */
  m?: Record<string, NamedTensor>;
  /** Adam's second moments by parameter name. */
  v?: Record<string, NamedTensor>;
}

export interface ModelOptions {
  /** "cpu" by default. */
  device?: string;
  /** Of the operands of matrix products (graph.CompileOptions); "f32" by default. */
  precision?: Precision;
  /** Compiled programs are dropped, least recently used first, once their arenas exceed this. Default 256 MiB. */
  programCacheBytes?: number;
}

export interface Model {
  /** Complete configuration, as plain JSON. */
  readonly config: ModelConfig;
  /** Streams the structure really uses (the single-modality baselines ignore the others). */
  readonly streams: readonly StreamSpec[];
  readonly classes: readonly string[];
  /** Width H of the embedding. */
  readonly embeddingWidth: number;
  /** Number of learned values. */
  readonly parameterCount: number;
  /** Forward, backward and update in one native call. */
  trainStep(batch: Batch, options: StepOptions): Promise<StepResult>;
  /** Forward without dropout. Predictions do not depend on padding, bucket size or the other clips of the batch. */
  infer(batch: Batch): Promise<Inference>;
  /** Copies of parameters and optimiser state. Throws ERR_AFFUSE_BUSY while a step is running. */
  state(): ModelState;
  /** Replaces parameters (and optimiser state, when given). Every parameter must be present with its shape. */
  load(state: ModelState): void;
  /** Frees the native memory; later calls throw ERR_AFFUSE_DISPOSED. */
  dispose(): void;
}
