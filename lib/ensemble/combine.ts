/**
 * Combining members' answers (spec 2.1): p = Σ_s ω_s softmax(e_s), v = Σ_s ω_s v_s. Pure arithmetic on
 * predictions that are already aligned; see align() for bringing files together by clip name.
 */
import { exp, ln } from "../data/portable.ts";
import { AffuseError } from "../errors.ts";
import type { ClipPrediction } from "../train/predict.ts";

/**
 * mean: equal weights. fitted: given weights (see fitWeights). entropy: per clip ω_s ∝ exp(−H(p_s)/τ).
 * logits: mean of the logits, then softmax (the challenge baseline's habit; argmax can differ).
 */
export type CombineMethod = "mean" | "fitted" | "entropy" | "logits";

export interface CombineOptions {
  method?: CombineMethod;
  /**
   * One weight per member, non-negative; normalised. Needed for "fitted", default equal for "mean" and
   * "logits".
   */
  weights?: readonly number[];
  /** τ of entropy weighting. Default 1. */
  temperature?: number;
  /** Clamp of the valence at inference, e.g. [−3, 3]. Default none. */
  clampValence?: readonly [number, number];
}

export function softmax(logits: readonly number[]): number[] {
  const top = Math.max(...logits);
  const powers = logits.map((x) => exp(x - top));
  const sum = powers.reduce((total, x) => total + x, 0);
  return powers.map((x) => x / sum);
}

/** −Σ p ln p, in nats. */
export function entropy(posteriors: readonly number[]): number {
  return -posteriors.reduce((sum, p) => sum + (p > 0 ? p * ln(p) : 0), 0);
}

function memberWeights(members: readonly ClipPrediction[], options: CombineOptions): number[] {
  const { method = "mean", temperature = 1, weights } = options;
  if (method === "entropy") {
    if (!(temperature > 0))
      throw new AffuseError("ERR_AFFUSE_ENSEMBLE", `expected a temperature above 0, got ${temperature}.`);
    const h = members.map(({ posteriors }) => entropy(posteriors));
    return softmax(h.map((value) => -value / temperature));
  }
  if (method === "fitted" && !weights)
    throw new AffuseError("ERR_AFFUSE_ENSEMBLE", "fitted weights were asked for, but none are given.");
  const raw = weights ?? members.map(() => 1);
  const sum = raw.reduce((total, w) => total + w, 0);
  if (raw.length !== members.length || raw.some((w) => !(w >= 0)) || !(sum > 0)) {
    throw new AffuseError(
      "ERR_AFFUSE_ENSEMBLE",
      `expected ${members.length} non-negative weights with a positive sum, got ${raw.join(", ")}.`,
    );
  }
  return raw.map((w) => w / sum);
}

/**
 * One clip's combined answer.
 * @param members the members' answers for the same clip, in the same class order
 * @throws ERR_AFFUSE_ENSEMBLE no members, unequal classes or names, bad weights
 */
export function combine(members: readonly ClipPrediction[], options: CombineOptions = {}): ClipPrediction {
  const [first] = members;
  if (!first) throw new AffuseError("ERR_AFFUSE_ENSEMBLE", "expected at least one member, got none.");
  const odd = members.find((m) => m.name !== first.name || m.posteriors.length !== first.posteriors.length);
  if (odd)
    throw new AffuseError(
      "ERR_AFFUSE_ENSEMBLE",
      `expected members aligned by clip and class, got ${first.name} and ${odd.name}.`,
    );
  const weights = memberWeights(members, options);
  const mix = (pick: (m: ClipPrediction) => readonly number[]) =>
    first.posteriors.map((_, c) =>
      members.reduce((sum, m, s) => sum + (weights[s] as number) * (pick(m)[c] as number), 0),
    );
  const logits = mix((m) => m.logits);
  const valence = members.reduce((sum, m, s) => sum + (weights[s] as number) * m.valence, 0);
  const [low, high] = options.clampValence ?? [Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY];
  return {
    name: first.name,
    posteriors: options.method === "logits" ? softmax(logits) : mix((m) => m.posteriors),
    logits,
    valence: Math.min(high, Math.max(low, valence)),
  };
}

/**
 * Weights on the simplex that maximise the likelihood of the true classes under the mixture Σ_s ω_s p_s:
 * expectation-maximisation from equal weights, which climbs to the global optimum since the objective is
 * concave.
 * @param members per member the answers for the same clips in the same order (validation clips, never test
 * clips)
 * @param truth class indices; −1 is skipped
 */
export function fitWeights(
  members: readonly (readonly ClipPrediction[])[],
  truth: readonly number[],
  rounds = 500,
): number[] {
  const S = members.length;
  const right = truth.flatMap((c, i) =>
    c < 0 ? [] : [members.map((answers) => Math.max(answers[i]?.posteriors[c] ?? 0, 1e-12))],
  );
  let weights = new Array<number>(S).fill(1 / S);
  for (let round = 0; right.length > 0 && round < rounds; round++) {
    const next = new Array<number>(S).fill(0);
    for (const p of right) {
      const mixture = p.reduce((sum, value, s) => sum + (weights[s] as number) * value, 0);
      for (let s = 0; s < S; s++)
        next[s] = (next[s] as number) + ((weights[s] as number) * (p[s] as number)) / mixture / right.length;
    }
    const moved = Math.max(...next.map((w, s) => Math.abs(w - (weights[s] as number))));
    weights = next;
    if (moved < 1e-9) break;
  }
  return weights;
}

/**
 * Brings an answer into another class order, by name.
 * @throws ERR_AFFUSE_CLASSES when the sets of names differ
 */
export function reorderClasses(
  from: readonly string[],
  to: readonly string[],
  what: string,
): (prediction: ClipPrediction) => ClipPrediction {
  const index = to.map((name) => from.indexOf(name));
  if (from.length !== to.length || index.includes(-1)) {
    throw new AffuseError(
      "ERR_AFFUSE_CLASSES",
      `${what} has the classes ${from.join(", ")}, expected ${to.join(", ")}.`,
      "Only members with the same class names can be combined.",
    );
  }
  if (index.every((from, to) => from === to)) return (prediction) => prediction;
  const pick = (values: readonly number[]) => index.map((i) => values[i] as number);
  return (prediction) => ({
    ...prediction,
    posteriors: pick(prediction.posteriors),
    logits: pick(prediction.logits),
  });
}

export interface MemberAnswers {
  /** For messages. */
  name: string;
  classes: readonly string[];
  clips: readonly ClipPrediction[];
}

/**
 * Aligns members by clip name and class name.
 * @returns one entry per clip of any member, sorted by name; members that lack the clip are left out of its
 * entry
 * @throws ERR_AFFUSE_CLASSES, ERR_AFFUSE_ENSEMBLE a member has a clip twice
 */
export function align(members: readonly MemberAnswers[]): {
  classes: readonly string[];
  clips: { name: string; answers: (ClipPrediction | null)[] }[];
} {
  const classes = members[0]?.classes ?? [];
  const byName = new Map<string, (ClipPrediction | null)[]>();
  for (const [s, member] of members.entries()) {
    const reorder = reorderClasses(member.classes, classes, member.name);
    for (const clip of member.clips) {
      let answers = byName.get(clip.name);
      if (!answers) {
        answers = members.map(() => null);
        byName.set(clip.name, answers);
      }
      if (answers[s])
        throw new AffuseError("ERR_AFFUSE_ENSEMBLE", `${member.name} has the clip ${clip.name} twice.`);
      answers[s] = reorder(clip);
    }
  }
  const clips = [...byName]
    .map(([name, answers]) => ({ name, answers }))
    .sort((a, b) => (a.name < b.name ? -1 : 1));
  return { classes, clips };
}

/** combine() over the members that have the clip; their weights are renormalised. */
export function combinePresent(
  answers: readonly (ClipPrediction | null)[],
  options: CombineOptions = {},
): ClipPrediction {
  const present = answers.flatMap((answer, s) => (answer ? [{ answer, weight: options.weights?.[s] }] : []));
  return combine(
    present.map(({ answer }) => answer),
    { ...options, ...(options.weights && { weights: present.map(({ weight }) => weight ?? 0) }) },
  );
}
