/** How operator cases are written down. */
import type { RoofKind } from "../../lib/native/addon.ts";
import type { OperatorCase, TensorSpec } from "../types.ts";

export type Extra = Partial<Omit<OperatorCase, "kind" | "op">>;

export const batch = (shape: number[], more: Partial<TensorSpec> = {}): TensorSpec => ({
  shape,
  role: "batch",
  ...more,
});
export const weight = (
  shape: number[],
  scale = 1 / Math.sqrt(shape[shape.length - 1] as number),
): TensorSpec => ({
  shape,
  role: "weight",
  scale,
});
const label = (sizes: Record<string, number | string>) =>
  Object.entries(sizes)
    .map(([key, value]) => `${key}=${value}`)
    .join(",");

export function operator(
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

/** An operator that streams: `sets` rotate through DRAM. */
export function stream(
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
