import { AffuseError } from "../errors.ts";
import type { Value } from "../graph/value.ts";
import type { Builder } from "../nn/builder.ts";
import { weightedSum } from "../nn/layers.ts";
import { conv2d, lrn, type Maps, maxPool2d } from "../nn/maps.ts";

/** One layer of a fully convolutional trunk; kernels and windows are square. */
export type FcnLayer =
  | { kind: "conv"; out: number; kernel: number; stride: number; pad: number; lrn: boolean }
  | { kind: "pool"; size: number; stride: number };

export interface FcnConfig {
  layers: readonly FcnLayer[];
  /** What one column of the map becomes: all its frequencies joined, or their mean. */
  frequency: "concat" | "mean";
  /** α of the LRN is divided by n, as PyTorch and Caffe have it. */
  alphaOverN: boolean;
}

const conv = (out: number, kernel: number, stride: number, pad: number, lrn: boolean): FcnLayer => ({
  kind: "conv",
  out,
  kernel,
  stride,
  pad,
  lrn,
});
const pool: FcnLayer = { kind: "pool", size: 3, stride: 2 };

/** The trunk of spec 2.2 (P2; AlexNet's convolutions): 200 bins → 5 frequencies of 256 channels. */
export const defaultFcn: FcnConfig = {
  layers: [
    conv(96, 11, 4, 0, true),
    pool,
    conv(256, 5, 1, 2, true),
    pool,
    conv(384, 3, 1, 1, false),
    conv(384, 3, 1, 1, false),
    conv(256, 3, 1, 1, false),
    pool,
  ],
  frequency: "concat",
  alphaOverN: false,
};

/** How many rows or columns `n` of them become; 0 if a window does not fit. */
export function fcnExtent(n: number, config: FcnConfig = defaultFcn): number {
  return config.layers.reduce((extent, layer) => {
    const [size, pad] = layer.kind === "conv" ? [layer.kernel, layer.pad] : [layer.size, 0];
    return extent <= 0 || extent + 2 * pad < size
      ? 0
      : Math.floor((extent + 2 * pad - size) / layer.stride) + 1;
  }, n);
}

/** The least n that leaves something: shorter clips have no column. */
export function fcnLeast(config: FcnConfig = defaultFcn): number {
  let n = 1;
  while (fcnExtent(n, config) === 0) n++;
  return n;
}

export interface FcnFeatures {
  /** [B,T′,F′·C] (`mean`: [B,T′,C]): for each column of the map its frequencies, each with its channels. */
  x: Value;
  /** int32 [B]: columns that are each clip's own, for the gathering over time; null if no lengths were given. */
  lengths: Value | null;
}

/**
 * The fully convolutional audio trunk (spec 2.2): spectrograms x [B,T,F] (T frames of F bins), lengths int32 [B] → features over
 * time. Rows of the map are frequencies, columns are time.
 *
 * Every layer computes each clip's own columns alone and keeps the others at zero, so a clip in a padded batch gives bit for bit
 * what it gives alone; what lies in the padding is never read. A clip too short for one column has length 0: features and
 * gradients of zero.
 *
 * @throws AffuseError ERR_AFFUSE_SHAPE if T or F is below fcnLeast(config)
 */
export function fcnTrunk(
  b: Builder,
  name: string,
  input: { x: Value; lengths?: Value | null },
  config: FcnConfig = defaultFcn,
): FcnFeatures {
  const [batch, frames, bins] = input.x.shape as [number, number, number];
  const least = fcnLeast(config);
  if (frames < least || bins < least) {
    throw new AffuseError(
      "ERR_AFFUSE_SHAPE",
      `expected at least ${least} frames and ${least} bins for ${name}, got ${frames} frames of ${bins} bins.`,
    );
  }
  const swap = (x: Value) => b.graph.op("transpose", { x }, { axis0: 1, axis1: 2 }).y as Value;
  let maps: Maps = {
    x: b.graph.reshape(swap(input.x), [batch, bins, frames, 1]),
    widths: input.lengths ?? null,
  };
  let convolutions = 0;
  for (const layer of config.layers) {
    if (layer.kind === "pool") {
      maps = maxPool2d(b, maps, layer.size, layer.stride);
      continue;
    }
    const { out, kernel, stride, pad } = layer;
    maps = conv2d(b, `${name}.conv${++convolutions}`, maps, { out, kernel, stride, pad, activation: "relu" });
    if (layer.lrn) maps = lrn(b, maps, { alphaOverN: config.alphaOverN });
  }
  const [, rows, columns, channels] = maps.x.shape as [number, number, number, number];
  if (config.frequency === "mean") {
    const flat = b.graph.reshape(maps.x, [batch, rows, columns * channels]);
    const w = b.graph.constant(
      { dtype: "f32", shape: [batch, rows] },
      new Float32Array(batch * rows).fill(1 / rows),
    );
    return { x: b.graph.reshape(weightedSum(b, flat, w), [batch, columns, channels]), lengths: maps.widths };
  }
  return { x: b.graph.reshape(swap(maps.x), [batch, columns, rows * channels]), lengths: maps.widths };
}
