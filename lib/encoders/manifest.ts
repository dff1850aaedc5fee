/**
 * What an encoder is: an ONNX file and a manifest that says how clips become its input and how its output becomes
 * features. Manifests are JSON or YAML; unknown keys are refused.
 */
import path from "node:path";
import { parse as parseYaml } from "yaml";
import { z } from "zod";
import { readText } from "../data/files.ts";
import { AffuseError } from "../errors.ts";
import { PRESETS } from "./presets.ts";

/** Letters of a tensor's axes, each at most once. */
const axes = (allowed: string, required: string) =>
  z
    .string()
    .regex(new RegExp(`^[${allowed}]+$`), `letters out of ${allowed}`)
    .refine((s) => new Set(s).size === s.length, "each letter at most once")
    .refine((s) => [...required].every((letter) => s.includes(letter)), `must contain ${required}`);

const waveformInput = z.strictObject({
  kind: z.literal("waveform"),
  /** Name of the input tensor; absent: the model's first. */
  tensor: z.string().optional(),
  /** Axes: N samples, B and C of size 1. "BN" for [1,N]. */
  layout: axes("BCN", "N").default("BN"),
  /** Hz. */
  sampleRate: z.number().min(1000).max(384000).default(16000),
  /** standard: zero mean and unit variance over the clip, as HuBERT-large and wav2vec 2.0's processors do. */
  normalize: z.enum(["none", "standard"]).default("none"),
  /** Factor on samples of full scale ±1 (32768 for models that want 16-bit figures). */
  scale: z.number().default(1),
  /** Shorter clips are filled up with silence to this many samples. */
  minSamples: z.int().min(1).default(400),
  /** Clips are filled up with silence to a multiple of this. */
  multipleOf: z.int().min(1).default(1),
  /** Name of an int64 attention mask input of the samples' shape, filled with ones. */
  mask: z.string().optional(),
});

const logMelInput = z.strictObject({
  kind: z.literal("log-mel"),
  tensor: z.string().optional(),
  /** Axes: T frames, M mel bands, B and C of size 1. "BMT" for [1,mels,T]. */
  layout: axes("BCTM", "TM").default("BTM"),
  sampleRate: z.number().min(1000).max(384000).default(16000),
  /** Window and FFT length in samples; the window is filled up with zeros to the FFT's length. */
  window: z.int().min(2).max(16384).multipleOf(2).default(400),
  fft: z.int().min(2).max(16384).multipleOf(2).default(512),
  hop: z.int().min(1).max(16384).default(160),
  shape: z.enum(["hann", "hamming"]).default("hann"),
  /** true: frame f is centred on sample f·hop; false: whole windows only. */
  centre: z.boolean().default(false),
  mels: z.int().min(1).max(512).default(80),
  /** Hz; high defaults to 7600. */
  low: z.number().nonnegative().default(0),
  high: z.number().positive().default(7600),
  scale: z.enum(["htk", "slaney"]).default("htk"),
  norm: z.enum(["peak", "area"]).default("peak"),
  /** Added to a band's energy, or the least that counts, before the logarithm. */
  floor: z.number().positive().default(1e-6),
  floorBy: z.enum(["add", "clamp"]).default("add"),
  log: z.enum(["ln", "log10", "db"]).default("ln"),
  /** (x − mean) / std. */
  mean: z.number().default(0),
  std: z.number().positive().default(1),
});

const framesInput = z.strictObject({
  kind: z.literal("frames"),
  tensor: z.string().optional(),
  /** Axes: T frames, C channels, H, W, and B of size 1. */
  layout: axes("BTCHW", "TCHW").default("TCHW"),
  /** [height, width] in pixels. */
  size: z.tuple([z.int().min(1).max(4096), z.int().min(1).max(4096)]),
  colour: z.enum(["grey", "rgb", "bgr"]).default("rgb"),
  /** Factor on grey levels 0 … 255, before mean and std. */
  scale: z.number().default(1 / 255),
  /** Per channel (or one for all): x = (level · scale − mean) / std. */
  mean: z.array(z.number()).min(1).max(3).default([0]),
  std: z.array(z.number().positive()).min(1).max(3).default([1]),
  /** How a picture of another shape is fitted: the largest middle part of the right shape, or stretched. */
  fit: z.enum(["crop", "stretch"]).default("crop"),
  /** Frames per second taken from a video. */
  fps: z.number().positive().max(240).default(25),
});

const outputSchema = z.strictObject({
  /** Output tensors to read, e.g. hidden layers; absent: the model's first. */
  tensors: z.array(z.string()).min(1).optional(),
  /** How several tensors (or several layers of an L axis) become one. */
  combine: z.enum(["mean", "concat"]).default("mean"),
  /** Axes: T time, D features, B of size 1, L layers, H and W averaged over. "BTD" for [1,T,D]; without T one row. */
  layout: axes("BTDLHW", "D").default("BTD"),
  /** Which layers of an L axis; negative counts from the end. Absent: all. */
  layers: z.array(z.int()).min(1).optional(),
  /** Width of a row after combining. */
  dim: z
    .int()
    .min(1)
    .max(1 << 20),
  /** Rows per second of clip, for time ranges; null when rows have no fixed rate. */
  rate: z.number().positive().nullable().default(null),
});

/** Schema of a manifest after its preset, if any, has been filled in. */
export const manifestSchema = z
  .strictObject({
    /** Feature folders are named `<name>-FRA` or `<name>-UTT`. */
    name: z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$/, "letters, digits, dot, dash and underscore"),
    /** Any whole number; raise it when the manifest changes what the features are. */
    version: z.int().min(0).default(1),
    modality: z.enum(["audio", "visual"]),
    /** ONNX file, relative to the manifest, or "builtin:logmel" / "builtin:gabor-face". */
    model: z.string().min(1),
    /** SHA-256 of the ONNX file; checked when given. */
    sha256: z
      .string()
      .regex(/^[0-9a-f]{64}$/, "64 lower-case hexadecimal digits")
      .optional(),
    input: z.discriminatedUnion("kind", [waveformInput, logMelInput, framesInput]),
    output: outputSchema,
    /** none: one row per frame, FRA [T,D]; mean: one vector per clip, UTT [D]. */
    pooling: z.enum(["none", "mean"]).default("none"),
    /** Long clips are encoded piece by piece. Audio: seconds, each with `context` seconds on both sides that are cut
     * off again. Visual: frames per run. */
    chunk: z
      .strictObject({
        seconds: z.number().positive().optional(),
        context: z.number().nonnegative().default(0),
        frames: z.int().min(1).max(4096).optional(),
      })
      .optional(),
    /** Where the weights come from, for people. */
    provenance: z.record(z.string(), z.string()).optional(),
  })
  .superRefine((m, context) => {
    const issue = (where: string[], message: string): void =>
      context.addIssue({ code: "custom", path: where, message });
    if ((m.modality === "audio") !== (m.input.kind !== "frames")) {
      issue(["input", "kind"], `modality ${m.modality} does not go with input ${m.input.kind}`);
    }
    if (m.input.kind === "log-mel") {
      const { window, fft, low, high, sampleRate } = m.input;
      if (fft < window)
        issue(["input", "fft"], `expected at least the window's ${window} samples, got ${fft}`);
      if (!(low < high && high <= sampleRate / 2))
        issue(["input", "high"], "expected low < high <= sampleRate / 2");
    }
    if (m.input.kind === "frames") {
      const channels = m.input.colour === "grey" ? 1 : 3;
      for (const key of ["mean", "std"] as const) {
        const { length } = m.input[key];
        if (length !== 1 && length !== channels)
          issue(["input", key], `expected 1 or ${channels} values, got ${length}`);
      }
    }
    if (m.chunk?.seconds !== undefined) {
      const rate = m.output.rate;
      const whole = (x: number): boolean => Math.abs(x - Math.round(x)) < 1e-6;
      if (m.modality !== "audio") issue(["chunk", "seconds"], "is for audio; use frames");
      else if (rate === null || !whole(rate * m.chunk.seconds) || !whole(rate * m.chunk.context)) {
        issue(["chunk"], "seconds and context must be whole numbers of rows at output.rate");
      }
    }
  });

/** A checked manifest with every default filled in. */
export type EncoderManifest = z.output<typeof manifestSchema>;
/** What a user writes; with `preset` only `model` (and mostly `name`) need be given. */
export type EncoderManifestInput = Partial<z.input<typeof manifestSchema>> & { preset?: string };

type Plain = Record<string, unknown>;
const isPlain = (value: unknown): value is Plain =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** `over` on top of `base`, objects merged key by key. */
function merge(base: Plain, over: Plain): Plain {
  const out: Plain = { ...base };
  for (const [key, value] of Object.entries(over)) {
    const below = out[key];
    out[key] = isPlain(below) && isPlain(value) ? merge(below, value) : value;
  }
  return out;
}

/**
 * Checks a manifest and fills in its preset and defaults.
 * @param where for messages, e.g. the file name
 * @throws ERR_AFFUSE_MANIFEST naming every key that is wrong
 */
export function parseManifest(value: unknown, where = "the manifest"): EncoderManifest {
  if (!isPlain(value)) {
    throw new AffuseError(
      "ERR_AFFUSE_MANIFEST",
      `${where}: expected an object with name, modality, model, input and output.`,
    );
  }
  let full: Plain = value;
  if (value.preset !== undefined) {
    const { preset, ...rest } = value;
    const base = typeof preset === "string" ? PRESETS[preset] : undefined;
    if (!base) {
      throw new AffuseError(
        "ERR_AFFUSE_MANIFEST",
        `${where}: preset ${JSON.stringify(preset)} is not known.`,
        `Presets: ${Object.keys(PRESETS).join(", ")}.`,
      );
    }
    full = merge(base as Plain, rest);
  }
  const result = manifestSchema.safeParse(full);
  if (result.success) return result.data;
  const problems = result.error.issues.map((i) => `${i.path.join(".") || "top level"}: ${i.message}`);
  throw new AffuseError(
    "ERR_AFFUSE_MANIFEST",
    `${where} is not a valid encoder manifest: ${problems.join("; ")}.`,
  );
}

/**
 * Reads a manifest file (.json, .yaml, .yml); a relative `model` is taken from the manifest's folder.
 * @throws ERR_AFFUSE_NOT_FOUND, ERR_AFFUSE_MANIFEST
 */
export function readManifest(file: string): EncoderManifest {
  const text = readText(file, 1 << 20);
  let value: unknown;
  try {
    value = file.endsWith(".json") ? JSON.parse(text) : parseYaml(text, { maxAliasCount: 16 });
  } catch (error) {
    const what = file.endsWith(".json") ? "JSON" : "YAML";
    throw new AffuseError(
      "ERR_AFFUSE_MANIFEST",
      `${file} is not valid ${what}: ${(error as Error).message}.`,
      "",
      { cause: error },
    );
  }
  const manifest = parseManifest(value, file);
  if (manifest.model.startsWith("builtin:")) return manifest;
  return { ...manifest, model: path.resolve(path.dirname(file), manifest.model) };
}
