/** What the best possible classifier can reach on the synthetic corpus from one modality, and from both. */
import { CLASSES, type ClassName, type ClipPlan, DISPLAYS, VALENCE } from "./plan.ts";

/** What a classifier may look at. */
export type View = "audio" | "visual" | "fused";

export interface Ceiling {
  /** Accuracy (WA), 0 … 1, of the Bayes classifier under the generator's own probabilities. */
  bayes: number;
  /** The highest accuracy that any rule "kind → class" reaches on these very labels. Equal to `bayes` when balanced. */
  accuracy: number;
  /** Mean squared error of valence of the Bayes regressor on these clips: it knows the kinds seen and the intensity. */
  mse: number;
}

export type Ceilings = Record<View, Ceiling>;

function viewOf(view: View, face: number, voice: number): string {
  return view === "audio" ? `V${voice}` : view === "visual" ? `F${face}` : `F${face}V${voice}`;
}

/** P(view, class) under the generator: classes equally likely, each class's displays equally likely. */
function joint(view: View): Map<string, Map<ClassName, number>> {
  const table = new Map<string, Map<ClassName, number>>();
  for (const name of CLASSES) {
    for (const [face, voice] of DISPLAYS[name]) {
      const key = viewOf(view, face, voice);
      const row = table.get(key) ?? new Map<ClassName, number>();
      row.set(name, (row.get(name) ?? 0) + 1 / (CLASSES.length * DISPLAYS[name].length));
      table.set(key, row);
    }
  }
  return table;
}

/**
 * Bayes ceilings per modality for the clips of a test set (all 0 for no clips but `bayes`). Kinds count as perfectly
 * seen, so noise can only lower what is reachable, never raise it.
 */
export function ceilings(clips: readonly Pick<ClipPlan, "discrete" | "face" | "voice" | "intensity" | "valence">[]): Ceilings {
  const one = (view: View): Ceiling => {
    const prior = joint(view);
    let bayes = 0;
    for (const row of prior.values()) bayes += Math.max(...row.values());

    const counts = new Map<string, Map<ClassName, number>>();
    let squares = 0;
    for (const clip of clips) {
      const key = viewOf(view, clip.face, clip.voice);
      const row = counts.get(key) ?? new Map<ClassName, number>();
      row.set(clip.discrete, (row.get(clip.discrete) ?? 0) + 1);
      counts.set(key, row);

      let weight = 0;
      let mean = 0;
      for (const [name, p] of prior.get(key) ?? []) {
        weight += p;
        mean += p * VALENCE[name] * clip.intensity;
      }
      squares += (clip.valence - mean / weight) ** 2;
    }
    let right = 0;
    for (const row of counts.values()) right += Math.max(...row.values());
    const n = Math.max(clips.length, 1);
    const tidy = (value: number): number => Math.round(value * 1e6) / 1e6;
    return { bayes: tidy(bayes), accuracy: tidy(right / n), mse: tidy(squares / n) };
  };
  return { audio: one("audio"), visual: one("visual"), fused: one("fused") };
}
