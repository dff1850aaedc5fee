/**
 * The operators with matrix products: sizes of the papers, and awkward ones (primes, one row, one frame, widths
 * beside a tile's edge).
 */
import type { OperatorCase, TensorSpec } from "../types.ts";
import { batch, type Extra, operator, weight } from "./build.ts";

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

export const OPERATOR_CASES: OperatorCase[] = [
  // --- factorized bilinear pooling: P2's own sizes (m = n = 1024 features, 256 outputs, k = 4) and VQA's
  // published ones
  ...[256, 64, 16].map((B) => fbp({ B, m: 1024, n: 2048, o: 1000, k: 5 }, { tags: ["targets"] })),
  ...[256, 32, 1].map((B) =>
    fbp({ B, m: 1024, n: 1024, o: 256, k: 4 }, { tags: B === 1 ? ["targets"] : B === 32 ? ["quick"] : [] }),
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
];
