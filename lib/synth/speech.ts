/** The rhythm of a clip's speech: syllables and pauses. The voice sounds them and the mouth follows them. */
import { type ClipPlan, clipRandom, expressiveness, FPS } from "./plan.ts";

export interface Syllable {
  /** Seconds. */
  start: number;
  end: number;
  /** Row of the vowel table. */
  vowel: number;
  /** Loudness of the consonant's noise, 0 (none) … 1. */
  consonant: number;
  /** Stress, about 0.7 … 1.1. */
  stress: number;
}

/** Number of vowels that syllables choose from. */
export const VOWELS = 6;

/** How fast each voice kind speaks, relative to the speaker's rest. */
const RATE = [1.35, 1.2, 0.72, 1, 1] as const;

/** Syllables that cover the clip; pauses fall into resting parts only, so that every expressive interval is heard. */
export function speechRhythm(seed: number | bigint, plan: ClipPlan): Syllable[] {
  const random = clipRandom(seed, plan.split, plan.index, "speech");
  const length = plan.frames / FPS;
  const usual = random.uniform(0.17, 0.23);
  const syllables: Syllable[] = [];
  let time = random.uniform(0, 0.15);
  let untilPause = 3 + random.integer(6);
  while (time < length) {
    const level = expressiveness(plan.audio, time + 0.5 * usual, 0.08);
    const rate = 1 + level * ((RATE[plan.voice] as number) - 1);
    const duration = (usual * random.uniform(0.75, 1.3)) / rate;
    syllables.push({
      start: time,
      end: time + duration,
      vowel: random.integer(VOWELS),
      consonant: random.bernoulli(0.55) ? random.uniform(0.3, 1) : 0,
      stress: random.uniform(0.7, 1.1),
    });
    time += duration;
    const pause = random.uniform(0.15, 0.4);
    if (--untilPause <= 0 && plan.audio.every(([a, b]) => time + pause < a - 0.1 || time > b + 0.05)) {
      time += pause;
      untilPause = 3 + random.integer(6);
    }
  }
  return syllables;
}

/**
 * How open the mouth of a speaker is at a time, 0 … 1.1: quick rise, plateau, slower fall of every syllable.
 * @param syllables in order
 */
export function syllableLevel(syllable: Syllable | undefined, seconds: number): number {
  if (!syllable || seconds < syllable.start || seconds >= syllable.end) return 0;
  const rise = Math.min(1, (seconds - syllable.start) / 0.035);
  const fall = Math.min(1, (syllable.end - seconds) / 0.05);
  return syllable.stress * rise * (0.2 + 0.8 * fall);
}
