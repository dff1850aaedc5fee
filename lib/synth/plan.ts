/**
 * What each clip of the synthetic corpus shows and says, before a pixel is drawn: class, face kind, voice kind,
 * expressive intervals, intensity, valence, length. Everything follows from (seed, split, index) alone, so clip i of a
 * corpus is the same whatever the number of clips.
 *
 * Classes and displays. A display is a pair of a face kind and a voice kind:
 *
 *     angry (F0,V0)   happy (F0,V1)              one face, two voices: the face alone cannot tell them apart
 *     sad   (F1,V2)   worried (F2,V2)            one voice, two faces: the voice alone cannot
 *     neutral (F3,V3) or (F4,V4)                 exclusive or: neither modality alone says anything,
 *     surprise (F3,V4) or (F4,V3)                the pair says everything
 *
 * So one modality alone is right for at most 4 clips in 6 and both together for all (see ceilings.ts).
 */
import { Random } from "../data/random.ts";

/** MER 2023's class order. */
export const CLASSES = ["neutral", "angry", "happy", "sad", "worried", "surprise"] as const;
export type ClassName = (typeof CLASSES)[number];

/** Face kinds F0 … F4 and voice kinds V0 … V4. */
export const KINDS = 5;

/** Displays [face kind, voice kind] of each class; a class's displays are equally frequent. */
export const DISPLAYS: Readonly<Record<ClassName, readonly (readonly [number, number])[]>> = {
  neutral: [
    [3, 3],
    [4, 4],
  ],
  angry: [[0, 0]],
  happy: [[0, 1]],
  sad: [[1, 2]],
  worried: [[2, 2]],
  surprise: [
    [3, 4],
    [4, 3],
  ],
};

/** Valence at intensity 1; a clip's valence is this times its intensity, within ±2.73. */
export const VALENCE: Readonly<Record<ClassName, number>> = {
  neutral: 0.2,
  angry: -2,
  happy: 2.1,
  sad: -1.6,
  worried: -1.1,
  surprise: 0.9,
};

/** Frames per second of the faces. */
export const FPS = 12.5;
/** Samples per second of the voice. */
export const SAMPLE_RATE = 16000;
/** Voice samples per face frame: a clip's sound and picture are equally long. */
export const SAMPLES_PER_FRAME = SAMPLE_RATE / FPS;
/** Shortest and longest clip in frames: 2 s and 6 s. */
export const FRAMES_RANGE = [25, 75] as const;
/** Smallest and largest intensity of a display. */
export const INTENSITY_RANGE = [0.7, 1.3] as const;

export type Split = "train" | "test1";
export const SPLITS: readonly Split[] = ["train", "test1"];

/** [start, end) in seconds from the clip's beginning. */
export type Interval = readonly [number, number];

/** The known truth of one clip. */
export interface ClipPlan {
  /** File stem: "train_00001". */
  name: string;
  split: Split;
  /** 0-based position in its split. */
  index: number;
  /** Emotion. */
  discrete: ClassName;
  /** −2.73 … 2.73, four decimals. */
  valence: number;
  /** Face kind 0 … 4 and voice kind 0 … 4 shown in the expressive intervals. */
  face: number;
  voice: number;
  /** Strength of the display, 0.7 … 1.3; valence is proportional to it. */
  intensity: number;
  /** Face frames; voice samples are `frames · 1280`. */
  frames: number;
  /** When the face is expressive: one or two intervals, 20–30 % of the clip in all. */
  visual: Interval[];
  /** When the voice is: the same intervals, up to 0.1 s later. */
  audio: Interval[];
}

/** What a random stream is for; part of its counter, so that streams never meet. */
export const PURPOSE = { order: 0, plan: 1, face: 2, voice: 3, pixels: 4, samples: 5, speech: 6 } as const;

/** The stream of one clip and purpose. @param index below 2^24 */
export function clipRandom(
  seed: number | bigint,
  split: Split,
  index: number,
  purpose: keyof typeof PURPOSE,
): Random {
  return new Random(seed, ((SPLITS.indexOf(split) << 28) | (PURPOSE[purpose] << 24) | index) >>> 0);
}

/** Class and display of every clip in block `block`: a seeded order of the 12 equally frequent possibilities. */
function blockDisplays(seed: number | bigint, split: Split, block: number): [ClassName, number][] {
  const all = CLASSES.flatMap((name) => [0, 1].map((i): [ClassName, number] => [name, i % DISPLAYS[name].length]));
  return clipRandom(seed, split, block, "order").shuffle(all);
}

/** One or two expressive intervals in frames, 20–30 % of the clip in all, away from its first and last two frames. */
function expressiveFrames(random: Random, frames: number): [number, number][] {
  const total = Math.round(random.uniform(0.2, 0.3) * frames);
  const margin = 2;
  const gap = 5;
  const parts =
    total >= 10 && random.bernoulli(0.5)
      ? ((first: number) => [first, total - first])(5 + random.integer(total - 9))
      : [total];
  const free = frames - 2 * margin - total - gap * (parts.length - 1);
  const starts = parts.map(() => random.integer(free + 1)).sort((a, b) => a - b);
  let used = 0;
  return parts.map((length, i) => {
    const start = margin + (starts[i] as number) + used + gap * i;
    used += length;
    return [start, start + length];
  });
}

function planClip(
  seed: number | bigint,
  split: Split,
  index: number,
  [discrete, display]: [ClassName, number],
): ClipPlan {
  const random = clipRandom(seed, split, index, "plan");
  const frames = FRAMES_RANGE[0] + random.integer(FRAMES_RANGE[1] - FRAMES_RANGE[0] + 1);
  const intensity = random.uniform(INTENSITY_RANGE[0], INTENSITY_RANGE[1]);
  const lag = random.uniform(0, 0.1);
  const seconds = (value: number): number => Math.round(value * 10000) / 10000;
  const visual = expressiveFrames(random, frames).map(([a, b]): Interval => [a / FPS, b / FPS]);
  const [face, voice] = DISPLAYS[discrete][display] as readonly [number, number];
  return {
    name: `${split}_${String(index + 1).padStart(5, "0")}`,
    split,
    index,
    discrete,
    valence: Math.round(VALENCE[discrete] * intensity * 10000) / 10000,
    face,
    voice,
    intensity,
    frames,
    visual,
    audio: visual.map(([a, b]): Interval => [seconds(a + lag), seconds(Math.min(b + lag, frames / FPS))]),
  };
}

/** The first `count` clips of a split. */
export function planSplit(seed: number | bigint, split: Split, count: number): ClipPlan[] {
  const plans: ClipPlan[] = [];
  for (let block = 0; plans.length < count; block++) {
    for (const display of blockDisplays(seed, split, block)) {
      if (plans.length < count) plans.push(planClip(seed, split, plans.length, display));
    }
  }
  return plans;
}

/**
 * How expressive a moment is, 0 (rest) … 1: 1 inside the intervals, with a smooth ramp of `ramp` seconds centred on
 * each edge.
 */
export function expressiveness(intervals: readonly Interval[], seconds: number, ramp: number): number {
  let most = 0;
  for (const [start, end] of intervals) {
    const inside = Math.min(seconds - start, end - seconds) / ramp + 0.5;
    const x = inside < 0 ? 0 : Math.min(inside , 1);
    most = Math.max(most, x * x * (3 - 2 * x));
  }
  return most;
}
