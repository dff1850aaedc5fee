/** Spectra and mel bands as ONNX graphs: the parts that the built-in audio encoder and log-mel inputs share. */
import { cos, exp, ln, sin } from "../data/portable.ts";
import { OnnxGraph } from "./onnx.ts";

/** Constants lie on a coarse grid, so that no last bit of an elementary function can reach the file. */
export const grid = (x: number): number => Math.round(x * 32768) / 32768;

/** Hamming window, w_n = 0.54 − 0.46 cos(2πn/N), periodic. */
export function hamming(size: number): Float64Array {
  return Float64Array.from({ length: size }, (_, n) => 0.54 - 0.46 * cos((2 * Math.PI * n) / size));
}

/** Hann window, w_n = ½ − ½ cos(2πn/N), periodic. */
export function hann(size: number): Float64Array {
  return Float64Array.from({ length: size }, (_, n) => 0.5 - 0.5 * cos((2 * Math.PI * n) / size));
}

/** htk: 2595 log10(1 + f/700). slaney: linear below 1 kHz, 27 steps to each factor 6.4 above. */
export type MelScale = "htk" | "slaney";

function toMel(hz: number, scale: MelScale): number {
  if (scale === "htk") return (2595 / ln(10)) * ln(1 + hz / 700);
  return hz < 1000 ? (3 * hz) / 200 : 15 + (27 * ln(hz / 1000)) / ln(6.4);
}

function toHz(mel: number, scale: MelScale): number {
  if (scale === "htk") return 700 * (exp((mel * ln(10)) / 2595) - 1);
  return mel < 15 ? (200 * mel) / 3 : 1000 * exp(((mel - 15) * ln(6.4)) / 27);
}

export interface MelBands {
  mels: number;
  /** Hz. */
  low: number;
  high: number;
  scale?: MelScale;
  /** peak: each filter's peak is 1; area: each filter's area over Hz is 1 (Slaney's). Default peak. */
  norm?: "peak" | "area";
}

/** Triangular mel filters [mels, bins] on the frequencies (k+1)·binHz. */
export function melFilters(bands: MelBands, bins: number, binHz: number): Float64Array {
  const { mels, low, high, scale = "htk", norm = "peak" } = bands;
  const filters = new Float64Array(mels * bins);
  const edge = (i: number): number =>
    toHz(toMel(low, scale) + ((toMel(high, scale) - toMel(low, scale)) * i) / (mels + 1), scale);
  for (let m = 0; m < mels; m++) {
    const [left, centre, right] = [edge(m), edge(m + 1), edge(m + 2)];
    for (let k = 0; k < bins; k++) {
      const f = (k + 1) * binHz;
      const weight = f < centre ? (f - left) / (centre - left) : (right - f) / (right - centre);
      filters[m * bins + k] = Math.max(0, weight) * (norm === "area" ? 2 / (right - left) : 1);
    }
  }
  return filters;
}

/**
 * Appends |X_k(f)|² [1,bins,F] of a waveform [1,N], for the frequencies (k+1)/size turns per sample, k < bins.
 * @param shape the window; frame f takes the samples f·hop − pad … f·hop − pad + window − 1, silence beyond the ends
 */
export function powerSpectrum(
  g: OnnxGraph,
  waveform: string,
  {
    shape,
    hop,
    bins,
    size,
    pad,
  }: { shape: Float64Array; hop: number; bins: number; size: number; pad: number },
): string {
  const window = shape.length;
  const cosine = Float64Array.from({ length: size }, (_, i) => cos((2 * Math.PI * i) / size));
  const sine = Float64Array.from({ length: size }, (_, i) => sin((2 * Math.PI * i) / size));
  // Cosine filters, then sine filters, as one strided convolution.
  const kernels = new Float64Array(2 * bins * window);
  for (let k = 0; k < bins; k++) {
    for (let n = 0; n < window; n++) {
      const phase = ((k + 1) * n) % size;
      kernels[k * window + n] = grid((shape[n] as number) * (cosine[phase] as number));
      kernels[(bins + k) * window + n] = grid((shape[n] as number) * (sine[phase] as number));
    }
  }
  const wave = g.node("Unsqueeze", [waveform, g.integers([1])]);
  const spectrum = g.node("Conv", [wave, g.constant([2 * bins, 1, window], kernels)], {
    kernel_shape: [window],
    strides: [hop],
    pads: [pad, pad],
  });
  const pairs = g.node("Reshape", [g.node("Mul", [spectrum, spectrum]), g.integers([1, 2, bins, -1])]);
  return g.node("ReduceSum", [pairs, g.integers([1])], { keepdims: 0 });
}

/** What a model expects of its log-mel input; the manifest's `input` of kind "log-mel". */
export interface LogMelSpec extends Required<MelBands> {
  sampleRate: number;
  /** Samples. */
  window: number;
  fft: number;
  hop: number;
  shape: "hann" | "hamming";
  /** true: frame f is centred on sample f·hop, ⌊N/hop⌋ + 1 frames; false: whole windows only. */
  centre: boolean;
  /** Added to (add) or taken as the least (clamp) band energy before the logarithm. */
  floor: number;
  floorBy: "add" | "clamp";
  log: "ln" | "log10" | "db";
  mean: number;
  std: number;
}

/** ONNX bytes of a log-mel front end: `waveform` [1,N], full scale ±1 → `mel` [1,mels,F], (log energy − mean) / std. */
export function buildMelFront(spec: LogMelSpec): Uint8Array {
  const { window, fft, mels, log } = spec;
  const g = new OnnxGraph("affuse-mel-front");
  const x = g.input("waveform", [1, "samples"]);
  const bins = fft / 2;
  const shape = spec.shape === "hann" ? hann(window) : hamming(window);
  const pad = spec.centre ? window / 2 : 0;
  const power = powerSpectrum(g, x, { shape, hop: spec.hop, bins, size: fft, pad });
  const filters = melFilters(spec, bins, spec.sampleRate / fft);
  const energy = g.node("Conv", [power, g.constant([mels, bins, 1], filters)], { kernel_shape: [1] });
  const floor = g.constant([1], [spec.floor]);
  const raised = g.node(spec.floorBy === "add" ? "Add" : "Max", [energy, floor]);
  const factor = log === "ln" ? 1 : (log === "db" ? 10 : 1) / ln(10);
  const scaled = g.node("Mul", [g.node("Log", [raised]), g.constant([1], [factor / spec.std])]);
  g.node("Sub", [scaled, g.constant([1], [spec.mean / spec.std])], {}, "mel");
  g.output("mel", [1, mels, "frames"]);
  return g.bytes();
}
