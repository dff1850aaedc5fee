/**
 * Before a case is timed its result is compared with the float64 reference. Where the whole reference would
 * take too long, it is computed for a few rows of the batch; gradients of weights, which sum over the batch,
 * are then compared with the upstream gradient set to zero in all other rows, so that the timed shape still
 * computes them.
 */
import { AffuseError } from "../lib/errors.ts";
import type { HostTensor, NativeAddon, TensorDesc } from "../lib/native/addon.ts";
import { callStages, type Ours, type Plan, planOf, type Results } from "./ours.ts";
import { elements, type Sets } from "./tensors.ts";
import type { OperatorCase } from "./types.ts";

/** FLOPs of the reference that are worth waiting for: about a quarter of a second. */
const REFERENCE_FLOPS = 1e8;

export interface Checked {
  against: string;
  difference: number;
}

/**
 * The first, the last and evenly spread rows; a prefix where a row's number takes part in its result
 * (dropout).
 */
function pickRows(batch: number, count: number, prefix: boolean): number[] {
  if (count >= batch) return Array.from({ length: batch }, (_, i) => i);
  if (prefix || count === 1) return Array.from({ length: count }, (_, i) => i);
  return Array.from({ length: count }, (_, i) => Math.round((i * (batch - 1)) / (count - 1)));
}

function takeRows(tensor: HostTensor, rows: readonly number[]): HostTensor {
  const [batch = 1, ...rest] = tensor.shape;
  const width = elements(tensor.shape) / batch;
  const data = new (tensor.data.constructor as typeof Float32Array)(rows.length * width);
  rows.forEach((row, i) => {
    data.set((tensor.data as Float32Array).subarray(row * width, (row + 1) * width), i * width);
  });
  return { dtype: tensor.dtype, shape: [rows.length, ...rest], data };
}

function onlyRows(tensor: HostTensor, rows: readonly number[]): HostTensor {
  const width = elements(tensor.shape) / (tensor.shape[0] as number);
  const data = new Float32Array(tensor.data.length);
  for (const row of rows)
    data.set((tensor.data as Float32Array).subarray(row * width, (row + 1) * width), row * width);
  return { ...tensor, data };
}

/** Rounded to the nearest bf16, ties to even; for finite numbers. */
function roundedToBf16(tensor: HostTensor): HostTensor {
  if (tensor.dtype !== "f32") return tensor;
  const data = Float32Array.from(tensor.data as Float32Array);
  const bits = new Uint32Array(data.buffer);
  for (let i = 0; i < bits.length; i++) {
    const word = bits[i] as number;
    bits[i] = (word + 0x7fff + ((word >>> 16) & 1)) & 0xffff0000;
  }
  return { ...tensor, data };
}

/** What the products of these operators multiply. */
const OPERANDS = new Set(["x", "W", "a", "v", "U", "V"]);

/** Sums of frames as they are, where only the keys come from rounded ones (kernels/afg/afg.h). */
function exactSums(addon: NativeAddon, given: Results, results: Results): void {
  const [x, alpha, c] = [given.x, results.alpha, results.c].map((tensor) => tensor as HostTensor);
  const w = { ...alpha, shape: [alpha?.shape[0] as number, alpha?.shape[2] as number] } as HostTensor;
  const [sum] = addon.call("reference", "weighted_sum", [x ?? null, w], {}, [true]);
  results.c = { ...(c as HostTensor), data: (sum as HostTensor).data };
}

const doubled = (tensor: HostTensor): HostTensor =>
  tensor.dtype === "f32"
    ? { dtype: "f64", shape: tensor.shape, data: Float64Array.from(tensor.data as Float32Array) }
    : tensor;

/** Largest |a − b| relative to the largest |b|. NaN counts as infinitely different, unless both are. */
export function difference(a: ArrayLike<number>, b: ArrayLike<number>, signedSquare = false): number {
  let worst = 0;
  let largest = 0;
  for (let i = 0; i < b.length; i++) {
    let x = a[i] as number;
    let y = b[i] as number;
    if (signedSquare) {
      x *= Math.abs(x);
      y *= Math.abs(y);
    }
    if (Math.abs(y) > largest) largest = Math.abs(y);
    const d = Math.abs(x - y);
    if (!(d <= worst))
      worst = Number.isNaN(d) ? (Number.isNaN(x) && Number.isNaN(y) ? worst : Number.POSITIVE_INFINITY) : d;
  }
  return largest > 0 ? worst / largest : worst;
}

/**
 * How far float32 may be off, relative to the largest value: rounding errors of a sum of K terms grow with
 * √K; 32 units in the last place cover the elementwise part and the steps after it. Gradients pass through
 * two such sums, the forward's and theirs. With bf16 operands the reference gets them rounded, but not the
 * gradients that are operands themselves: `gradient` allows what rounding both factors of a product may do.
 */
export function tolerance(test: OperatorCase, gradient = test.gradients !== undefined): number {
  const longest = Math.max(1, ...Object.values(test.tensors).flatMap(({ shape }) => shape));
  const rounding = gradient && test.attributes.precision === "bf16" ? 2 ** -7 : 0;
  return (test.gradients ? 2 : 1) * 32 * 2 ** -24 * Math.sqrt(longest) + rounding;
}

/**
 * Both may be off by the tolerance, and a peer's order of summation is its own. A float32 peer of a bf16 case
 * does not round its operands: each term of a product moves by up to 2^-7, 2^-8 from either factor, sums by less.
 */
export const peerTolerance = (test: OperatorCase): number =>
  4 * tolerance(test, false) + (test.attributes.precision === "bf16" ? 2 ** -7 : 0);

/** @throws AffuseError ERR_AFFUSE_BENCH_RESULT when a result is wrong */
export async function checkCase(
  addon: NativeAddon,
  test: OperatorCase,
  plan: Plan,
  sets: Sets,
  ours: Ours,
): Promise<Checked> {
  const set = sets[0] as Sets[number];
  const roles = Object.entries(test.tensors);
  const whole = roles.some(([, { role }]) => role === "whole");
  const batch = roles.find(([, { role }]) => role === "batch")?.[1].shape[0] ?? 1;
  const affordable = Math.max(1, Math.floor((REFERENCE_FLOPS * batch) / Math.max(1, plan.flops)));
  const dropout = test.op === "dropout" || Number(test.attributes.dropout ?? 0) > 0;
  const rows = pickRows(batch, whole ? batch : affordable, dropout);
  const isBatch = (name: string) => test.tensors[name]?.role === "batch";
  const part = rows.length < batch;

  const replaced: Record<string, HostTensor> = {};
  if (part)
    for (const [name, tensor] of Object.entries(set))
      if (isBatch(name) && test.gradients && name.startsWith("d")) replaced[name] = onlyRows(tensor, rows);
  const got = await ours.results(replaced);

  // The reference knows no precision: it gets the operands as the kernel rounds them.
  const exact = (name: string, tensor: HostTensor) =>
    test.attributes.precision === "bf16" && OPERANDS.has(name) ? roundedToBf16(tensor) : tensor;
  const few: Results = Object.fromEntries(
    Object.entries(set).map(([name, tensor]) => [
      name,
      doubled(exact(name, part && isBatch(name) ? takeRows(tensor, rows) : tensor)),
    ]),
  );
  const shapes = few as Record<string, TensorDesc>;
  const expected = callStages(addon, "reference", test, planOf(addon, test, shapes), few, 1);
  if (test.op === "afg" && test.attributes.precision === "bf16") {
    const x = set.x as HostTensor;
    exactSums(addon, { x: doubled(part ? takeRows(x, rows) : x) }, expected);
  }
  let worst = 0;
  for (const name of plan.results) {
    const want = expected[name];
    let have = got[name];
    if (!want || !have)
      throw new AffuseError("ERR_AFFUSE_BENCH_RESULT", `${test.name}: expected a result ${name}, got none.`);
    if (elements(have.shape) !== elements(want.shape)) have = takeRows(have, rows);
    const off = difference(have.data, want.data, test.compare === "signed-square" && name === "z");
    const allowed = tolerance(test, test.gradients?.includes(name) ?? false);
    if (!(off <= allowed)) {
      throw new AffuseError(
        "ERR_AFFUSE_BENCH_RESULT",
        `${test.name}: expected ${name} within ${allowed.toExponential(1)} of the reference, got a difference of ${off.toExponential(2)}.`,
        "A wrong result is not timed.",
      );
    }
    worst = Math.max(worst, off);
  }
  return {
    against: part ? `reference (float64), ${rows.length} of ${batch} rows` : "reference (float64)",
    difference: worst,
  };
}
