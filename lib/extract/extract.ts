/** Clips to feature files: finds them, skips what is done, runs the encoders in parallel, reports what failed. */
import { rmSync } from "node:fs";
import path from "node:path";
import { writeJson } from "../data/files.ts";
import type { EncoderManifest } from "../encoders/manifest.ts";
import { EncoderPool, type PoolOptions, type ResolvedEncoder, resolveEncoder } from "../encoders/pool.ts";
import { AffuseError, isAffuseError } from "../errors.ts";
import type { DecodeOptions } from "../media/decode.ts";
import type { ClipFiles } from "../media/source.ts";
import { findClips } from "./discover.ts";
import { clipFeatures } from "./features.ts";
import { FeatureStore } from "./store.ts";

/** Encoders used when none is named. */
export const DEFAULT_ENCODERS = ["logmel", "gabor-face"] as const;

export interface ExtractOptions extends PoolOptions, DecodeOptions {
  /** Built-in names, manifest files or manifests. Default {@link DEFAULT_ENCODERS}. */
  encoders?: readonly (string | EncoderManifest)[];
  /** Default `<data>/features`. */
  out?: string;
  /** Delete features of another encoder that stand in the way, and extract everything again. */
  overwrite?: boolean;
  /** Stops taking new clips; what is being encoded is finished and written. */
  signal?: AbortSignal;
  onProgress?: (progress: { done: number; total: number; failed: number }) => void;
}

export interface EncoderSummary {
  name: string;
  modality: string;
  folder: string;
  dim: number;
  /** Clips written now, and clips that were done before. */
  written: number;
  skipped: number;
  /** Clips that lack this modality, and why; not failures. */
  missing: { clip: string; why: string }[];
  provider: string;
  /** Why CUDA was not used although it was asked for. */
  fallback?: string;
}

export interface ExtractFailure {
  clip: string;
  encoder: string;
  code: string;
  message: string;
}

export interface ExtractSummary {
  data: string;
  out: string;
  clips: number;
  encoders: EncoderSummary[];
  /** Also written to `<out>/failed.json`, which is removed when nothing failed. */
  failed: ExtractFailure[];
  seconds: number;
}

/** Errors that end the whole run instead of one clip: without a disk or a runtime there is no point in going on. */
const FATAL = new Set([
  "ERR_AFFUSE_WRITE",
  "ERR_AFFUSE_NO_DECODER",
  "ERR_AFFUSE_NO_ONNXRUNTIME",
  "ERR_AFFUSE_DISPOSED",
]);

const sourceOf = (clip: ClipFiles, modality: string): string | undefined =>
  modality === "audio" ? clip.audio : clip.visual;

interface Task {
  clip: ClipFiles;
  encoder: number;
}

/**
 * Extracts features of every clip of `data`. It may be interrupted at any moment and run again: finished files are
 * recognised by manifest, header, length and age, everything else is made again.
 * @throws ERR_AFFUSE_NOT_FOUND, ERR_AFFUSE_WRITE, ERR_AFFUSE_EXTRACT_MIXED, ERR_AFFUSE_INTERRUPTED and the encoders' errors;
 * a clip that cannot be read is no exception but an entry of `failed`
 */
export async function extract(data: string, options: ExtractOptions = {}): Promise<ExtractSummary> {
  const began = performance.now();
  const clips = findClips(data);
  const out = options.out ?? path.join(data, "features");
  const encoders: ResolvedEncoder[] = [];
  for (const spec of options.encoders ?? DEFAULT_ENCODERS) encoders.push(await resolveEncoder(spec));
  const names = encoders.map(({ manifest }) => manifest.name);
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice) {
    throw new AffuseError(
      "ERR_AFFUSE_DUPLICATE",
      `expected encoders of different names, got ${twice} twice.`,
      "Rename one in its manifest.",
    );
  }
  const stores = encoders.map((encoder) => FeatureStore.open(out, encoder, options.overwrite));
  const summaries: EncoderSummary[] = encoders.map(({ manifest }, i) => ({
    name: manifest.name,
    modality: manifest.modality,
    folder: (stores[i] as FeatureStore).folder,
    dim: manifest.output.dim,
    written: 0,
    skipped: 0,
    missing: [],
    provider: "none",
  }));

  const tasks: Task[] = [];
  for (const clip of clips) {
    for (const [encoder, summary] of summaries.entries()) {
      if ((stores[encoder] as FeatureStore).isDone(clip.name, sourceOf(clip, summary.modality)))
        summary.skipped++;
      else tasks.push({ clip, encoder });
    }
  }
  const failed: ExtractFailure[] = [];
  if (tasks.length > 0) {
    const pool = await EncoderPool.open(encoders, options);
    try {
      pool.providers.forEach((report, i) => {
        Object.assign(summaries[i] as EncoderSummary, report);
      });
      await runTasks(tasks, pool, stores, summaries, failed, options);
    } finally {
      await pool.close();
    }
  }
  failUnusable(clips, summaries, failed);
  const order = (a: ExtractFailure, b: ExtractFailure): number =>
    a.clip < b.clip ? -1 : a.clip > b.clip ? 1 : a.encoder < b.encoder ? -1 : 1;
  failed.sort(order);
  for (const { missing } of summaries) missing.sort((a, b) => (a.clip < b.clip ? -1 : 1));
  const list = path.join(out, "failed.json");
  if (failed.length > 0) writeJson(list, failed, "the list of failures");
  else rmSync(list, { force: true });
  if (options.signal?.aborted) {
    throw new AffuseError(
      "ERR_AFFUSE_INTERRUPTED",
      "interrupted; what is done is kept.",
      "Run the same command again to go on.",
    );
  }
  const seconds = (performance.now() - began) / 1000;
  return { data, out, clips: clips.length, encoders: summaries, failed, seconds };
}

/** Clips that lack every modality have no features at all, which nobody wants to learn only in training. */
function failUnusable(
  clips: readonly ClipFiles[],
  summaries: readonly EncoderSummary[],
  failed: ExtractFailure[],
): void {
  const reasons = new Map<string, string[]>();
  for (const { missing } of summaries)
    for (const { clip, why } of missing) reasons.set(clip, [...(reasons.get(clip) ?? []), why]);
  for (const { name } of clips) {
    const why = reasons.get(name);
    if (why && why.length === summaries.length) {
      failed.push({
        clip: name,
        encoder: "all",
        code: "ERR_AFFUSE_EMPTY_CLIP",
        message: `nothing to extract: ${[...new Set(why)].join("; ")}.`,
      });
    }
  }
}

async function runTasks(
  tasks: readonly Task[],
  pool: EncoderPool,
  stores: readonly FeatureStore[],
  summaries: readonly EncoderSummary[],
  failed: ExtractFailure[],
  options: ExtractOptions,
): Promise<void> {
  let next = 0;
  let done = 0;
  let fatal: unknown;
  const one = async ({ clip, encoder }: Task): Promise<void> => {
    const summary = summaries[encoder] as EncoderSummary;
    try {
      const features = await clipFeatures(pool, encoder, clip, options);
      if ("missing" in features) summary.missing.push({ clip: clip.name, why: features.missing });
      else {
        (stores[encoder] as FeatureStore).write(clip.name, features);
        summary.written++;
      }
    } catch (error) {
      const code = isAffuseError(error) ? error.code : "ERR_AFFUSE_INTERNAL";
      if (FATAL.has(code)) throw error;
      failed.push({ clip: clip.name, encoder: summary.name, code, message: (error as Error).message });
    }
    options.onProgress?.({ done: ++done, total: tasks.length, failed: failed.length });
  };
  // One clip more than there are workers: its file is read while the others are encoded.
  const lanes = Array.from({ length: Math.min(tasks.length, pool.workers + 1) }, async () => {
    while (next < tasks.length && fatal === undefined && !options.signal?.aborted) {
      try {
        await one(tasks[next++] as Task);
      } catch (error) {
        fatal ??= error;
      }
    }
  });
  await Promise.all(lanes);
  if (fatal !== undefined) throw fatal;
}
