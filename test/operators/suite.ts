/**
 * The checks themselves, as functions of a way to call operators, so that the positive controls can hand in a
 * broken one. Each returns what it found wrong, in words; an empty list means all is well.
 */
import { Random } from "../../lib/data/random.ts";
import { loadAddon, type OperatorInfo } from "../../lib/native/index.ts";
import { type Case, casesOf, entryOf } from "./cases.ts";
import { bf16, type Bounds, differences, modelled } from "./model.ts";
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
  const outputs = runReference(call, info, c.inputs, c.attributes, shapes);
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
  if (attributes.precision !== "bf16") return model(run.inputs);
  return reducedModel(run, entry.operands ?? [], model);
}

/** Plain implementations of a backward that the largest error is taken from: more where there are few elements. */
const PLAIN = 4;
const PLAIN_SMALL = 24;

/**
 * With bf16 operands. Forward: the reference on operands that are rounded beforehand, within the bounds of float32;
 * nothing but the operands may have been rounded. Backward, where intermediate results are operands too: beside
 * those bounds, twice the largest error of a plain implementation (the rule of Dao et al., "FlashAttention", 2022):
 * the reference with operands and incoming gradients off by a relative 2^-9 at most, as rounding would have it; the
 * worst of a few draws, because with few elements one may be lucky.
 */
function reducedModel(run: Run, operands: readonly string[], model: (inputs: Inputs) => Model): Model {
  const map = (change: (name: string, x: number) => number) =>
    Object.fromEntries(
      Object.entries(run.inputs).map(([name, values]) => [
        name,
        values.data instanceof Float64Array
          ? { shape: values.shape, data: values.data.map((x) => change(name, x)) }
          : values,
      ]),
    );
  const { info } = run;
  if (!info.name.endsWith(".backward"))
    return model(map((name, x) => (operands.includes(name) ? bf16(x) : x)));
  const exact = model(run.inputs);
  const { attributes } = run.case;
  const { transform } = entryOf(operator(info.name.replace(/\.backward$/, "")));
  const random = new Random(13, `plain/${run.label}`);
  const most: Record<string, number> = {};
  const draws = run.case.large ? PLAIN : PLAIN_SMALL;
  for (let draw = 0; draw < draws; draw++) {
    const inputs = map((name, x) => {
      if (!operands.includes(name) && !name.startsWith("d")) return x;
      return draw === 0 ? bf16(x) : x * (1 + random.uniform(-1, 1) * 2 ** -9);
    });
    const shapes = inferred(addon, info, inputs, attributes);
    for (const [name, values] of Object.entries(runReference(addon.call, info, inputs, attributes, shapes))) {
      const wanted = exact.reference[name]?.data;
      if (!wanted || !values || values.data instanceof Int32Array) continue;
      const plain = transform?.(name, values.data) ?? values.data;
      for (let i = 0; i < wanted.length; i++)
        most[name] = Math.max(most[name] ?? 0, Math.abs((wanted[i] as number) - (plain[i] as number)));
    }
  }
  for (const [name, bound] of Object.entries(exact.bounds))
    exact.bounds[name] = bound.map((x) => x + 2 * (most[name] ?? 0));
  return exact;
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
