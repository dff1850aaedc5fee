/** A folder of features, `<encoder>-FRA` or `<encoder>-UTT`: one `.npy` per clip and the manifest they were made by. */
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import path from "node:path";
import { packageRoot } from "#root";
import { z } from "zod";
import { makeFolder, readJson, writeFileAtomic, writeJson } from "../data/files.ts";
import { encodeNpy, readNpyHeader } from "../data/npy.ts";
import { type EncoderManifest, manifestSchema } from "../encoders/manifest.ts";
import type { ResolvedEncoder } from "../encoders/pool.ts";
import type { Rows } from "../encoders/tensors.ts";
import { AffuseError, isAffuseError } from "../errors.ts";

/** manifest.json beside the features. Checkpoints carry it on, so that prediction can run the same encoder. */
export const featureManifestSchema = z.object({
  format: z.literal("affuse-features"),
  name: z.string(),
  modality: z.string(),
  /** Width D. */
  dim: z.number(),
  /** Rows per second of clip, or null. */
  rate: z.number().nullable(),
  pooling: z.enum(["none", "mean"]),
  /** SHA-256 of the ONNX file. */
  sha256: z.string(),
  /** Changes whenever the features could: of the encoder's manifest and its model's SHA-256. */
  fingerprint: z.string(),
  /** Version of this package that wrote it. */
  affuse: z.string(),
  encoder: manifestSchema,
});

export type FeatureManifest = z.output<typeof featureManifestSchema>;

/** Hash of everything that decides the features. Where the model lies and notes about it do not. */
export function fingerprint({ manifest, sha256 }: ResolvedEncoder): string {
  const { provenance: _, model: __, sha256: ___, ...decisive } = manifest;
  return createHash("sha256")
    .update(JSON.stringify([sha256, sorted(decisive)]))
    .digest("hex");
}

/** Keys in alphabetical order at every level, so that equal manifests have equal text. */
function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([k, v]) => [k, sorted(v)]),
  );
}

function describe(encoder: ResolvedEncoder): FeatureManifest {
  const manifest: EncoderManifest = encoder.manifest;
  const { version } = JSON.parse(readFileSync(path.join(packageRoot, "package.json"), "utf8")) as {
    version: string;
  };
  return {
    format: "affuse-features",
    name: manifest.name,
    modality: manifest.modality,
    dim: manifest.output.dim,
    rate: manifest.pooling === "mean" ? null : manifest.output.rate,
    pooling: manifest.pooling,
    sha256: encoder.sha256,
    fingerprint: fingerprint(encoder),
    affuse: version,
    encoder: manifest,
  };
}

/** Temporary files of a process that was killed; those of a living one are its own business. */
function removeLeftovers(folder: string): void {
  for (const name of readdirSync(folder)) {
    const pid = Number(/^\..*\.(\d+)\.[0-9a-f]{8}\.tmp$/.exec(name)?.[1] ?? 0);
    if (pid === 0 || pid === process.pid) continue;
    try {
      process.kill(pid, 0);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ESRCH") rmSync(path.join(folder, name), { force: true });
    }
  }
}

export class FeatureStore {
  readonly folder: string;
  readonly #manifest: FeatureManifest;

  private constructor(folder: string, manifest: FeatureManifest) {
    this.folder = folder;
    this.#manifest = manifest;
  }

  /**
   * Opens or makes `<out>/<encoder>-FRA` (or -UTT).
   * @param overwrite features of another encoder are deleted instead of refused
   * @throws ERR_AFFUSE_EXTRACT_MIXED the folder holds features of another encoder, ERR_AFFUSE_WRITE
   */
  static open(out: string, encoder: ResolvedEncoder, overwrite = false): FeatureStore {
    const manifest = describe(encoder);
    const folder = path.join(out, `${manifest.name}-${manifest.pooling === "mean" ? "UTT" : "FRA"}`);
    const store = new FeatureStore(folder, manifest);
    const file = path.join(folder, "manifest.json");
    makeFolder(folder, "the features");
    const features = readdirSync(folder).filter((name) => name.endsWith(".npy"));
    const there = existsSync(file) ? featureManifestSchema.safeParse(readJsonOrNull(file)) : undefined;
    if (there?.success && there.data.fingerprint === manifest.fingerprint) {
      if (overwrite) store.#clear(features);
      removeLeftovers(folder);
      return store;
    }
    if (features.length > 0 && !overwrite) {
      const what = there?.success
        ? "another encoder or another version of it"
        : "no manifest that says what they are";
      throw new AffuseError(
        "ERR_AFFUSE_EXTRACT_MIXED",
        `${folder} holds ${features.length} features with ${what}; two kinds of features must not mix.`,
        "Choose another --out, or --overwrite to delete them.",
      );
    }
    store.#clear(features); // before the new manifest is written: old features never stand beside it
    writeJson(file, manifest, "the features' manifest");
    return store;
  }

  #clear(features: readonly string[]): void {
    for (const name of features) rmSync(path.join(this.folder, name), { force: true });
  }

  file(clip: string): string {
    return path.join(this.folder, `${clip}.npy`);
  }

  /** True if the clip's features are there, whole, of the right shape and not older than their source. */
  isDone(clip: string, source: string | undefined): boolean {
    const file = this.file(clip);
    const info = statSync(file, { throwIfNoEntry: false });
    if (!info?.isFile()) return false;
    const from = source === undefined ? undefined : statSync(source, { throwIfNoEntry: false });
    if (from && from.mtimeMs > info.mtimeMs) return false;
    try {
      const { descr, shape, fortranOrder } = readNpyHeader(file); // also checks that the file has its full length
      const rank = this.#manifest.pooling === "mean" ? 1 : 2;
      return (
        descr === "<f4" &&
        !fortranOrder &&
        shape.length === rank &&
        shape.at(-1) === this.#manifest.dim &&
        !shape.includes(0)
      );
    } catch (error) {
      if (isAffuseError(error)) return false; // damaged: make it again
      throw error;
    }
  }

  /** Writes a clip's features. @throws ERR_AFFUSE_WRITE */
  write(clip: string, { data, rows, dim }: Rows): void {
    const shape = this.#manifest.pooling === "mean" ? [dim] : [rows, dim];
    writeFileAtomic(this.file(clip), encodeNpy(shape, data), "the features", false);
  }
}

function readJsonOrNull(file: string): unknown {
  try {
    return readJson(file);
  } catch {
    return null;
  }
}
