/** What the suites of the gathering operators share (afg, ratio_attention): batches of frames, calls by name. */
import type { Random } from "../../lib/data/random.ts";
import type { Attributes } from "../../lib/native/addon.ts";
import { loadAddon } from "../../lib/native/index.ts";
import {
  elements,
  type Inputs,
  inferred,
  runKernel,
  runReference,
  tensor,
  type Values,
} from "../operators/run.ts";

const addon = loadAddon();
const operators = new Map(addon.operators().map((info) => [info.name, info]));

export type Made = Record<string, Values>;

/** Runs an operator and returns the outputs it makes; every output that exists is asked for unless `want` narrows them. */
export function run(
  name: string,
  inputs: Inputs,
  attributes: Attributes = {},
  options: { device?: "cpu" | "reference"; want?: string[]; threads?: number } = {},
): Made {
  const info = operators.get(name);
  if (!info) throw new Error(`no operator ${name}`);
  const shapes = inferred(addon, info, inputs, attributes);
  const want = (output: string) => options.want === undefined || options.want.includes(output);
  if (options.device === "reference")
    return present(runReference(addon.call, info, inputs, attributes, shapes, want));
  const { outputs, damage } = runKernel(addon.call, info, inputs, attributes, shapes, {
    want,
    threads: options.threads ?? 1,
  });
  if (damage.length > 0) throw new Error(damage.join("; "));
  return present(outputs);
}

function present(outputs: Record<string, Values | null>): Made {
  return Object.fromEntries(
    Object.entries(outputs).filter((entry): entry is [string, Values] => entry[1] !== null),
  );
}

/** The two devices every property is checked on. */
export const DEVICES = ["cpu", "reference"] as const;

/** x with frame t of sample b, and `junk` in every frame at or beyond its sample's length. */
export function padded(
  random: Random,
  B: number,
  T: number,
  D: number,
  lengths: readonly number[],
  junk: number,
): Values {
  const frames = Array.from({ length: B * T * D }, () => random.normal());
  return tensor([B, T, D], (i) => {
    const t = Math.floor(i / D) % T;
    const b = Math.floor(i / (T * D));
    return t < (lengths[b] as number) ? (frames[i] as number) : junk;
  });
}

/** Rows of the second dimension of a [B,T,…] tensor in another order: row t of the result is row order[t]. */
export function reordered(values: Values, order: readonly number[]): Values {
  const [B, T] = values.shape as [number, number];
  const size = elements(values.shape.slice(2));
  const data = values.data.slice();
  for (let b = 0; b < B; b++)
    for (let t = 0; t < T; t++) {
      const from = (b * T + (order[t] as number)) * size;
      data.set(values.data.subarray(from, from + size), (b * T + t) * size);
    }
  return { shape: values.shape, data };
}

/** Entries [from, from+count) of dimension 1 of a [B,N,…] tensor. */
export function part(values: Values, from: number, count: number): Values {
  const [B, N] = values.shape as [number, number];
  const size = elements(values.shape.slice(2));
  const shape = [B, count, ...values.shape.slice(2)];
  const data =
    values.data instanceof Int32Array ? new Int32Array(elements(shape)) : new Float64Array(elements(shape));
  for (let b = 0; b < B; b++) {
    const start = (b * N + from) * size;
    data.set(values.data.subarray(start, start + count * size), b * count * size);
  }
  return { shape, data };
}

/** Largest |a − b| relative to the largest |b| (at least 1e-3); Infinity when shapes differ or a value is not finite. */
export function distance(a: Values, b: Values): number {
  if (a.shape.join() !== b.shape.join()) return Number.POSITIVE_INFINITY;
  let most = 0;
  let size = 1e-3;
  for (let i = 0; i < b.data.length; i++) {
    const difference = Math.abs((a.data[i] as number) - (b.data[i] as number));
    if (!Number.isFinite(difference)) return Number.POSITIVE_INFINITY;
    most = Math.max(most, difference);
    size = Math.max(size, Math.abs(b.data[i] as number));
  }
  return most / size;
}
