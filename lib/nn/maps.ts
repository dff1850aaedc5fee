import { uniformInit } from "../graph/parameters.ts";
import type { Value } from "../graph/value.ts";
import type { Builder } from "./builder.ts";

/** A batch of channel-last maps. */
export interface Maps {
  /** [B,H,W,C] */
  x: Value;
  /** int32 [B]: columns (W) that are each item's own; the others are zeros and never matter. Absent: all. */
  widths: Value | null;
}

const layout = "nhwc";

/**
 * Convolution with activation: [B,H,W,C] → [B,OH,OW,out], OH = ⌊(H + 2 pad − kernel)/stride⌋ + 1. W [out,C,kernel,kernel] and
 * b [out] start uniform on ±1/√fan-in.
 */
export function conv2d(
  b: Builder,
  name: string,
  { x, widths }: Maps,
  config: { out: number; kernel: number; stride?: number; pad?: number; activation?: "none" | "relu" },
): Maps {
  const channels = x.shape[3] as number;
  const { out, kernel, stride = 1, pad = 0, activation = "none" } = config;
  const fanIn = channels * kernel * kernel;
  const W = b.parameter(`${name}.W`, [out, channels, kernel, kernel], uniformInit(fanIn));
  const bias = b.parameter(`${name}.b`, [out], uniformInit(fanIn));
  const { y, yWidths } = b.graph.op("conv2d", { x, W, b: bias, widths }, { stride, pad, activation, layout });
  return { x: y as Value, widths: yWidths ?? null };
}

/** Largest element of each window: [B,H,W,C] → [B,OH,OW,C]. */
export function maxPool2d(b: Builder, { x, widths }: Maps, size: number, stride: number): Maps {
  const { y, yWidths } = b.graph.op("max_pool2d", { x, widths }, { size, stride, layout });
  return { x: y as Value, widths: yWidths ?? null };
}

/** Local response normalisation across channels (spec 1.6); the specification's constants unless given. */
export function lrn(
  b: Builder,
  { x, widths }: Maps,
  config: { size?: number; alpha?: number; beta?: number; k?: number; alphaOverN?: boolean } = {},
): Maps {
  return { x: b.graph.op("lrn", { x, widths }, { ...config, layout }).y as Value, widths };
}
