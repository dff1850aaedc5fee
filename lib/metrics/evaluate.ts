/**
 * One set of predictions against the truth: every score of the specification with bootstrap intervals, and a
 * paired test.
 */
import { AffuseError } from "../errors.ts";
import { Random } from "../data/random.ts";
import {
  type EmotionScores,
  emotionScores,
  hasValence,
  merMetric,
  scoresFromConfusion,
  type ValenceScores,
  valenceScores,
} from "./scores.ts";

/** Predictions and truth of the same clips, position by position (align by name first: see alignByName). */
export interface Evaluated {
  classes: readonly string[];
  /** Class index, −1 missing. */
  truth: ArrayLike<number>;
  predicted: ArrayLike<number>;
  /** NaN missing; absent: nobody has a valence. */
  valenceTruth?: ArrayLike<number>;
  valencePredicted?: ArrayLike<number>;
}

/** A 95 % percentile interval; NaN when it cannot be computed. */
export interface Interval {
  low: number;
  high: number;
}

export interface Evaluation {
  classes: readonly string[];
  emotion: EmotionScores;
  /** Null when no clip has a valence. */
  valence: ValenceScores | null;
  /** F1_weighted − 0.25·MSE; null without valence. */
  merMetric: number | null;
  /** 95 % bootstrap intervals by score name; per class under `f1:<class>` and `recall:<class>`. */
  intervals: Record<string, Interval>;
  /** Bootstrap settings, so that anyone can repeat it. */
  bootstrap: { resamples: number; seed: number };
}

export interface BootstrapOptions {
  /** Resamples of the clips with replacement. Default 1000; 0: no intervals. */
  resamples?: number;
  seed?: number;
}

/** Scores by name on one choice of clips: what the bootstrap repeats. */
function scoreTable(data: Evaluated, chosen: Int32Array): Map<string, number> {
  const classes = data.classes.length;
  const confusion = Array.from({ length: classes }, () => new Array<number>(classes).fill(0));
  for (const i of chosen) {
    const t = data.truth[i] as number;
    if (t === -1) continue;
    const row = confusion[t] as number[];
    const p = data.predicted[i] as number;
    row[p] = (row[p] ?? 0) + 1;
  }
  const e = scoresFromConfusion(confusion);
  const out = new Map([
    ["wa", e.wa],
    ["ua", e.ua],
    ["f1Weighted", e.f1Weighted],
    ["f1Macro", e.f1Macro],
  ]);
  data.classes.forEach((name, c) => {
    out.set(`f1:${name}`, e.perClass[c]?.f1 ?? Number.NaN);
    out.set(`recall:${name}`, e.perClass[c]?.recall ?? Number.NaN);
  });
  const { valenceTruth, valencePredicted } = data;
  if (valenceTruth && valencePredicted) {
    const v = valenceScores({
      truth: Float64Array.from(chosen, (i) => valenceTruth[i] as number),
      predicted: Float64Array.from(chosen, (i) => valencePredicted[i] as number),
    });
    for (const key of ["mse", "mae", "pearson", "ccc"] as const) out.set(key, v[key]);
    out.set("merMetric", merMetric(e.f1Weighted, v.mse));
  }
  return out;
}

/** 2.5 % and 97.5 % points (linear interpolation) of the finite values. */
function percentileInterval(values: number[]): Interval {
  const sorted = values.filter(Number.isFinite).sort((a, b) => a - b);
  if (sorted.length === 0) return { low: Number.NaN, high: Number.NaN };
  const at = (q: number) => {
    const position = q * (sorted.length - 1);
    const below = Math.floor(position);
    const a = sorted[below] as number;
    const b = sorted[Math.min(below + 1, sorted.length - 1)] as number;
    return a + (b - a) * (position - below);
  };
  return { low: at(0.025), high: at(0.975) };
}

/**
 * Every score with its interval (percentile bootstrap over clips, seeded).
 * @throws ERR_AFFUSE_LABEL a class index out of range, ERR_AFFUSE_LENGTH
 */
export function evaluate(data: Evaluated, options: BootstrapOptions = {}): Evaluation {
  const { resamples = 1000, seed = 0 } = options;
  const emotion = emotionScores({
    truth: data.truth,
    predicted: data.predicted,
    classes: data.classes.length,
  });
  const { valenceTruth, valencePredicted } = data;
  const anyValence =
    valenceTruth !== undefined && valencePredicted !== undefined && Array.from(valenceTruth).some(hasValence);
  const used: Evaluated = anyValence
    ? data
    : { classes: data.classes, truth: data.truth, predicted: data.predicted };
  const valence = anyValence ? valenceScores({ truth: valenceTruth, predicted: valencePredicted }) : null;
  const n = data.truth.length;
  const samples = new Map<string, number[]>();
  const random = new Random(seed, "bootstrap");
  const chosen = new Int32Array(n);
  for (let r = 0; n > 0 && r < resamples; r++) {
    for (let i = 0; i < n; i++) chosen[i] = random.integer(n);
    for (const [name, value] of scoreTable(used, chosen)) {
      const list = samples.get(name);
      if (list) list.push(value);
      else samples.set(name, [value]);
    }
  }
  const intervals: Record<string, Interval> = {};
  for (const [name, values] of samples) intervals[name] = percentileInterval(values);
  return {
    classes: data.classes,
    emotion,
    valence,
    merMetric: valence ? merMetric(emotion.f1Weighted, valence.mse) : null,
    intervals,
    bootstrap: { resamples, seed },
  };
}

export interface PairedTest {
  /** Score of the first run minus that of the second, on the clips that both have. */
  difference: number;
  /** 95 % bootstrap interval of the difference. */
  interval: Interval;
  /**
   * Two-sided p-value of an approximate randomisation test: the two runs' answers are swapped clip by clip at
   * random; (1 + number of swaps at least as extreme) / (1 + rounds).
   */
  p: number;
  /** Clips compared. */
  count: number;
}

/**
 * Paired comparison of two runs on the same clips.
 * @param score "wa", "ua", "f1Weighted", "f1Macro", "mse", "mae", "pearson", "ccc" or "merMetric"
 * @throws ERR_AFFUSE_LENGTH when the two do not cover the same clips
 */
export function pairedTest(
  first: Evaluated,
  second: Evaluated,
  score: string,
  options: BootstrapOptions = {},
): PairedTest {
  const { resamples = 1000, seed = 0 } = options;
  const n = first.truth.length;
  if (second.truth.length !== n || first.classes.join("\n") !== second.classes.join("\n")) {
    throw new AffuseError(
      "ERR_AFFUSE_LENGTH",
      `expected two runs over the same clips and classes, got ${n} and ${second.truth.length} clips.`,
      "Align them by clip name first.",
    );
  }
  const value = (data: Evaluated, chosen: Int32Array): number => {
    const found = scoreTable(data, chosen).get(score);
    if (found === undefined)
      throw new AffuseError(
        "ERR_AFFUSE_METRIC",
        `expected a score that both runs have, got ${JSON.stringify(score)}.`,
      );
    return found;
  };
  const all = Int32Array.from({ length: n }, (_, i) => i);
  const difference = value(first, all) - value(second, all);
  const random = new Random(seed, "paired test");
  const differences: number[] = [];
  const chosen = new Int32Array(n);
  for (let r = 0; r < resamples; r++) {
    for (let i = 0; i < n; i++) chosen[i] = random.integer(n);
    differences.push(value(first, chosen) - value(second, chosen));
  }
  let extreme = 0;
  const copy = (data: Evaluated): Evaluated => ({
    ...data,
    predicted: Array.from(data.predicted),
    ...(data.valencePredicted && { valencePredicted: Array.from(data.valencePredicted) }),
  });
  for (let r = 0; r < resamples; r++) {
    const a = copy(first);
    const b = copy(second);
    for (let i = 0; i < n; i++) {
      if (random.bernoulli(0.5)) continue;
      swap(a.predicted as number[], b.predicted as number[], i);
      if (a.valencePredicted && b.valencePredicted)
        swap(a.valencePredicted as number[], b.valencePredicted as number[], i);
    }
    // The tolerance counts ties that rounding would separate as ties.
    if (Math.abs(value(a, all) - value(b, all)) >= Math.abs(difference) - 1e-12) extreme++;
  }
  return {
    difference,
    interval: percentileInterval(differences),
    p: (1 + extreme) / (1 + resamples),
    count: n,
  };
}

function swap(a: number[], b: number[], i: number): void {
  const held = a[i] as number;
  a[i] = b[i] as number;
  b[i] = held;
}

/** Index of the largest value; ties go to the first. NaN never wins; all NaN gives 0. */
export function argmax(values: ArrayLike<number>, from = 0, count = values.length - from): number {
  let best = 0;
  for (let i = 1; i < count; i++)
    if (!((values[from + i] as number) <= (values[from + best] as number)))
      best = Number.isNaN(values[from + i]) ? best : i;
  return best;
}
