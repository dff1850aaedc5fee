/**
 * What a float32 result may differ from the float64 reference by.
 *
 *   bound_i = C · u · ( √K · spread_i + floor_i ),   u = 2^-24, C = 8 for every operator
 *
 * K         terms of the longest sum inside the operator (the case says it).
 * spread_i  standard deviation of output i, in units of u, when every float input is multiplied by 1 ± u with
 *           random signs: the reference itself measures how rounding of the inputs, and so of any product of
 *           them, reaches output i. It is the operator's condition for this very case; nobody sets it by hand.
 * floor_i   largest magnitude in output i's row (last dimension), plus the magnitude at which the formula rounds
 *           an intermediate result that cancels, where an operator has one (its entry in the table of cases says
 *           which: "p − 1 is rounded at 1").
 */
import type { Random } from "../../lib/data/random.ts";
import type { Attributes, OperatorInfo } from "../../lib/native/addon.ts";
import { type Call, type Inputs, type Outputs, runReference, type Values } from "./run.ts";

export const UNIT = 2 ** -24;
export const SAFETY = 8;
const SAMPLES = 8;

const word = new Float32Array(1);
const wordBits = new Uint32Array(word.buffer);

/** The nearest bf16, ties to even; x is a float32. */
export function bf16(x: number): number {
  if (Number.isNaN(x)) return x;
  word[0] = x;
  const bits = wordBits[0] as number;
  wordBits[0] = (bits + 0x7fff + ((bits >>> 16) & 1)) & 0xffff0000;
  return word[0] as number;
}

/** The nearest tf32 (10 bits after the point), ties away from zero; x is a float32. */
export function tf32(x: number): number {
  if (!Number.isFinite(x)) return x;
  word[0] = x;
  wordBits[0] = ((wordBits[0] as number) + 0x1000) & 0xffffe000;
  return word[0] as number;
}

export type Bounds = Record<string, Float64Array>;

/** Outputs as they are compared (FBP: z|z| for z). */
export type Transform = (name: string, values: Float64Array) => Float64Array;

export function rowMaxima(values: Values): Float64Array {
  const row = Math.max(1, values.shape.at(-1) ?? 1);
  const result = new Float64Array(values.data.length);
  for (let from = 0; from < result.length; from += row) {
    let most = 0;
    for (let i = from; i < from + row; i++) most = Math.max(most, Math.abs(values.data[i] as number) || 0);
    result.fill(most, from, from + row);
  }
  return result;
}

function perturbed(inputs: Inputs, random: Random, unit: number, moves: (name: string) => boolean): Inputs {
  const result: Inputs = {};
  for (const [name, values] of Object.entries(inputs)) {
    if (values.data instanceof Int32Array || !moves(name)) result[name] = values;
    else {
      let bits = 0;
      result[name] = {
        shape: values.shape,
        data: values.data.map((x, i) => {
          if (i % 32 === 0) bits = random.word();
          return x * (1 + ((bits >>> (i % 32)) & 1 ? unit : -unit));
        }),
      };
    }
  }
  return result;
}

/**
 * The reference's outputs (transformed), and the standard deviation of every element, in units, when every float
 * input that `moves` is multiplied by 1 ± unit.
 */
export function spreads(
  call: Call,
  info: OperatorInfo,
  inputs: Inputs,
  attributes: Attributes,
  shapes: Record<string, number[] | null>,
  options: { random: Random; unit: number; transform?: Transform; moves?: (name: string) => boolean },
): { reference: Outputs; spread: Bounds } {
  const { unit, moves = () => true } = options;
  const shape = (name: string, v: Values | null): Values | null =>
    v && !(v.data instanceof Int32Array) && options.transform
      ? { shape: v.shape, data: options.transform(name, v.data) }
      : v;
  const once = (x: Inputs) => runReference(call, info, x, attributes, shapes);
  const reference = Object.fromEntries(
    Object.entries(once(inputs)).map(([name, v]) => [name, shape(name, v)]),
  );
  const squares: Record<string, Float64Array> = {};
  for (let sample = 0; sample < SAMPLES; sample++) {
    const moved = once(perturbed(inputs, options.random, unit, moves));
    for (const [name, base] of Object.entries(reference)) {
      const values = shape(name, moved[name] as Values | null);
      if (!base || !values || base.data instanceof Int32Array) continue;
      squares[name] ??= new Float64Array(base.data.length);
      const sum = squares[name];
      for (let i = 0; i < sum.length; i++) {
        const d = ((values.data[i] as number) - (base.data[i] as number)) / unit;
        sum[i] = (sum[i] as number) + (d * d) / SAMPLES;
      }
    }
  }
  const spread = Object.fromEntries(
    Object.entries(squares).map(([name, sum]) => [name, sum.map((s) => Math.sqrt(s))]),
  );
  return { reference, spread };
}

/** Reference outputs (transformed) and the bounds around them. */
export function modelled(
  call: Call,
  info: OperatorInfo,
  inputs: Inputs,
  attributes: Attributes,
  shapes: Record<string, number[] | null>,
  options: {
    terms: number;
    random: Random;
    floor?: (name: string) => number | Float64Array;
    transform?: Transform;
  },
): { reference: Outputs; bounds: Bounds } {
  const { reference, spread } = spreads(call, info, inputs, attributes, shapes, { ...options, unit: UNIT });
  const bounds: Bounds = {};
  for (const [name, base] of Object.entries(reference)) {
    const own = spread[name];
    if (!base || !own) continue;
    const floor = rowMaxima(base);
    const extra = options.floor?.(name) ?? 0;
    bounds[name] = own.map(
      (s, i) =>
        SAFETY *
        UNIT *
        (Math.sqrt(options.terms) * s +
          (floor[i] as number) +
          (typeof extra === "number" ? extra : (extra[i] as number))),
    );
  }
  return { reference, bounds };
}

/** Differences beyond the bounds, in words; empty: all is well. */
export function differences(
  got: Outputs,
  reference: Outputs,
  bounds: Bounds,
  transform?: Transform,
  want: (name: string) => boolean = () => true,
): string[] {
  const found: string[] = [];
  for (const [name, wanted] of Object.entries(reference)) {
    if (!wanted || !want(name)) continue;
    const values = got[name];
    if (!values) {
      found.push(`${name}: not made`);
      continue;
    }
    const data =
      transform && !(values.data instanceof Int32Array) ? transform(name, values.data) : values.data;
    const bound = bounds[name];
    let bad = 0;
    let worst = "";
    let ratio = 0;
    for (let i = 0; i < wanted.data.length; i++) {
      const x = data[i] as number;
      const y = wanted.data[i] as number;
      if (Object.is(x, y) || (Number.isNaN(x) && Number.isNaN(y))) continue;
      // Denormals may be rounded anywhere below 2^-126.
      const limit = bound ? (bound[i] as number) + 2 ** -126 : 0;
      if (Math.abs(x - y) <= limit) continue;
      bad++;
      const r = Number.isNaN(x) ? Number.POSITIVE_INFINITY : Math.abs(x - y) / (limit || 1);
      if (r > ratio || !worst) {
        ratio = r;
        worst = `element ${i}: expected ${y} ± ${limit.toExponential(2)}, got ${x}`;
      }
    }
    if (bad) found.push(`${name}: ${bad} of ${wanted.data.length} beyond the bound, worst ${worst}`);
  }
  return found;
}
