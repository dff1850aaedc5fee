/** Does the attention find the expressive part? Measured against the corpus's truth. */
import type { ClipTruth } from "../synth/index.ts";

/** How much weight frames get on average, over all frames of all clips. */
export interface AttentionContrast {
  expressive: number;
  neutral: number;
  /** expressive / neutral. */
  ratio: number;
}

/** True intervals of one modality, in frames of `fps`. */
function isExpressive(truth: ClipTruth, modality: "audio" | "visual", seconds: number): boolean {
  return truth[modality].some(([start, end]) => seconds >= start && seconds < end);
}

/**
 * Mean weight of expressive frames and of all others. A frame is judged by the time of its centre.
 * @param clips weights per frame (summing to 1 over a clip) and the clip's truth
 */
export function attentionContrast(
  clips: readonly { weights: Float32Array; truth: ClipTruth }[],
  modality: "audio" | "visual",
): AttentionContrast {
  let inside = 0;
  let outside = 0;
  let insideFrames = 0;
  let outsideFrames = 0;
  for (const { weights, truth } of clips) {
    for (const [t, weight] of weights.entries()) {
      if (isExpressive(truth, modality, ((t + 0.5) / weights.length) * truth.duration)) {
        inside += weight;
        insideFrames++;
      } else {
        outside += weight;
        outsideFrames++;
      }
    }
  }
  const expressive = inside / insideFrames;
  const neutral = outside / outsideFrames;
  return { expressive, neutral, ratio: expressive / neutral };
}
