/** What cases, contenders and results look like. */
import type { Precision } from "../lib/graph/compile.ts";
import type { AttributeValue, RoofKind } from "../lib/native/addon.ts";

/** One tensor of a case. */
export interface TensorSpec {
  shape: number[];
  /**
   * batch: the first dimension counts rows that do not touch each other, so that a part of them can be
   * checked alone; rotated. weight: the same in every call, hence packed once where a program may. whole:
   * like batch, but only checked as a whole.
   */
  role: "batch" | "weight" | "whole";
  /** Uniform in [-scale, scale]; default 1. */
  scale?: number;
  /** int32 in [low, high] instead (lengths, labels). */
  range?: [number, number];
  /** Uniform in [0, scale] (second moments). */
  positive?: boolean;
}

interface Common {
  /** `operator/size`, unique. */
  name: string;
  /** --filter also looks here: "quick", "targets", "sweep", … */
  tags: string[];
  /** Why a case says less, or other, than it seems to; shown in tables. */
  note?: string;
}

/** What a call takes if nothing overlaps, in seconds (bench/account.ts). */
export interface Account {
  /** Arithmetic at the multiply-add roof, columns rounded up to whole registers. */
  tiles: number;
  /** Hyperbolic tangents of AFG's scores. */
  functions: number;
  memory: number;
  packing: number;
  /** The call's share of starting a run. */
  start: number;
}

/**
 * Where the wall time of calls in a row goes, with one thread, from samples (bench/perf.ts): parts that are 1 together. Only the
 * calls count: nothing of benchmark.js, and garbage was collected before.
 */
export interface Where {
  /** Register tiles of the matrix core, and the copies that are made beside their multiply-adds. */
  tiles: number;
  /** Copies of operands into the form that tiles read, by functions of their own. */
  packing: number;
  /** All other kernels: loops around tiles with what the compiler puts into them, epilogues, softmax, norms, libc's copies. */
  kernels: number;
  /** The rest: starting and ending runs, JavaScript, the operating system, and whatever else had the core. */
  between: number;
}

/** One operator, forward or forward and backward. */
export interface OperatorCase extends Common {
  kind: "operator";
  op: string;
  attributes: Readonly<Record<string, AttributeValue>>;
  tensors: Record<string, TensorSpec>;
  /**
   * Gradients to make after the forward, such as ["dx", "dW"]; the forward saves what the backward can use.
   */
  gradients?: string[];
  /**
   * call: addon.call on typed arrays, weights packed in every call. program: a compiled program as models use
   * it, its tensors in native buffers, weights packed once (inference) or, with gradients, in every
   * call: an optimiser's step of one element ends it.
   */
  via: "call" | "program";
  /** Outputs that have an input's name are written over it, as an optimiser does: always by calls, in a program where this says so. */
  inPlace?: true;
  /**
   * rotating: batch tensors differ from call to call and are at least twice the last-level cache together;
   * weights stay.
   */
  residency: "rotating" | "cached" | "rotating weights";
  /** What bounds it when memory does. */
  stream: RoofKind;
  /** Instead of the operator's own formula, e.g. because work follows the lengths. */
  flops?: number;
  bytes?: number;
  /** Which peers have it. */
  peers: { ort?: boolean; torch?: boolean };
  /** Columns of its products, where the account of a shape wants them. */
  columns?: number;
  /** Outputs are compared after this: FBP's signed root is singular at 0, so z·|z| is compared. */
  compare?: "signed-square";
}

/** A whole model: training steps or inference. */
export interface ModelCase extends Common {
  kind: "step" | "inference";
  structure: "concat" | "weighted" | "hierarchical";
  batch: number;
  /** Padded length; lengths are drawn from [shortest, T]. */
  T: number;
  shortest: number;
  streams: { name: string; modality: "audio" | "visual"; dim: number }[];
  /** A of the attention. */
  attention: number;
  /** Of the operands of matrix products; float32 by default, and at the peer. */
  precision?: Precision;
}

/** The convolutional trunk (spec 2.2), forward and gradients of its weights. */
export interface FcnCase extends Common {
  kind: "fcn";
  batch: number;
  frames: number;
  bins: number;
}

/** Cost of a call from JavaScript: what a call takes whose mathematics is nothing. */
export interface OverheadCase extends Common {
  kind: "overhead";
  /** addon: the native function; library: op() with names. */
  through: "addon" | "library";
}

export type Case = OperatorCase | ModelCase | FcnCase | OverheadCase;

export type PeerName = "affuse" | "onnxruntime" | "torch";

/** Seconds of one call, from one sample. */
export interface Sample {
  seconds: number;
  /** Processor seconds of one call, over all threads; NaN when unknown. */
  cpu: number;
  /** Calls in the sample. */
  count: number;
}

/** Something that can be timed. */
export interface Contender {
  peer: PeerName;
  threads: number;
  /** What distinguishes settings of one peer with as many threads: "spinning". */
  setting?: string;
  /** One sample of at least this long. */
  sample(seconds: number): Promise<Sample>;
  /**
   * The bare call again and again, for at least this long and three times, once samples have been taken. Wall seconds.
   */
  loop?(seconds: number): Promise<number>;
}

/**
 * Numbers of one contender, in Google Benchmark's shape plus ours. Times in seconds unless named otherwise.
 */
export interface Entry {
  name: string;
  run_name: string;
  run_type: "iteration";
  repetitions: number;
  iterations: number;
  threads: number;
  real_time: number;
  cpu_time: number;
  time_unit: "us";
  case: string;
  tags: string[];
  peer: PeerName;
  setting: string | null;
  median: number;
  p20: number;
  p80: number;
  samples: number;
  /** Per call. Null: not defined for this case. */
  flops: number | null;
  bytes: number | null;
  flops_per_second: number | null;
  bytes_per_second: number | null;
  /**
   * "fma.f32", "read.dram" …: what bounds the case on this machine; its value beside it was measured between
   * the samples.
   */
  roof_kind: RoofKind | null;
  roof: number | null;
  roof_percent: number | null;
  /**
   * What multiply-adds with an empty instruction after each reached around the samples, in percent of the multiply-add roof:
   * median. Far below what they reach on a core of its own: something else used the cores (bench/calm.ts), and the other
   * percents are too low.
   */
  issue_percent: number;
  /** Whether it was so for half of the samples. */
  shared: boolean;
  /** FLOP/s in percent of the float32 multiply-add roof, whatever bounds the case. */
  fma_percent: number | null;
  /**
   * This peer's median / affuse's: above 1 affuse is faster. With as many threads, and against affuse with
   * one.
   */
  ratio: number | null;
  residency: string;
  via: string;
  /** How the result was checked, and the largest difference relative to the largest value. */
  check: { against: string; difference: number } | null;
  /** Largest resident memory of a process that does only this, bytes. */
  peak_memory: number | null;
  /** One thread: what the call takes if nothing overlaps. Null: not worked out for this case. */
  account: Account | null;
  /** One thread, with --perf: where the time goes. Null: not sampled. */
  where: Where | null;
  /** Samples in kernels behind it. */
  where_samples: number | null;
  note: string | null;
}

export interface Skipped {
  case: string;
  peer: PeerName | "perf";
  code: string;
  reason: string;
}
