/**
 * Folds (spec section 3). Each fold has three disjoint parts: `train` fits the weights, `validation` (taken
 * out of the training part) chooses the epoch and the ensemble's weights, `test` is only ever reported.
 */
import { z } from "zod";
import { AffuseError } from "../errors.ts";
import { readJson } from "./files.ts";
import type { ClipLabel } from "./labels.ts";
import { Random } from "./random.ts";

export interface Fold {
  train: string[];
  validation: string[];
  test: string[];
}

export interface Folds {
  /** "clip", or the label column that must not be torn apart ("session", "speaker", …). */
  by: string;
  seed: number;
  validation: number;
  folds: Fold[];
}

export interface FoldOptions {
  /** Number of folds. 1: no test part, only train and validation. Grouped folds: ignored, one per group. */
  count: number;
  seed: number;
  by?: string;
  /** Share of the training part that validates, (0, 1). Default 0.15. */
  validation?: number;
}

/**
 * Seeded folds. The result depends on the set of clip names and the options only, not on the clips' order.
 * `by: "clip"`: floor(n/count) clips per fold, the remainder goes to the last; validation is drawn per class,
 * so it keeps the class shares. `by: "session"` with two or more speakers in each session: one held-out
 * speaker validates, the others test, in turn. Any other column: one fold per value, another whole value
 * validates.
 * @throws ERR_AFFUSE_FOLDS too few clips or groups, or a column that is missing
 */
export function makeFolds(clips: readonly ClipLabel[], options: FoldOptions): Folds {
  const { count, seed, by = "clip", validation = 0.15 } = options;
  const sorted = [...clips].sort((a, b) => (a.name < b.name ? -1 : 1));
  const folds = by === "clip" ? byClip(sorted, count, seed, validation) : byGroup(sorted, by, seed);
  for (const [i, fold] of folds.entries()) {
    if (fold.train.length === 0 || fold.validation.length === 0) {
      throw new AffuseError(
        "ERR_AFFUSE_FOLDS",
        `fold ${i} has ${fold.train.length} training and ${fold.validation.length} validation clips.`,
        "Use fewer folds or more clips.",
      );
    }
  }
  return { by, seed, validation, folds };
}

function byClip(clips: readonly ClipLabel[], count: number, seed: number, validation: number): Fold[] {
  const n = clips.length;
  if (count < 1 || !Number.isInteger(count) || (count > 1 && Math.floor(n / count) < 1)) {
    throw new AffuseError("ERR_AFFUSE_FOLDS", `expected 1 to ${n} folds for ${n} clips, got ${count}.`);
  }
  const order = new Random(seed, "folds").permutation(n).map((i) => clips[i] as ClipLabel);
  const size = Math.floor(n / count);
  return Array.from({ length: count }, (_, k) => {
    const test = count === 1 ? [] : order.slice(k * size, k === count - 1 ? n : (k + 1) * size);
    const held = new Set(test);
    const rest = order.filter((clip) => !held.has(clip));
    const chosen = new Set<ClipLabel>();
    const random = new Random(seed, `validation of fold ${k}`);
    for (const emotion of [...new Set(rest.map((clip) => clip.emotion))].sort((a, b) => a - b)) {
      const ofClass = random.shuffle(rest.filter((clip) => clip.emotion === emotion));
      // At least one stays for training, so a class of one clip is trained rather than validated.
      const take = Math.min(ofClass.length - 1, Math.round(ofClass.length * validation));
      for (const clip of ofClass.slice(0, take)) chosen.add(clip);
    }
    if (chosen.size === 0 && rest.length > 1) chosen.add(rest[0] as ClipLabel);
    return {
      train: names(rest.filter((clip) => !chosen.has(clip))),
      validation: names(chosen),
      test: names(test),
    };
  });
}

function names(clips: Iterable<ClipLabel>): string[] {
  return Array.from(clips, (clip) => clip.name).sort();
}

function byGroup(clips: readonly ClipLabel[], by: string, seed: number): Fold[] {
  const lost = clips.find((clip) => !clip.groups[by]);
  if (lost)
    throw new AffuseError(
      "ERR_AFFUSE_FOLDS",
      `expected a value in the column ${JSON.stringify(by)} for every clip, ${lost.name} has none.`,
      "Add the column to the label file.",
    );
  const values = [...new Set(clips.map((clip) => clip.groups[by] as string))].sort();
  const speakers = (value: string) =>
    [
      ...new Set(clips.filter((clip) => clip.groups[by] === value).map((clip) => clip.groups.speaker ?? "")),
    ].sort();
  if (by === "session" && values.length > 1 && values.every((value) => speakers(value).length > 1)) {
    return values.flatMap((session) =>
      speakers(session).map((validating) => ({
        train: names(clips.filter((clip) => clip.groups.session !== session)),
        validation: names(
          clips.filter((clip) => clip.groups.session === session && clip.groups.speaker === validating),
        ),
        test: names(
          clips.filter((clip) => clip.groups.session === session && clip.groups.speaker !== validating),
        ),
      })),
    );
  }
  if (values.length < 3)
    throw new AffuseError(
      "ERR_AFFUSE_FOLDS",
      `expected at least 3 values of ${by} (one tests, one validates, the rest train), got ${values.length}.`,
    );
  const order = new Random(seed, "folds").shuffle(values);
  return order.map((test, k) => {
    const validating = order[(k + 1) % order.length];
    return {
      train: names(clips.filter((clip) => clip.groups[by] !== test && clip.groups[by] !== validating)),
      validation: names(clips.filter((clip) => clip.groups[by] === validating)),
      test: names(clips.filter((clip) => clip.groups[by] === test)),
    };
  });
}

const foldsSchema = z.strictObject({
  by: z.string(),
  seed: z.int(),
  validation: z.number(),
  folds: z
    .array(
      z.strictObject({
        train: z.array(z.string()),
        validation: z.array(z.string()),
        test: z.array(z.string()),
      }),
    )
    .min(1),
});

/** Reads folds.json and checks that no clip is in two parts of a fold. @throws ERR_AFFUSE_FORMAT */
export function readFolds(file: string): Folds {
  const parsed = foldsSchema.safeParse(readJson(file));
  if (!parsed.success)
    throw new AffuseError(
      "ERR_AFFUSE_FORMAT",
      `${file} is not a folds file: ${parsed.error.issues[0]?.path.join(".")}: ${parsed.error.issues[0]?.message}.`,
    );
  for (const [k, fold] of parsed.data.folds.entries()) {
    const all = [...fold.train, ...fold.validation, ...fold.test];
    if (new Set(all).size !== all.length)
      throw new AffuseError("ERR_AFFUSE_FORMAT", `${file}: fold ${k} holds a clip twice.`);
  }
  return parsed.data;
}
