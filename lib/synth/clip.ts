/** One clip: rendering it, and writing it as files. */
import { statSync } from "node:fs";
import path from "node:path";
import { writeFileAtomic } from "../data/files.ts";
import { encodeNpy } from "../data/npy.ts";
import { FACE_SIZE, renderFaces } from "./face.ts";
import { type ClipPlan, planSplit, SAMPLE_RATE, SAMPLES_PER_FRAME, SPLITS } from "./plan.ts";
import { speechRhythm } from "./speech.ts";
import { renderVoice } from "./voice.ts";
import { encodeWav, WAV_HEADER_BYTES } from "./wav.ts";

/** What decides every bit of a corpus. */
export interface CorpusRecipe {
  /** Training clips, test clips. */
  clips: number;
  testClips: number;
  /** Whole number. */
  seed: number | bigint;
  /** 0 clean, 1 moderate. */
  noise: number;
}

/** Picture and sound of a clip. */
export interface RenderedClip {
  /** Grey levels [frames, 48, 48]. */
  faces: Uint8Array;
  /** 16-bit samples at 16 kHz, `frames · 1280`. */
  samples: Int16Array;
}

/** Renders one clip; the same bits on every machine. */
export function renderClip(seed: number | bigint, plan: ClipPlan, noise: number): RenderedClip {
  const rhythm = speechRhythm(seed, plan);
  return { faces: renderFaces(seed, plan, rhythm, noise), samples: renderVoice(seed, plan, rhythm, noise) };
}

/** Plans of all clips, training clips first. */
export function planCorpus(recipe: CorpusRecipe): ClipPlan[] {
  return SPLITS.flatMap((split) => planSplit(recipe.seed, split, split === "train" ? recipe.clips : recipe.testClips));
}

export function wavPath(dir: string, name: string): string {
  return path.join(dir, "audio", `${name}.wav`);
}

export function facesPath(dir: string, name: string): string {
  return path.join(dir, "faces", `${name}.npy`);
}

const NPY_HEADER_BYTES = encodeNpy([0, FACE_SIZE, FACE_SIZE], new Uint8Array(0)).length;

function hasSize(file: string, bytes: number): boolean {
  return statSync(file, { throwIfNoEntry: false })?.size === bytes;
}

/** True if both files of a clip are there in their full length (they are written under another name, then renamed). */
export function clipIsThere(dir: string, plan: ClipPlan): boolean {
  return (
    hasSize(wavPath(dir, plan.name), WAV_HEADER_BYTES + plan.frames * SAMPLES_PER_FRAME * 2) &&
    hasSize(facesPath(dir, plan.name), NPY_HEADER_BYTES + plan.frames * FACE_SIZE * FACE_SIZE)
  );
}

/** Renders and writes a clip's `.wav` and `.npy` unless they are there. @throws ERR_AFFUSE_WRITE */
export function writeClip(dir: string, recipe: CorpusRecipe, plan: ClipPlan): void {
  if (clipIsThere(dir, plan)) return;
  const { faces, samples } = renderClip(recipe.seed, plan, recipe.noise);
  writeFileAtomic(facesPath(dir, plan.name), encodeNpy([plan.frames, FACE_SIZE, FACE_SIZE], faces), "the faces", false);
  writeFileAtomic(wavPath(dir, plan.name), encodeWav(samples, SAMPLE_RATE), "the sound", false);
}
