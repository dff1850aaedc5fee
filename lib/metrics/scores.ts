/**
 * Scores of emotion and valence predictions (spec section 3). Truth comes first everywhere, prediction
 * second: swapping them changes weighted F1 silently, so the arguments are named and never positional among
 * equals.
 */
import { AffuseError } from "../errors.ts";

/**
 * True classes and predicted classes of the same clips; −1 in `truth` marks a clip without a label, which is
 * skipped.
 */
export interface EmotionPairs {
  truth: ArrayLike<number>;
  predicted: ArrayLike<number>;
  /** Number of classes; every index lies in [0, classes). */
  classes: number;
}

/** True and predicted valence; a truth that is NaN or the sentinel −10 is skipped. */
export interface ValencePairs {
  truth: ArrayLike<number>;
  predicted: ArrayLike<number>;
}

export interface ClassScore {
  /** Clips that truly are of this class. */
  support: number;
  /** Clips predicted as this class. */
  predicted: number;
  /** 0 when nothing was predicted as this class. */
  precision: number;
  /** NaN when the class does not occur in the truth. */
  recall: number;
  /** 0 when the class was neither present nor predicted. */
  f1: number;
}

export interface EmotionScores {
  /** Labelled clips. */
  count: number;
  /** Weighted accuracy: plain accuracy. */
  wa: number;
  /** Unweighted accuracy: mean recall over the classes present. */
  ua: number;
  /** F1 weighted by support; absent classes add nothing. */
  f1Weighted: number;
  /** Mean F1 over the classes that occur in the truth or in the prediction. */
  f1Macro: number;
  perClass: ClassScore[];
  /** confusion[true][predicted]: numbers of clips. */
  confusion: number[][];
}

export interface ValenceScores {
  /** Clips with a valence. */
  count: number;
  mse: number;
  mae: number;
  /** Correlation; NaN when one side is constant. */
  pearson: number;
  /** Concordance with population moments; NaN when both sides are constant and equal. */
  ccc: number;
}

/** Sentinel for a missing valence in public label files. */
const MISSING = -10;

function sameLength(truth: ArrayLike<number>, predicted: ArrayLike<number>): void {
  if (truth.length !== predicted.length) {
    throw new AffuseError(
      "ERR_AFFUSE_LENGTH",
      `expected as many predictions as truths, got ${predicted.length} and ${truth.length}.`,
    );
  }
}

/**
 * Numbers of clips by true class (rows) and predicted class (columns).
 * @throws ERR_AFFUSE_LABEL, ERR_AFFUSE_LENGTH
 */
export function confusionMatrix({ truth, predicted, classes }: EmotionPairs): number[][] {
  sameLength(truth, predicted);
  const matrix = Array.from({ length: classes }, () => new Array<number>(classes).fill(0));
  for (let i = 0; i < truth.length; i++) {
    const t = truth[i] as number;
    const p = predicted[i] as number;
    if (t === -1) continue;
    const row = matrix[t];
    if (!row || row[p] === undefined) {
      throw new AffuseError(
        "ERR_AFFUSE_LABEL",
        `expected classes 0 … ${classes - 1}, got truth ${t} and prediction ${p} at ${i}.`,
      );
    }
    row[p]++;
  }
  return matrix;
}

/** All emotion scores from a confusion matrix. With no clip at all they are NaN. */
export function scoresFromConfusion(confusion: number[][]): EmotionScores {
  const classes = confusion.length;
  let count = 0;
  let right = 0;
  const support = new Array<number>(classes).fill(0);
  const predicted = new Array<number>(classes).fill(0);
  for (let t = 0; t < classes; t++) {
    for (let p = 0; p < classes; p++) {
      const n = confusion[t]?.[p] ?? 0;
      count += n;
      support[t] = (support[t] ?? 0) + n;
      predicted[p] = (predicted[p] ?? 0) + n;
      if (t === p) right += n;
    }
  }
  const perClass = support.map((n, c): ClassScore => {
    const hit = confusion[c]?.[c] ?? 0;
    const guessed = predicted[c] ?? 0;
    return {
      support: n,
      predicted: guessed,
      precision: guessed > 0 ? hit / guessed : 0,
      recall: n > 0 ? hit / n : Number.NaN,
      f1: n + guessed > 0 ? (2 * hit) / (n + guessed) : 0,
    };
  });
  const present = perClass.filter((score) => score.support > 0);
  const seen = perClass.filter((score) => score.support + score.predicted > 0);
  const mean = (values: number[]) =>
    values.length ? values.reduce((sum, x) => sum + x, 0) / values.length : Number.NaN;
  return {
    count,
    wa: right / count,
    ua: mean(present.map((score) => score.recall)),
    f1Weighted: present.reduce((sum, score) => sum + score.f1 * score.support, 0) / count,
    f1Macro: mean(seen.map((score) => score.f1)),
    perClass,
    confusion,
  };
}

/** All emotion scores. @throws ERR_AFFUSE_LABEL, ERR_AFFUSE_LENGTH */
export function emotionScores(pairs: EmotionPairs): EmotionScores {
  return scoresFromConfusion(confusionMatrix(pairs));
}

/** True for a valence that counts. */
export function hasValence(value: number): boolean {
  return !Number.isNaN(value) && value !== MISSING;
}

/** All valence scores; NaN when no clip has a valence. @throws ERR_AFFUSE_LENGTH */
export function valenceScores({ truth, predicted }: ValencePairs): ValenceScores {
  sameLength(truth, predicted);
  let n = 0;
  let meanT = 0;
  let meanP = 0;
  let mse = 0;
  let mae = 0;
  for (let i = 0; i < truth.length; i++) {
    const t = truth[i] as number;
    const p = predicted[i] as number;
    if (!hasValence(t)) continue;
    n++;
    meanT += t;
    meanP += p;
    mse += (t - p) ** 2;
    mae += Math.abs(t - p);
  }
  meanT /= n;
  meanP /= n;
  let varT = 0;
  let varP = 0;
  let cov = 0;
  for (let i = 0; i < truth.length; i++) {
    const t = truth[i] as number;
    if (!hasValence(t)) continue;
    const dt = t - meanT;
    const dp = (predicted[i] as number) - meanP;
    varT += dt * dt;
    varP += dp * dp;
    cov += dt * dp;
  }
  return {
    count: n,
    mse: mse / n,
    mae: mae / n,
    pearson: cov / Math.sqrt(varT * varP),
    ccc: (2 * cov) / (varT + varP + n * (meanT - meanP) ** 2),
  };
}

/** The MER 2023 metric: F1_weighted − 0.25 · MSE. NaN when no clip has a valence. */
export function merMetric(f1Weighted: number, mse: number): number {
  return f1Weighted - 0.25 * mse;
}
