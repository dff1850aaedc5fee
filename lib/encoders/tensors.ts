/** Clips to input tensors and output tensors to feature rows, as an encoder's manifest says. Pure functions on arrays. */
import { AffuseError } from "../errors.ts";
import { fitFrames, type FrameBlock } from "../media/image.ts";
import { resample } from "../media/resample.ts";
import type { EncoderManifest } from "./manifest.ts";

export interface PlainTensor {
  dims: number[];
  data: Float32Array;
}

/** Rows of features, row-major [rows, dim]. */
export interface Rows {
  data: Float32Array;
  rows: number;
  dim: number;
}

type WaveformInput = Extract<EncoderManifest["input"], { kind: "waveform" }>;
type LogMelInput = Extract<EncoderManifest["input"], { kind: "log-mel" }>;
type FramesInput = Extract<EncoderManifest["input"], { kind: "frames" }>;

/** Mono samples at the encoder's rate, normalised and filled up to the length the model can take. */
export function prepareWaveform(
  samples: Float32Array,
  rate: number,
  input: WaveformInput | LogMelInput,
): Float32Array {
  const at = resample(samples, rate, input.sampleRate);
  const { normalize, scale, minSamples, multipleOf } =
    input.kind === "waveform"
      ? input
      : { normalize: "none", scale: 1, minSamples: input.window, multipleOf: 1 };
  const length = Math.max(minSamples, Math.ceil(at.length / multipleOf) * multipleOf);
  const out = new Float32Array(length);
  let mean = 0;
  let gain = scale;
  if (normalize === "standard" && at.length > 0) {
    mean = at.reduce((a, b) => a + b, 0) / at.length;
    const variance = at.reduce((a, b) => a + (b - mean) ** 2, 0) / at.length;
    gain = scale / Math.sqrt(variance + 1e-7);
  }
  for (let i = 0; i < at.length; i++) out[i] = ((at[i] as number) - mean) * gain;
  return out;
}

/** Log-mel energies [mels,T] in the input tensor's shape and order. */
export function logMelTensor(mel: PlainTensor, input: LogMelInput): PlainTensor {
  const [T, M] = [mel.dims.at(-1) as number, mel.dims.at(-2) as number];
  const sizes: Record<string, number> = { B: 1, C: 1, T, M };
  const dims = [...input.layout].map((axis) => sizes[axis] as number);
  if (input.layout.indexOf("M") < input.layout.indexOf("T")) return { dims, data: mel.data };
  const data = new Float32Array(T * M);
  for (let t = 0; t < T; t++) for (let m = 0; m < M; m++) data[t * M + m] = mel.data[m * T + t] as number;
  return { dims, data };
}

/** Samples in the input tensor's shape: [1,N], [N] or [1,1,N]. */
export function waveformTensor(samples: Float32Array, input: WaveformInput): PlainTensor {
  return { dims: [...input.layout].map((axis) => (axis === "N" ? samples.length : 1)), data: samples };
}

/** Frames fitted to the encoder's size and colour, normalised, in the order of the manifest's layout. */
export function framesTensor(block: FrameBlock, input: FramesInput): PlainTensor {
  const [height, width] = input.size;
  const channels = input.colour === "grey" ? 1 : 3;
  const fitted = fitFrames(block, { height, width, channels, fit: input.fit });
  const sizes: Record<string, number> = { B: 1, T: block.frames, C: channels, H: height, W: width };
  const dims = [...input.layout].map((axis) => sizes[axis] as number);
  const stride: Record<string, number> = {};
  let step = 1;
  for (let i = dims.length - 1; i >= 0; i--) {
    stride[input.layout[i] as string] = step;
    step *= dims[i] as number;
  }
  const data = new Float32Array(step);
  const pixels = height * width;
  for (let c = 0; c < channels; c++) {
    const source = input.colour === "bgr" ? 2 - c : c;
    const mean = (input.mean[c] ?? input.mean[0]) as number;
    const std = (input.std[c] ?? input.std[0]) as number;
    const factor = input.scale / std;
    const offset = mean / std;
    for (let t = 0; t < block.frames; t++) {
      const from = t * pixels * channels + source;
      const to = t * (stride.T as number) + c * (stride.C as number);
      for (let y = 0, i = from; y < height; y++) {
        let o = to + y * (stride.H as number);
        for (let x = 0; x < width; x++, i += channels, o += stride.W as number)
          data[o] = (fitted[i] as number) * factor - offset;
      }
    }
  }
  return { dims, data };
}

function shapeError(manifest: EncoderManifest, message: string): AffuseError {
  return new AffuseError(
    "ERR_AFFUSE_ENCODER_OUTPUT",
    `encoder ${manifest.name}: ${message}.`,
    "Correct output in its manifest.",
  );
}

/** One output tensor as one or several [T,D] tables (several: the layers of an L axis). H and W are averaged over. */
function tables(tensor: PlainTensor, manifest: EncoderManifest): Rows[] {
  const { layout, layers } = manifest.output;
  const { dims, data } = tensor;
  if (dims.length !== layout.length) {
    throw shapeError(manifest, `expected an output of axes ${layout}, got shape [${dims.join(",")}]`);
  }
  const size: Record<string, number> = { B: 1, T: 1, D: 1, L: 1, H: 1, W: 1 };
  const stride: Record<string, number> = { B: 0, T: 0, D: 0, L: 0, H: 0, W: 0 };
  let step = 1;
  for (let i = dims.length - 1; i >= 0; i--) {
    size[layout[i] as string] = dims[i] as number;
    stride[layout[i] as string] = step;
    step *= dims[i] as number;
  }
  const [T, D, L, H, W] = ["T", "D", "L", "H", "W"].map((axis) => size[axis] as number) as [
    number,
    number,
    number,
    number,
    number,
  ];
  const [sT, sD, sL, sH, sW] = ["T", "D", "L", "H", "W"].map((axis) => stride[axis] as number) as [
    number,
    number,
    number,
    number,
    number,
  ];
  if (size.B !== 1) throw shapeError(manifest, `expected a batch axis of 1, got ${size.B}`);
  const wanted = layout.includes("L") ? (layers ?? Array.from({ length: L }, (_, l) => l)) : [0];
  return wanted.map((layer) => {
    const l = layer < 0 ? layer + L : layer;
    if (l < 0 || l >= L) throw shapeError(manifest, `layer ${layer} is not among ${L}`);
    if (sD === 1 && sT === D && H * W === 1)
      return { data: data.slice(l * sL, l * sL + T * D), rows: T, dim: D };
    const out = new Float32Array(T * D);
    for (let t = 0; t < T; t++) {
      for (let d = 0; d < D; d++) {
        let sum = 0;
        for (let y = 0; y < H; y++)
          for (let x = 0; x < W; x++) sum += data[l * sL + t * sT + d * sD + y * sH + x * sW] as number;
        out[t * D + d] = sum / (H * W);
      }
    }
    return { data: out, rows: T, dim: D };
  });
}

/**
 * The model's outputs as one table [rows, dim].
 * @param outputs in the order of manifest.output.tensors
 * @throws ERR_AFFUSE_ENCODER_OUTPUT another rank, width or number of rows than the manifest says
 */
export function collectRows(outputs: readonly PlainTensor[], manifest: EncoderManifest): Rows {
  const parts = outputs.flatMap((tensor) => tables(tensor, manifest));
  const first = parts[0] as Rows;
  if (parts.some((p) => p.rows !== first.rows))
    throw shapeError(manifest, "its outputs differ in their number of rows");
  const joined =
    parts.length === 1
      ? first
      : manifest.output.combine === "concat"
        ? concatenated(parts)
        : averaged(parts, manifest);
  if (joined.dim !== manifest.output.dim) {
    throw shapeError(manifest, `expected rows of ${manifest.output.dim} values, got ${joined.dim}`);
  }
  return joined;
}

function averaged(parts: readonly Rows[], manifest: EncoderManifest): Rows {
  const { rows, dim } = parts[0] as Rows;
  if (parts.some((p) => p.dim !== dim))
    throw shapeError(manifest, "its outputs differ in width and cannot be averaged");
  const data = new Float32Array(rows * dim);
  for (const part of parts)
    for (let i = 0; i < data.length; i++)
      data[i] = (data[i] as number) + (part.data[i] as number) / parts.length;
  return { data, rows, dim };
}

function concatenated(parts: readonly Rows[]): Rows {
  const { rows } = parts[0] as Rows;
  const dim = parts.reduce((sum, p) => sum + p.dim, 0);
  const data = new Float32Array(rows * dim);
  let at = 0;
  for (const part of parts) {
    for (let t = 0; t < rows; t++)
      data.set(part.data.subarray(t * part.dim, (t + 1) * part.dim), t * dim + at);
    at += part.dim;
  }
  return { data, rows, dim };
}

/** Tables one below another. */
export function stackRows(parts: readonly Rows[], dim: number): Rows {
  const rows = parts.reduce((sum, p) => sum + p.rows, 0);
  const data = new Float32Array(rows * dim);
  let at = 0;
  for (const part of parts) {
    data.set(part.data, at);
    at += part.data.length;
  }
  return { data, rows, dim };
}

/** Mean over rows, [1, dim]; summed in double precision. No rows: zeros. */
export function meanRow(table: Rows): Rows {
  const sum = new Float64Array(table.dim);
  for (let i = 0; i < table.data.length; i++)
    sum[i % table.dim] = (sum[i % table.dim] as number) + (table.data[i] as number);
  return { data: Float32Array.from(sum, (v) => v / Math.max(1, table.rows)), rows: 1, dim: table.dim };
}
