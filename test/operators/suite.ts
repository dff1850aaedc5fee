/**
 * The checks themselves, as functions of a way to call operators, so that the positive controls can hand in a
 * broken one. Each returns what it found wrong, in words; an empty list means all is well.
 */
import { Random } from "../../lib/data/random.ts";
import { loadAddon, type OperatorInfo } from "../../lib/native/index.ts";
import { type Case, casesOf, type Entry, entryOf } from "./cases.ts";
import { kept } from "./kept.ts";
import { bf16, type Bounds, differences, modelled, rowMaxima, spreads, tf32 } from "./model.ts";
import {
  type Call,
  type Inputs,
  inferred,
  normal,
  type Outputs,
  runKernel,
  runReference,
  sameBits,
  type Values,
} from "./run.ts";

export const addon = loadAddon();
export const operators = addon.operators();
export const forwards = operators.filter((info) => !info.name.endsWith(".backward"));

export function operator(name: string): OperatorInfo {
  const info = operators.find((o) => o.name === name);
  if (!info) throw new Error(`no operator ${name}`);
  return info;
}

/** One run to check: a forward case as it is, or a backward derived from it. */
export interface Run {
  info: OperatorInfo;
  label: string;
  inputs: Inputs;
  case: Case;
}

const rounded = (values: Values): Values =>
  values.data instanceof Int32Array ? values : { shape: values.shape, data: values.data.map(Math.fround) };

/** Names of the forward outputs that have a gradient, i.e. for which the backward takes d<output>. */
export function differentiable(info: OperatorInfo): string[] {
  if (!info.backward) return [];
  const names = new Set(operator(info.backward).inputs.map((rule) => rule.name));
  return info.outputs.map((rule) => rule.name).filter((name) => names.has(`d${name}`));
}

/**
 * Inputs of the backward: the forward's, the saved outputs if `saved`, and random gradients of the outputs
 * named in `given`. What the case declares unread becomes NaN.
 */
export function backwardInputs(
  call: Call,
  info: OperatorInfo,
  c: Case,
  saved: boolean,
  given: string[],
): Inputs {
  const backward = operator(info.backward as string);
  const shapes = inferred(addon, info, c.inputs, c.attributes);
  // What a forward with rounded operands saves comes from those.
  const { operands = [], exact } = entryOf(info);
  const reduced = ROUNDING[String(c.attributes.precision)];
  const forward = reduced ? roundedOperands(c.inputs, operands, reduced) : c.inputs;
  const outputs = runReference(call, info, forward, c.attributes, shapes);
  if (reduced) exact?.(outputs, c.inputs);
  const random = new Random(7, `gradients/${info.name}/${c.label}`);
  const inputs: Inputs = { ...c.inputs };
  const own = new Set(info.inputs.map((rule) => rule.name));
  for (const rule of backward.inputs) {
    if (own.has(rule.name)) continue;
    const output = info.outputs.find((o) => o.name === rule.name);
    if (output) {
      const values = outputs[rule.name];
      if (saved && values) inputs[rule.name] = rounded(values);
      continue;
    }
    const of = rule.name.slice(1);
    const shape = shapes[of];
    if (!shape)
      throw new Error(`${backward.name}: input ${rule.name} is neither an input, an output nor d<output>`);
    if (given.includes(of)) inputs[rule.name] = normal(random, shape);
  }
  for (const rule of backward.inputs.slice(info.inputs.length)) {
    const values = inputs[rule.name];
    if (c.unread && values?.data instanceof Float64Array) {
      const unread = c.unread;
      inputs[rule.name] = {
        shape: values.shape,
        data: values.data.map((x, i) => (unread(rule.name, i) ? Number.NaN : x)),
      };
    }
  }
  return inputs;
}

/** The forward and every form of the backward that a case leads to. */
export function runsOf(call: Call, info: OperatorInfo, c: Case): Run[] {
  const runs: Run[] = [{ info, label: c.label, inputs: c.inputs, case: c }];
  const outputs = differentiable(info);
  if (!info.backward || outputs.length === 0) return runs;
  const backward = operator(info.backward);
  const saves = backward.inputs.some((rule) => info.outputs.some((o) => o.name === rule.name));
  const sets = outputs.length > 1 ? [outputs, ...outputs.map((name) => [name])] : [outputs];
  for (const given of sets) {
    for (const saved of saves ? [true, false] : [false]) {
      if (saved && given !== sets[0] && c.large) continue;
      const note = `${c.label}, d of ${given.join(" and ")}${saves ? (saved ? ", saved" : ", computed again") : ""}`;
      runs.push({
        info: backward,
        label: note,
        inputs: backwardInputs(call, info, c, saved, given),
        case: c,
      });
    }
  }
  return runs;
}

/** What a run should give, and within which bounds. */
export interface Model {
  reference: Outputs;
  bounds: Bounds;
}

export function modelOf(run: Run): Model {
  const { attributes, terms } = run.case;
  return kept([run.info.name, run.label, attributes, terms ?? null], run.inputs, () => made(run));
}

function made(run: Run): Model {
  const { info } = run;
  const attributes = run.case.attributes;
  const entry = entryOf(operator(info.name.replace(/\.backward$/, "")));
  const model = (inputs: Inputs) =>
    modelled(addon.call, info, inputs, attributes, inferred(addon, info, inputs, attributes), {
      terms: run.case.terms,
      random: new Random(11, `model/${run.label}`),
      ...(entry.floor ? { floor: (name: string) => entry.floor?.(name, inputs, run.case) ?? 0 } : {}),
      ...(entry.transform ? { transform: entry.transform } : {}),
    });
  const rounding = ROUNDING[String(attributes.precision)];
  return rounding ? reducedModel(run, entry, model, rounding) : model(run.inputs);
}

interface Rounding {
  round: (x: number) => number;
  /** Half a unit in the last place, relative: what rounding an operand is off by at most. */
  unit: number;
}
/** By the attribute `precision`. tf32 concerns devices alone, and of them products of a certain size (cuda/tf32.test.ts). */
const ROUNDING: Record<string, Rounding> = {
  bf16: { round: bf16, unit: 2 ** -8 },
  tf32: { round: tf32, unit: 2 ** -11 },
};

/** The operands of the products as the kernel rounds them. */
function roundedOperands(inputs: Inputs, operands: readonly string[], { round }: Rounding): Inputs {
  return Object.fromEntries(
    Object.entries(inputs).map(([name, values]) => [
      name,
      values.data instanceof Float64Array && operands.includes(name)
        ? { shape: values.shape, data: values.data.map(round) }
        : values,
    ]),
  );
}

/**
 * With rounded operands, e.g. bf16. Forward: the reference on operands that are rounded beforehand, within the bounds of float32;
 * nothing but the operands may have been rounded (what an operator takes unrounded, its entry says: `exact`).
 *
 * Backward: the same reference, and saved outputs that the forward on rounded operands made. The gradients at the
 * products are operands too, and rounded: another 2^-8 · (3 · spread_i + largest magnitude in i's row), where spread_i
 * is output i's standard deviation when operands and incoming gradients are multiplied by 1 ± 2^-8, per unit. A
 * rounding error is 2^-8 at most, of σ 2^-8/√3, and enters each product once, as the operand beside it does.
 */
function reducedModel(run: Run, entry: Entry, model: (inputs: Inputs) => Model, rounding: Rounding): Model {
  const { info } = run;
  const operands = entry.operands ?? [];
  const inputs = roundedOperands(run.inputs, operands, rounding);
  const found = model(inputs);
  if (!info.name.endsWith(".backward")) {
    entry.exact?.(found.reference, run.inputs);
    return found;
  }
  const { attributes } = run.case;
  const { spread } = spreads(addon.call, info, inputs, attributes, inferred(addon, info, inputs, attributes), {
    random: new Random(13, `rounded/${run.label}`),
    unit: rounding.unit,
    moves: (name) => operands.includes(name) || name.startsWith("d"),
    ...(entry.transform ? { transform: entry.transform } : {}),
  });
  for (const [name, bound] of Object.entries(found.bounds)) {
    const rows = rowMaxima(found.reference[name] as Values);
    found.bounds[name] = bound.map(
      (x, i) => x + rounding.unit * (3 * (spread[name]?.[i] as number) + (rows[i] as number)),
    );
  }
  return found;
}

/** Every run of every operator, always in the same order. */
export function* allRuns(): Generator<Run> {
  for (const info of forwards) for (const c of casesOf(info)) yield* runsOf(addon.call, info, c);
}

/**
 * Kernel against reference, within the model; edges, NaN-filled outputs, guard bands; every output also when
 * it is asked for alone; with several thread counts, the same bits for each.
 */
export function checkRun(
  call: Call,
  run: Run,
  threads: readonly number[] = [1],
  { reference, bounds }: Model = modelOf(run),
): string[] {
  const { info, inputs } = run;
  const attributes = run.case.attributes;
  const entry = entryOf(operator(info.name.replace(/\.backward$/, "")));
  const say = (what: string) => `${info.name} (${run.label}): ${what}`;
  const found: string[] = [];
  const shapes = inferred(addon, info, inputs, attributes);
  for (const [name, values] of Object.entries(reference))
    if (values && hasNaN(values)) found.push(say(`the reference's ${name} holds NaN or infinity`));
  const first = runKernel(call, info, inputs, attributes, shapes, { threads: threads[0] as number });
  found.push(...first.damage.map(say));
  found.push(...differences(first.outputs, reference, bounds, entry.transform).map(say));
  for (const count of threads.slice(1)) {
    const again = runKernel(call, info, inputs, attributes, shapes, { threads: count, offset: 3 });
    for (const [name, values] of Object.entries(first.raw)) {
      const other = again.raw[name];
      if (!other || !sameBits(values, other))
        found.push(say(`${name} differs between ${threads[0]} and ${count} threads`));
    }
  }
  const names = Object.keys(first.raw);
  if (names.length > 1 && threads.length === 1) {
    for (const alone of names) {
      const want = (name: string) => name === alone;
      const one = runKernel(call, info, inputs, attributes, shapes, { want, offset: 2 });
      const wrong = differences(one.outputs, reference, bounds, entry.transform, want);
      found.push(...[...one.damage, ...wrong].map((what) => say(`asked for alone: ${what}`)));
    }
  }
  return found;
}

function hasNaN(values: Values): boolean {
  return !(values.data instanceof Int32Array) && values.data.some((x) => !Number.isFinite(x));
}
