/**
 * Feature files (spec section 3): `<extractor>-UTT/<clip>.npy` holds one vector (D),
 * `<extractor>-FRA/<clip>.npy` a sequence (T,D), `<extractor>-FRA/<clip>/<frame>.npy` one file per frame. `_`
 * as separator and lower case are understood. A clip is found by its exact file stem, never by a prefix. A
 * `manifest.json` in the folder says where the features come from.
 */
import { existsSync, readdirSync, type Dirent } from "node:fs";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { AffuseError } from "../errors.ts";
import { readJson } from "./files.ts";
import { parseNpy, readNpyHeader, toFloat32 } from "./npy.ts";

/** Where a stream lies and what it is. */
export interface StreamFolder {
  /** Extractor name without the suffix; unique. */
  name: string;
  modality: string;
  folder: string;
}

/** A named stream of one dataset. */
export interface StreamInfo {
  name: string;
  modality: string;
  /** Width D. */
  dim: number;
  /**
   * The extractor's manifest as found beside the features: provenance, kept in every checkpoint. Null: none
   * was there.
   */
  manifest: unknown;
}

/** Anything that can give a clip's features: a folder of files, or memory. */
export interface FeatureSource {
  readonly streams: readonly StreamInfo[];
  /** Clips that have at least one stream. */
  readonly clips: readonly string[];
  /** Frames of a clip in a stream (index into `streams`); 0 when it lacks it. */
  length(clip: string, stream: number): number;
  /** [T,D] row-major; null when the clip lacks the stream. Treat as read-only. */
  load(clip: string, stream: number): Promise<Float32Array | null>;
}

/** Modality by the usual extractors' names; first match wins. */
const MODALITY_BY_NAME: readonly (readonly [RegExp, string])[] = [
  [
    /hubert|wav2vec|wavlm|w2v|whisper|opensmile|egemaps|is09|is10|compare|vggish|log-?mel|mfcc|spectro|audio|speech|acoustic|voice/,
    "audio",
  ],
  [/bert|llama|baichuan|gpt|glm|t5|text|lexical|word|sentence/, "text"],
  [
    /clip|vit|resnet|manet|senet|ir-?50|arcface|emonet|dino|mae|affectnet|openface|face|visual|video|image|i3d|c3d|gabor|pixel/,
    "visual",
  ],
];

/** Guesses a stream's modality from its name, or null. */
export function modalityOf(name: string): string | null {
  const lower = name.toLowerCase();
  return MODALITY_BY_NAME.find(([pattern]) => pattern.test(lower))?.[1] ?? null;
}

function listFolder(folder: string): Dirent[] {
  try {
    return readdirSync(folder, { withFileTypes: true }).sort((a, b) => (a.name < b.name ? -1 : 1));
  } catch (error) {
    throw new AffuseError(
      "ERR_AFFUSE_NOT_FOUND",
      `Could not list ${folder}: ${(error as Error).message}.`,
      "Check the path of the features.",
      { cause: error },
    );
  }
}

/** The manifest beside a stream's files, or null. */
export function readManifest(folder: string): Record<string, unknown> | null {
  for (const file of [path.join(folder, "manifest.json"), `${folder}.json`]) {
    if (!existsSync(file)) continue;
    const value = readJson(file);
    if (typeof value === "object" && value !== null && !Array.isArray(value))
      return value as Record<string, unknown>;
    throw new AffuseError("ERR_AFFUSE_FORMAT", `${file}: expected a JSON object.`);
  }
  return null;
}

/**
 * Stream name → its folder, for every subfolder of `folder` (or of its `features` subfolder) called
 * `<extractor>-FRA` or `-UTT`. Where an extractor has both, the sequence (-FRA) is taken. @throws
 * ERR_AFFUSE_NOT_FOUND no stream at all
 */
export function streamFolders(folder: string): Map<string, string> {
  const found = new Map<string, { folder: string; kind: string }>();
  for (const root of [folder, path.join(folder, "features")]) {
    if (root !== folder && !existsSync(root)) continue;
    for (const entry of listFolder(root)) {
      const match = /^(.+)[-_](utt|fra)$/i.exec(entry.name);
      if (!match || !(entry.isDirectory() || entry.isSymbolicLink())) continue;
      const name = match[1] as string;
      const kind = (match[2] as string).toUpperCase();
      if (!found.has(name) || kind === "FRA") found.set(name, { folder: path.join(root, entry.name), kind });
    }
  }
  if (found.size === 0) {
    throw new AffuseError(
      "ERR_AFFUSE_NOT_FOUND",
      `${folder}: expected feature folders called <extractor>-FRA or <extractor>-UTT, found none.`,
      "Run `affuse extract` first.",
    );
  }
  return new Map([...found].map(([name, { folder: at }]) => [name, at]));
}

/**
 * The streams of a folder.
 * @param modalities stream name → modality, wins over manifest and name
 * @param only these streams, in this order; null: all
 * @throws ERR_AFFUSE_NOT_FOUND no stream, or not a wanted one; ERR_AFFUSE_CONFIG a modality that cannot be
 * told
 */
export function findStreams(
  folder: string,
  modalities: Readonly<Record<string, string>> = {},
  only: readonly string[] | null = null,
): StreamFolder[] {
  const found = streamFolders(folder);
  return (only ?? [...found.keys()]).map((name) => {
    const at = found.get(name);
    if (at === undefined)
      throw new AffuseError(
        "ERR_AFFUSE_NOT_FOUND",
        `${folder}: no stream ${name}; there are ${[...found.keys()].join(", ")}.`,
      );
    return { name, folder: at, modality: streamModality(name, at, modalities) };
  });
}

/** Modality from the user's word, the manifest, or the name, in this order. @throws ERR_AFFUSE_CONFIG */
export function streamModality(
  name: string,
  folder: string,
  modalities: Readonly<Record<string, string>> = {},
): string {
  const stated = modalities[name] ?? readManifest(folder)?.modality;
  const modality = typeof stated === "string" ? stated : modalityOf(name);
  if (modality === null) {
    throw new AffuseError(
      "ERR_AFFUSE_CONFIG",
      `expected to know the modality of the stream ${name}, but neither its manifest nor its name tells.`,
      `Say it: --modality ${name}=audio (or visual, text).`,
    );
  }
  return modality;
}

/** Order of per-frame files: by the last number in the stem, then by name. */
function byFrame(a: string, b: string): number {
  const number = (name: string) => Number(/(\d+)\D*$/.exec(name.slice(0, -4))?.[1] ?? -1);
  return number(a) - number(b) || (a < b ? -1 : 1);
}

interface ClipFile {
  /** One file, or the frames' files in order. */
  files: string[];
  perFrame: boolean;
  length: number;
}

/** Shape rules: (D) is one frame, (T,D) a sequence, anything with a zero is no frame at all. */
function frames(shape: readonly number[], file: string): { length: number; dim: number } {
  if (shape.length !== 1 && shape.length !== 2) {
    throw new AffuseError(
      "ERR_AFFUSE_RANK",
      `${file}: expected shape (D) or (T,D), got (${shape.join(", ")}).`,
      "Flatten each frame to one vector.",
    );
  }
  if (shape.includes(0)) return { length: 0, dim: shape.at(-1) ?? 0 };
  return shape.length === 1
    ? { length: 1, dim: shape[0] as number }
    : { length: shape[0] as number, dim: shape[1] as number };
}

export interface FolderOptions {
  /** Only these clips are looked at. Default: every file. */
  clips?: Iterable<string>;
  /** Features kept in memory, bytes; least recently used go first. Default 256 MiB. */
  cacheBytes?: number;
}

/**
 * Features in folders. Opening reads only the files' headers (so that wrong files show at once); data is read
 * when asked for, and at most `cacheBytes` of it stay in memory.
 */
export class FeatureFolders implements FeatureSource {
  readonly streams: readonly StreamInfo[];
  readonly clips: readonly string[];
  readonly #index: Map<string, ClipFile>[];
  readonly #cache = new Map<string, Float32Array>();
  readonly #cacheBytes: number;
  #held = 0;

  /**
   * @throws ERR_AFFUSE_NOT_FOUND, ERR_AFFUSE_FORMAT, ERR_AFFUSE_PICKLE, ERR_AFFUSE_DTYPE, ERR_AFFUSE_RANK,
   * ERR_AFFUSE_DIMENSION
   */
  constructor(folders: readonly StreamFolder[], options: FolderOptions = {}) {
    const wanted = options.clips ? new Set(options.clips) : null;
    this.#cacheBytes = options.cacheBytes ?? 256 * 1024 * 1024;
    const clips = new Set<string>();
    this.#index = folders.map(({ folder }) => indexFolder(folder, wanted));
    this.streams = folders.map(({ name, modality, folder }, i) => {
      if (folders.findIndex((other) => other.name === name) !== i)
        throw new AffuseError("ERR_AFFUSE_CONFIG", `the stream ${name} is named twice.`);
      const index = this.#index[i] as Map<string, ClipFile>;
      const dim = scan(index, name, folder);
      for (const [clip, { length }] of index) if (length > 0) clips.add(clip);
      return { name, modality, dim, manifest: readManifest(folder) };
    });
    this.clips = [...clips].sort();
  }

  length(clip: string, stream: number): number {
    return this.#index[stream]?.get(clip)?.length ?? 0;
  }

  async load(clip: string, stream: number): Promise<Float32Array | null> {
    const entry = this.#index[stream]?.get(clip);
    if (!entry || entry.length === 0) return null;
    const key = `${stream}/${clip}`;
    const cached = this.#cache.get(key);
    if (cached) {
      this.#cache.delete(key); // moves it to the young end
      this.#cache.set(key, cached);
      return cached;
    }
    const data = await readClip(entry, (this.streams[stream] as StreamInfo).dim);
    if (data.byteLength <= this.#cacheBytes && !this.#cache.has(key)) {
      this.#cache.set(key, data);
      this.#held += data.byteLength;
      for (const [old, value] of this.#cache) {
        if (this.#held <= this.#cacheBytes) break;
        this.#cache.delete(old);
        this.#held -= value.byteLength;
      }
    }
    return data;
  }
}

function indexFolder(folder: string, wanted: Set<string> | null): Map<string, ClipFile> {
  const index = new Map<string, ClipFile>();
  const add = (clip: string, file: ClipFile, what: string) => {
    if (wanted && !wanted.has(clip)) return;
    if (index.has(clip))
      throw new AffuseError(
        "ERR_AFFUSE_FORMAT",
        `${what}: the clip ${clip} has both a file and a folder of frames.`,
        "Remove one of them.",
      );
    index.set(clip, file);
  };
  for (const entry of listFolder(folder)) {
    const full = path.join(folder, entry.name);
    if (entry.name.startsWith(".")) continue;
    if (entry.name.endsWith(".npy"))
      add(entry.name.slice(0, -4), { files: [full], perFrame: false, length: 0 }, full);
    else if (entry.isDirectory() && (!wanted || wanted.has(entry.name))) {
      const names = listFolder(full)
        .map((frame) => frame.name)
        .filter((name) => name.endsWith(".npy") && !name.startsWith("."));
      add(
        entry.name,
        { files: names.sort(byFrame).map((name) => path.join(full, name)), perFrame: true, length: 0 },
        full,
      );
    }
  }
  return index;
}

/** Reads every header: fills in the lengths, returns the common width D. */
function scan(index: Map<string, ClipFile>, name: string, folder: string): number {
  let dim = 0;
  let first = "";
  for (const entry of index.values()) {
    for (const file of entry.files) {
      const got = frames(readNpyHeader(file).shape, file);
      if (entry.perFrame && got.length > 1)
        throw new AffuseError("ERR_AFFUSE_SHAPE", `${file}: expected one frame per file, got ${got.length}.`);
      entry.length += got.length;
      if (got.length === 0) continue;
      if (dim === 0) {
        dim = got.dim;
        first = file;
      } else if (got.dim !== dim) {
        throw new AffuseError(
          "ERR_AFFUSE_DIMENSION",
          `stream ${name}: ${file} has dimension ${got.dim}, expected ${dim} as in ${first}.`,
          "Extract them with one extractor.",
        );
      }
    }
  }
  if (dim === 0)
    throw new AffuseError(
      "ERR_AFFUSE_NOT_FOUND",
      `stream ${name}: ${folder} holds no features of the wanted clips.`,
      "Check that file stems equal the clip names.",
    );
  return dim;
}

async function readClip(entry: ClipFile, dim: number): Promise<Float32Array> {
  const out = new Float32Array(entry.length * dim);
  let at = 0;
  for (const file of entry.files) {
    let bytes: Uint8Array;
    try {
      bytes = await readFile(file);
    } catch (error) {
      throw new AffuseError("ERR_AFFUSE_READ", `Could not read ${file}: ${(error as Error).message}.`, "", {
        cause: error,
      });
    }
    const { data } = toFloat32(parseNpy(bytes, file));
    if (at + data.length > out.length)
      throw new AffuseError("ERR_AFFUSE_SHAPE", `${file} has changed since it was opened.`);
    checkFinite(data, dim, file);
    out.set(data, at);
    at += data.length;
  }
  return out;
}

/** @throws ERR_AFFUSE_NONFINITE naming the file and the frame */
function checkFinite(data: Float32Array, dim: number, file: string): void {
  for (let i = 0; i < data.length; i++) {
    if (!Number.isFinite(data[i])) {
      throw new AffuseError(
        "ERR_AFFUSE_NONFINITE",
        `${file}: expected finite features, got ${data[i]} in frame ${Math.floor(i / dim)}, dimension ${i % dim}.`,
        "Extract the clip again, or remove its file so that the stream counts as missing.",
      );
    }
  }
}

/** Features in memory: for prediction and tests. */
export class FeatureMemory implements FeatureSource {
  readonly streams: readonly StreamInfo[];
  readonly clips: readonly string[];
  readonly #data: ReadonlyMap<string, Readonly<Record<string, Float32Array | null>>>;

  /**
   * @param data clip → stream name → [T,D] row-major, or null / left out when missing.
   * @throws ERR_AFFUSE_DIMENSION, ERR_AFFUSE_NONFINITE
   */
  constructor(
    streams: readonly StreamInfo[],
    data: Iterable<readonly [string, Readonly<Record<string, Float32Array | null>>]>,
  ) {
    this.streams = streams;
    this.#data = new Map(data);
    this.clips = [...this.#data.keys()];
    for (const [clip, values] of this.#data) {
      for (const { name, dim } of streams) {
        const value = values[name];
        if (!value) continue;
        if (value.length % dim)
          throw new AffuseError(
            "ERR_AFFUSE_DIMENSION",
            `clip ${clip}, stream ${name}: ${value.length} values do not fill frames of width ${dim}.`,
          );
        checkFinite(value, dim, `clip ${clip}, stream ${name}`);
      }
    }
  }

  #get(clip: string, stream: number): Float32Array | null {
    return this.#data.get(clip)?.[this.streams[stream]?.name ?? ""] ?? null;
  }

  length(clip: string, stream: number): number {
    return (this.#get(clip, stream)?.length ?? 0) / (this.streams[stream]?.dim ?? 1);
  }

  async load(clip: string, stream: number): Promise<Float32Array | null> {
    const data = this.#get(clip, stream);
    return data && data.length > 0 ? data : null;
  }
}
