/**
 * Operator cases: sizes of the papers, and awkward ones (primes, one row, one frame, widths beside a tile's
 * edge).
 */
import type { RoofKind } from "../../lib/native/addon.ts";
import type { OperatorCase, TensorSpec } from "../types.ts";

type Extra = Partial<Omit<OperatorCase, "kind" | "op">>;

const batch = (shape: number[], more: Partial<TensorSpec> = {}): TensorSpec => ({
  shape,
  role: "batch",
  ...more,
});
const weight = (shape: number[], scale = 1 / Math.sqrt(shape[shape.length - 1] as number)): TensorSpec => ({
  shape,
  role: "weight",
  scale,
});
const label = (sizes: Record<string, number | string>) =>
  Object.entries(sizes)
    .map(([key, value]) => `${key}=${value}`)
    .join(",");

function operator(
  op: string,
  sizes: Record<string, number | string>,
  tensors: Record<string, TensorSpec>,
  extra: Extra,
): OperatorCase {
  const what = extra.gradients ? `${op}+backward` : op;
  return {
    kind: "operator",
    name: `${what}/${label(sizes)}`,
    tags: [],
    op,
    attributes: {},
    tensors,
    via: "program",
    residency: "rotating",
    stream: "read.dram",
    peers: {},
    ...extra,
  };
}

export interface FbpSize {
  B: number;
  m: number;
  n: number;
  o: number;
  k: number;
}

/**
 * Factorized bilinear pooling. With gradients ε is 1e-2: at the default 1e-8 the signed root is so steep near
 * s = 0 that float32 results of any two libraries differ there, and nothing could be checked. It costs the
 * same.
 */
export function fbp({ B, m, n, o, k }: FbpSize, extra: Extra = {}): OperatorCase {
  const upstream: Record<string, TensorSpec> = extra.gradients ? { dz: batch([B, o]) } : {};
  const tensors = {
    a: batch([B, m]),
    v: batch([B, n]),
    U: weight([o * k, m]),
    V: weight([o * k, n]),
    ...upstream,
  };
  const sizes: Record<string, number | string> = { B, m, n, o, k };
  if (extra.attributes?.precision) sizes.precision = String(extra.attributes.precision);
  return operator("fbp", sizes, tensors, {
    ...extra,
    attributes: { k, ...(extra.gradients ? { eps: 1e-2 } : {}), ...extra.attributes },
    peers: extra.peers ?? { ort: !extra.gradients, torch: true },
    compare: "signed-square",
  });
}

/**
 * Attention-guided gathering. `shortest` below T gives mixed lengths; the FLOPs then count the frames that
 * are there. Without the gradient of x (frozen features) the product with Wᵀ and the outer sum are not needed
 * and not counted (kernels/afg/afg.h).
 */
export function afg(
  { B, T, D, A, shortest = T }: { B: number; T: number; D: number; A: number; shortest?: number },
  extra: Extra = {},
): OperatorCase {
  const mixed = shortest < T;
  const tensors: Record<string, TensorSpec> = {
    x: batch([B, T, D]),
    W: weight([A, D]),
    b: weight([A]),
    u: weight([A]),
  };
  if (mixed) tensors.lengths = batch([B], { range: [shortest, T] });
  if (extra.gradients) tensors.dc = batch([B, 1, D]);
  const sizes: Record<string, number | string> = { B, T: mixed ? `${shortest}-${T}` : T, D, A };
  if (extra.gradients) sizes.gradients = extra.gradients.includes("dx") ? "all" : "weights";
  if (extra.attributes?.precision) sizes.precision = String(extra.attributes.precision);
  return operator("afg", sizes, tensors, {
    ...extra,
    attributes: { scale: 0.3, ...extra.attributes },
    peers: extra.peers ?? { ort: !extra.gradients && !mixed, torch: true },
  });
}

/**
 * FLOPs of AFG over so many valid frames; `gradients`: those of the backward alone (kernels/afg/afg.h, k
 * saved).
 */
export function afgFlops(frames: number, A: number, D: number, what: "forward" | "all" | "weights"): number {
  if (what === "forward") return 2 * frames * A * D + 2 * frames * (A + D);
  const product = 2 * frames * A * D;
  return 2 * frames * D + 4 * frames * A + product + (what === "all" ? product + 2 * frames * D : 0);
}

/** FLOPs and bytes of an AFG case by the frames that are valid. */
export function afgCost(test: OperatorCase, frames: number): { flops: number; bytes: number } {
  const [B = 0, , D = 0] = test.tensors.x?.shape ?? [];
  const A = test.tensors.W?.shape[0] ?? 0;
  let flops = afgFlops(frames, A, D, "forward");
  let bytes = 4 * (frames * D + A * D + 2 * A + B * D + frames);
  if (test.gradients) {
    const dx = test.gradients.includes("dx");
    flops += afgFlops(frames, A, D, dx ? "all" : "weights");
    bytes += 4 * (frames * D * (dx ? 2 : 1) + frames * A + 2 * A * D + B * D + frames);
  }
  return { flops, bytes };
}

/** y = x Wᵀ + b: the matrix core by itself. */
export function linear({ M, N, K }: { M: number; N: number; K: number }, extra: Extra = {}): OperatorCase {
  const tensors: Record<string, TensorSpec> = { x: batch([M, K]), W: weight([N, K]), b: weight([N], 1) };
  if (extra.gradients) tensors.dy = batch([M, N]);
  return operator("linear", { M, N, K }, tensors, {
    ...extra,
    peers: extra.peers ?? { ort: !extra.gradients, torch: true },
  });
}

const ALL_AFG = ["dx", "dW", "db", "du"];
const WEIGHTS_AFG = ["dW", "db", "du"];
const ALL_FBP = ["da", "dv", "dU", "dV"];

/** An operator that streams: `sets` rotate through DRAM. */
function stream(
  op: string,
  sizes: Record<string, number | string>,
  tensors: Record<string, TensorSpec>,
  roof: RoofKind,
  extra: Extra = {},
): OperatorCase {
  return operator(op, sizes, tensors, {
    via: "call",
    stream: roof,
    ...extra,
    peers: extra.peers ?? { torch: true },
  });
}

const N = 1 << 22;
const flat = (more: Partial<TensorSpec> = {}) => batch([N], more);

export const OPERATOR_CASES: OperatorCase[] = [
  // --- factorized bilinear pooling: P2's own sizes (m = n = 1024 features, 256 outputs, k = 4) and VQA's
  // published ones
  ...[256, 64, 16].map((B) =>
    fbp({ B, m: 1024, n: 2048, o: 1000, k: 5 }, { tags: ["targets", ...(B === 64 ? ["quick"] : [])] }),
  ),
  ...[256, 32, 1].map((B) =>
    fbp({ B, m: 1024, n: 1024, o: 256, k: 4 }, { tags: B === 1 ? ["targets"] : [] }),
  ),
  fbp(
    { B: 1, m: 1024, n: 1024, o: 256, k: 4 },
    {
      residency: "rotating weights",
      tags: ["targets"],
      name: "fbp/B=1,m=1024,n=1024,o=256,k=4,weights=DRAM",
    },
  ),
  ...[256, 1].map((B) =>
    fbp({ B, m: 1024, n: 2048, o: 1000, k: 5 }, { attributes: { precision: "bf16" }, tags: ["targets"] }),
  ),
  fbp({ B: 37, m: 131, n: 517, o: 33, k: 3 }, { tags: ["awkward", "quick"] }),
  fbp({ B: 101, m: 768, n: 1000, o: 127, k: 7 }, { tags: ["awkward"] }),
  fbp({ B: 256, m: 1024, n: 2048, o: 1000, k: 5 }, { gradients: ALL_FBP, tags: ["targets"] }),
  fbp({ B: 37, m: 131, n: 517, o: 33, k: 3 }, { gradients: ALL_FBP, tags: ["awkward", "quick"] }),
  // --- attention-guided gathering
  afg({ B: 32, T: 200, D: 1024, A: 256, shortest: 67 }, { tags: ["targets"] }),
  afg({ B: 32, T: 200, D: 512, A: 512, shortest: 67 }, { tags: ["targets"] }),
  afg({ B: 32, T: 200, D: 1024, A: 256 }, { tags: ["targets"] }),
  afg({ B: 8, T: 64, D: 1024, A: 256 }, { tags: ["quick"] }),
  afg({ B: 5, T: 37, D: 131, A: 67, shortest: 1 }, { tags: ["awkward", "quick"] }),
  afg({ B: 32, T: 200, D: 1024, A: 256, shortest: 67 }, { gradients: ALL_AFG, tags: ["targets"] }),
  afg({ B: 32, T: 200, D: 1024, A: 256, shortest: 67 }, { gradients: WEIGHTS_AFG, tags: ["targets"] }),
  afg({ B: 32, T: 200, D: 1024, A: 256 }, { gradients: ALL_AFG, tags: ["targets"] }),
  afg({ B: 5, T: 37, D: 131, A: 67, shortest: 1 }, { gradients: ALL_AFG, tags: ["awkward", "quick"] }),
  ...[{}, { gradients: ALL_AFG }].map((gradients) =>
    afg(
      { B: 32, T: 200, D: 1024, A: 256, shortest: 67 },
      { ...gradients, attributes: { precision: "bf16" } },
    ),
  ),
  afg({ B: 5, T: 37, D: 131, A: 67, shortest: 1 }, { attributes: { precision: "bf16" }, tags: ["awkward"] }),
  // --- the matrix core
  linear({ M: 1024, N: 1024, K: 1024 }, { tags: ["targets"] }),
  ...[64, 16].map((M) =>
    linear({ M, N: 1024, K: 1024 }, { tags: ["targets", ...(M === 64 ? ["quick"] : [])] }),
  ),
  linear({ M: 1, N: 1024, K: 1024 }),
  linear({ M: 257, N: 509, K: 263 }, { tags: ["awkward", "quick"] }),
  linear({ M: 256, N: 1024, K: 1024 }, { gradients: ["dx", "dW", "db"] }),
  // --- rows and frames
  stream(
    "layer_norm",
    { R: 6400, C: 1024 },
    { x: batch([6400, 1024]), gamma: weight([1024]), beta: weight([1024]) },
    "copy.dram",
  ),
  stream(
    "layer_norm",
    { R: 6400, C: 1024 },
    { x: batch([6400, 1024]), gamma: weight([1024]), beta: weight([1024]), dy: batch([6400, 1024]) },
    "copy.dram",
    { gradients: ["dx", "dgamma", "dbeta"] },
  ),
  stream(
    "ratio_attention",
    { B: 32, T: 200, D: 1024 },
    { x: batch([32, 200, 1024]), q: weight([1024]), beta: weight([1]) },
    "read.dram",
  ),
  stream(
    "ratio_attention",
    { B: 32, T: 200, D: 1024 },
    { x: batch([32, 200, 1024]), q: weight([1024]), beta: weight([1]), dc: batch([32, 1024]) },
    "copy.dram",
    { gradients: ["dx", "dq", "dbeta"] },
  ),
  stream("softmax", { R: 6400, C: 1000 }, { x: batch([6400, 1000]) }, "copy.dram", {
    peers: { ort: true, torch: true },
  }),
  // --- maps of the FCN (spec 2.2), channel-first as the peers have them
  ...([{}, { precision: "bf16" }] as Record<string, string>[]).map((precision) =>
    operator(
      "conv2d",
      { B: 8, C: 96, H: 23, W: 60, O: 256, k: 5, ...precision },
      { x: batch([8, 96, 23, 60]), W: weight([256, 96, 5, 5], 0.02), b: weight([256], 1) },
      { attributes: { stride: 1, pad: 2, ...precision }, peers: { ort: true, torch: true } },
    ),
  ),
  operator(
    "conv2d",
    { B: 3, C: 7, H: 19, W: 31, O: 13, k: 3 },
    { x: batch([3, 7, 19, 31]), W: weight([13, 7, 3, 3], 0.1), b: weight([13], 1) },
    { attributes: { stride: 2, pad: 1 }, peers: { ort: true, torch: true }, tags: ["awkward", "quick"] },
  ),
  stream("max_pool2d", { B: 8, C: 96, H: 48, W: 123, size: 3 }, { x: batch([8, 96, 48, 123]) }, "read.dram", {
    attributes: { size: 3, stride: 2 },
    peers: { ort: true, torch: true },
  }),
  ...(["nchw", "nhwc"] as const).map((layout) =>
    stream(
      "lrn",
      { B: 8, C: 96, H: 48, W: 123, layout },
      { x: batch(layout === "nchw" ? [8, 96, 48, 123] : [8, 48, 123, 96]) },
      "copy.dram",
      {
        attributes: { layout },
        // As the FCN runs it: in native buffers, which have pages as large as the roof's.
        ...(layout === "nhwc" && { via: "program" }),
        peers: layout === "nchw" ? { ort: true, torch: true } : {},
        tags: ["targets"],
      },
    ),
  ),
  stream("lrn", { B: 1, C: 96, H: 20, W: 20, layout: "nhwc" }, { x: batch([1, 20, 20, 96]) }, "read.l2", {
    attributes: { layout: "nhwc" },
    via: "program",
    residency: "cached",
    peers: {},
    note: "without memory's part",
  }),
  stream(
    "softmax_cross_entropy",
    { B: 4096, C: 6 },
    { logits: { shape: [4096, 6], role: "whole" }, labels: { shape: [4096], role: "whole", range: [0, 5] } },
    "read.dram",
    { residency: "cached" },
  ),
  // --- elementwise: through DRAM
  stream("activation", { N, kind: "gelu" }, { x: flat() }, "copy.dram", {
    attributes: { activation: "gelu" },
  }),
  stream("activation", { N, kind: "tanh" }, { x: flat() }, "copy.dram", {
    attributes: { activation: "tanh" },
    tags: ["quick"],
  }),
  stream("dropout", { N }, { x: flat() }, "copy.dram", {
    attributes: { p: 0.3, seed: 7 },
    tags: ["targets"],
    note: "PyTorch's masks are other random numbers",
  }),
  stream("add", { N }, { a: flat(), b: flat() }, "copy.dram"),
  stream("mul", { N }, { a: flat(), b: flat() }, "copy.dram"),
  stream(
    "adamw",
    { N: 1 << 21 },
    {
      p: batch([1 << 21]),
      g: batch([1 << 21]),
      m: batch([1 << 21], { scale: 0.1 }),
      v: batch([1 << 21], { positive: true, scale: 0.01 }),
    },
    "update.dram",
    { tags: ["targets", "quick"] },
  ),
  stream("grad_norm", { N }, { g: { shape: [N], role: "whole" } }, "read.dram"),
];
