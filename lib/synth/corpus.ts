/**
 * The synthetic corpus on disk, in the MER 2023 layout:
 *
 *     train-label.csv, test1-label.csv   name,discrete,valence
 *     audio/<clip>.wav                   16 kHz, mono, 16 bit
 *     faces/<clip>.npy                   uint8 [T,48,48], 12.5 frames a second
 *     video/<clip>.mp4                   picture and sound of some clips, when asked for; bits depend on the encoder
 *     truth.json                         per clip: kinds, intensity, expressive intervals
 *     corpus.json                        recipe, rates, ceilings; written last, so its `complete` can be trusted
 */
import { existsSync, readdirSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import type { Worker } from "node:worker_threads";
import { writeCsv } from "../data/csv.ts";
import { makeFolder, readJson, writeJson } from "../data/files.ts";
import { AffuseError } from "../errors.ts";
import { startWorker } from "../workers/entry.ts";
import { type Ceilings, ceilings } from "./ceilings.ts";
import { type CorpusRecipe, clipIsThere, planCorpus } from "./clip.ts";
import { FACE_SIZE } from "./face.ts";
import { CLASSES, type ClipPlan, FPS, SAMPLE_RATE } from "./plan.ts";
import { encodeVideos } from "./video.ts";
import type { RenderReport, RenderTask } from "./worker.ts";

/** Changes when the generator's output changes for the same recipe. */
const GENERATOR = 1;

export interface SynthOptions extends Partial<CorpusRecipe> {
  /** How many clips also get an MP4, test clips first; `true` all. Default 0. */
  mp4?: number | boolean;
  /** Threads; default: the machine's, at most 8. The result does not depend on it. */
  threads?: number;
}

/** corpus.json. */
export interface CorpusInfo {
  format: "affuse-synth";
  generator: number;
  /** Decimal, as a 64-bit seed does not fit a JSON number. */
  seed: string;
  noise: number;
  clips: number;
  testClips: number;
  fps: number;
  sampleRate: number;
  faceSize: number;
  classes: string[];
  /** Of the test set. */
  ceilings: Ceilings;
  /** False while clips are still being written. */
  complete: boolean;
}

/** One clip's entry in truth.json. */
export type ClipTruth = Pick<ClipPlan, "split" | "discrete" | "valence" | "intensity" | "visual" | "audio"> & {
  /** "F0" … "F4", "V0" … "V4". */
  face: string;
  voice: string;
  /** Seconds. */
  duration: number;
};

export interface SynthProgress {
  done: number;
  total: number;
  /** What is being counted: "clips" or "videos". */
  unit: "clips" | "videos";
}

export const DEFAULT_RECIPE: CorpusRecipe = { clips: 600, testClips: 300, seed: 1, noise: 1 };

function wholeNumber(name: string, value: number, low: number, high: number): void {
  if (!Number.isInteger(value) || value < low || value > high) {
    throw new AffuseError("ERR_AFFUSE_ARGUMENT", `${name}: expected a whole number ${low} … ${high}, got ${value}.`);
  }
}

function checkedRecipe(options: SynthOptions): CorpusRecipe {
  const recipe = {
    clips: options.clips ?? DEFAULT_RECIPE.clips,
    testClips: options.testClips ?? DEFAULT_RECIPE.testClips,
    seed: options.seed ?? DEFAULT_RECIPE.seed,
    noise: options.noise ?? DEFAULT_RECIPE.noise,
  };
  wholeNumber("clips", recipe.clips, 0, 100000);
  wholeNumber("testClips", recipe.testClips, 0, 100000);
  if (typeof recipe.seed === "number" && !Number.isSafeInteger(recipe.seed)) {
    throw new AffuseError("ERR_AFFUSE_ARGUMENT", `seed: expected a whole number, got ${recipe.seed}.`);
  }
  if (!(recipe.noise >= 0 && recipe.noise <= 20)) {
    throw new AffuseError("ERR_AFFUSE_ARGUMENT", `noise: expected a number 0 … 20, got ${recipe.noise}.`);
  }
  return recipe;
}

function describe(recipe: CorpusRecipe, plans: readonly ClipPlan[], complete: boolean): CorpusInfo {
  return {
    format: "affuse-synth",
    generator: GENERATOR,
    seed: BigInt.asUintN(64, BigInt(recipe.seed)).toString(),
    noise: recipe.noise,
    clips: recipe.clips,
    testClips: recipe.testClips,
    fps: FPS,
    sampleRate: SAMPLE_RATE,
    faceSize: FACE_SIZE,
    classes: [...CLASSES],
    ceilings: ceilings(plans.filter((plan) => plan.split === "test1")),
    complete,
  };
}

/**
 * Reads a corpus folder's corpus.json.
 * @throws ERR_AFFUSE_NOT_FOUND no such file, ERR_AFFUSE_FORMAT something else
 */
export function readCorpus(dir: string): CorpusInfo {
  const file = path.join(dir, "corpus.json");
  const info = readJson(file) as Partial<CorpusInfo> | null;
  if (info?.format !== "affuse-synth" || !info.ceilings || typeof info.seed !== "string") {
    throw new AffuseError("ERR_AFFUSE_FORMAT", `${file} does not describe a corpus made by "affuse synth".`);
  }
  return info as CorpusInfo;
}

/** Reads truth.json: clip name → truth. @throws ERR_AFFUSE_NOT_FOUND, ERR_AFFUSE_FORMAT */
export function readTruth(dir: string): Map<string, ClipTruth> {
  const file = path.join(dir, "truth.json");
  const truth = readJson(file) as { clips?: Record<string, ClipTruth> } | null;
  if (typeof truth?.clips !== "object" || truth.clips === null) {
    throw new AffuseError("ERR_AFFUSE_FORMAT", `${file}: expected an object with "clips".`);
  }
  return new Map(Object.entries(truth.clips));
}

/** Refuses a folder that holds anything but this corpus. Returns true if the corpus is there and complete. */
function inspectTarget(dir: string, wanted: CorpusInfo): boolean {
  if (!existsSync(dir)) return false;
  let entries: string[];
  try {
    entries = readdirSync(dir);
  } catch (error) {
    throw new AffuseError("ERR_AFFUSE_WRITE", `${dir} is not a folder that can be read.`, "Choose another path.", { cause: error });
  }
  if (entries.filter((name) => !name.endsWith(".tmp")).length === 0) return false;
  const hint = "Choose an empty or new folder.";
  if (!entries.includes("corpus.json")) {
    throw new AffuseError("ERR_AFFUSE_EXISTS", `${dir} is not empty and holds no synthetic corpus.`, hint);
  }
  const there = readCorpus(dir);
  for (const key of ["generator", "seed", "noise", "clips", "testClips"] as const) {
    if (there[key] !== wanted[key]) {
      throw new AffuseError(
        "ERR_AFFUSE_EXISTS",
        `${dir} holds another corpus: ${key} is ${there[key]}, expected ${wanted[key]}.`,
        hint,
      );
    }
  }
  return there.complete;
}

function writeTables(dir: string, plans: readonly ClipPlan[]): void {
  for (const split of ["train", "test1"] as const) {
    const rows = plans.filter((plan) => plan.split === split).map((p) => [p.name, p.discrete, p.valence]);
    writeCsv(path.join(dir, `${split}-label.csv`), ["name", "discrete", "valence"], rows, "the labels");
  }
  const clips: Record<string, ClipTruth> = {};
  for (const { name, split, discrete, valence, intensity, face, voice, frames, visual, audio } of plans) {
    const duration = frames / FPS;
    clips[name] = { split, discrete, valence, intensity, face: `F${face}`, voice: `V${voice}`, duration, visual, audio };
  }
  writeJson(path.join(dir, "truth.json"), { clips }, "the truth");
}

/** Runs one worker to its end. */
function runWorker(task: RenderTask, onClip: () => void): { worker: Worker; ended: Promise<void> } {
  const worker = startWorker("synth/worker", { workerData: task });
  const ended = new Promise<void>((resolve, reject) => {
    worker.on("message", (report: RenderReport) => {
      if ("done" in report) onClip();
      else reject(new AffuseError(report.error.code, report.error.message));
    });
    worker.on("error", reject);
    worker.on("exit", (code) => {
      if (code === 0) resolve();
      else reject(new AffuseError("ERR_AFFUSE_INTERNAL", `a rendering thread ended with code ${code}.`));
    });
  });
  return { worker, ended };
}

/**
 * Writes the corpus, or what is missing of it; a complete one is left alone.
 * @param dir a new or empty folder, or one that holds the same corpus
 * @returns corpus.json's content
 * @throws ERR_AFFUSE_EXISTS the folder holds something else, ERR_AFFUSE_ARGUMENT, ERR_AFFUSE_WRITE;
 * with mp4 also ERR_AFFUSE_NO_ENCODER
 */
export async function synthesise(
  dir: string,
  options: SynthOptions = {},
  onProgress?: (progress: SynthProgress) => void,
): Promise<CorpusInfo> {
  const recipe = checkedRecipe(options);
  const plans = planCorpus(recipe);
  const mp4 = options.mp4 === true ? plans.length : Number(options.mp4 ?? 0);
  wholeNumber("mp4", mp4, 0, Number.MAX_SAFE_INTEGER);
  const threads = options.threads ?? Math.min(os.availableParallelism(), 8);
  wholeNumber("threads", threads, 1, 256);

  const info = describe(recipe, plans, true);
  const complete = inspectTarget(dir, info) && plans.every((plan) => clipIsThere(dir, plan));
  if (!complete) {
    makeFolder(dir, "the corpus");
    writeJson(path.join(dir, "corpus.json"), { ...info, complete: false }, "the corpus description");
    makeFolder(path.join(dir, "audio"));
    makeFolder(path.join(dir, "faces"));
    const parts = Math.max(1, Math.min(threads, plans.length));
    let done = 0;
    const onClip = (): void => onProgress?.({ done: ++done, total: plans.length, unit: "clips" });
    const runs = Array.from({ length: parts }, (_, part) => runWorker({ dir, recipe, part, parts }, onClip));
    try {
      await Promise.all(runs.map((run) => run.ended));
    } finally {
      await Promise.all(runs.map((run) => run.worker.terminate()));
    }
    writeTables(dir, plans);
    writeJson(path.join(dir, "corpus.json"), info, "the corpus description");
  }
  if (mp4 > 0) {
    const order = [...plans].sort((a, b) => Number(b.split === "test1") - Number(a.split === "test1") || a.index - b.index);
    const names = order.slice(0, mp4).map((plan) => plan.name);
    await encodeVideos(dir, names, (n) => onProgress?.({ done: n, total: names.length, unit: "videos" }));
  }
  return info;
}
