/**
 * What a report shows. Everything but `title`, `classes` and `systems` may be left out, and so may any part of a part
 * that is marked optional; numbers that are NaN, infinite or null (as JSON has it) are shown as "–". The report takes
 * nothing else into account: no clock, no machine, so that the same data give the same file.
 */
import type { Evaluation } from "../metrics/evaluate.ts";

export interface ReportData {
  title: string;
  /** One sentence below the title. */
  subtitle?: string;
  /** Label → value, shown at the end in this order: seed, versions, data, settings. */
  provenance?: Readonly<Record<string, string | number | boolean>>;
  /** Class names in the order of every vector and matrix here. */
  classes: readonly string[];
  /** What was tested on. */
  testSet?: { name: string; clips: number };
  /** Best single system last is usual; the order is kept. */
  systems: readonly SystemReport[];
  /** Best possible accuracy (0 … 1) and valence MSE from one modality or both, where known. */
  ceilings?: Readonly<Partial<Record<"audio" | "visual" | "fused", { accuracy: number; mse?: number }>>>;
  curves?: readonly LearningCurve[];
  /** Mean attention of expressive frames over that of resting ones, per stream. */
  attentionRatio?: Readonly<Record<string, number>>;
  clips?: readonly ClipReport[];
  /** Remarks, one paragraph each. */
  notes?: readonly string[];
}

export interface SystemReport {
  /** "audio", "visual", "concat", … ; unique. */
  name: string;
  /** For people; default the name. */
  label?: string;
  /** Decides colour and ceiling: a unimodal system's is its own modality's, every other's that of both. */
  kind: "audio" | "visual" | "fusion" | "ensemble";
  evaluation: Evaluation;
}

/** One training run's course. */
export interface LearningCurve {
  /** Name of the system. */
  system: string;
  /** "fold 1" or whatever tells runs of a system apart. */
  run: string;
  /** By epoch; `loss` of training, `metric` on the inner validation set. */
  epochs: readonly { epoch: number; loss?: number | null; metric?: number | null }[];
  /** What `metric` is, e.g. "MER metric". */
  metricName?: string;
  /** Epoch that was kept. */
  best?: number;
}

/** [start, end) in seconds. */
export type TimeRange = readonly [number, number];

export interface ClipReport {
  name: string;
  /** Who predicted. */
  system?: string;
  /** Seconds. */
  duration: number;
  /** Class name and valence. */
  truth?: { emotion?: string; valence?: number | null };
  prediction: { emotion: string; posteriors?: readonly number[]; valence?: number | null };
  /** Weights over equally long frames that cover the clip; they sum to 1. */
  attention?: readonly { stream: string; modality: "audio" | "visual" | (string & {}); weights: ArrayLike<number> }[];
  /** When the clip truly is expressive, by modality. */
  expressive?: { audio?: readonly TimeRange[]; visual?: readonly TimeRange[] };
  /** Face frames that cover the clip evenly; the report picks about a dozen. */
  faces?: FaceFrames;
  /** Modalities that the clip lacks, with the reason. */
  missing?: readonly string[];
}

export interface FaceFrames {
  /** [frames, height, width] or [frames, height, width, 3]. */
  shape: readonly number[];
  data: Uint8Array;
}
