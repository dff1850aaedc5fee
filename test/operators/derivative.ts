/**
 * Derivatives of reference forwards by extrapolated central differences, and the check of backwards against
 * them.
 */
import type { Random } from "../../lib/data/random.ts";
import type { OperatorInfo } from "../../lib/native/addon.ts";
import type { Case } from "./cases.ts";
import { type Call, type Inputs, inferred, runReference } from "./run.ts";
import { addon, backwardInputs, differentiable, operator } from "./suite.ts";

/**
 * Richardson extrapolation of central differences at h, h/2 and h/4: the value and how far the last two
 * columns disagree.
 */
export function derivative(f: (offset: number) => number, h: number): { value: number; doubt: number } {
  const central = (step: number) => (f(step) - f(-step)) / (2 * step);
  const [a, b, c] = [central(h), central(h / 2), central(h / 4)];
  const ab = (4 * b - a) / 3;
  const bc = (4 * c - b) / 3;
  const value = (16 * bc - ab) / 15;
  return { value, doubt: Math.max(Math.abs(value - bc), Math.abs(value - ab) / 16) };
}

/**
 * Compares the backward with the derivatives of Σ_outputs d<output>·<output> at up to `limit` elements of
 * every float input. `doubtful` counts elements whose derivative the differences could not settle.
 */
export function checkGradients(
  call: Call,
  info: OperatorInfo,
  c: Case,
  random: Random,
  limit: number,
): { found: string[]; checked: number; doubtful: number } {
  const outputs = differentiable(info);
  const backward = operator(info.backward as string);
  const inputs = backwardInputs(addon.call, info, c, false, outputs);
  const shapes = inferred(addon, backward, inputs, c.attributes);
  const gradients = runReference(call, backward, inputs, c.attributes, shapes);
  const forwardShapes = inferred(addon, info, c.inputs, c.attributes);
  const objective = (at: Inputs): number => {
    const values = runReference(addon.call, info, at, c.attributes, forwardShapes, (name) =>
      outputs.includes(name),
    );
    let sum = 0;
    for (const name of outputs) {
      const y = values[name]?.data as Float64Array;
      const d = inputs[`d${name}`]?.data as Float64Array;
      for (let i = 0; i < y.length; i++) if (!Number.isNaN(d[i])) sum += (d[i] as number) * (y[i] as number);
    }
    return sum;
  };
  const size = Math.abs(objective(c.inputs));
  const found: string[] = [];
  let checked = 0;
  let doubtful = 0;
  for (const rule of info.inputs) {
    const x = c.inputs[rule.name];
    if (!x || rule.dtype !== "f32") continue;
    const gradient = gradients[`d${rule.name}`]?.data as Float64Array | undefined;
    if (!gradient) {
      found.push(`${info.name} (${c.label}): ${backward.name} gives no d${rule.name}`);
      continue;
    }
    const most = gradient.reduce((m, g) => Math.max(m, Math.abs(g)), 0);
    const order = random.permutation(x.data.length).slice(0, limit);
    for (const i of order) {
      const moved = Float64Array.from(x.data);
      const at: Inputs = { ...c.inputs, [rule.name]: { shape: x.shape, data: moved } };
      const here = x.data[i] as number;
      // NaN elements (padding, missing targets) cannot move: their gradient must be exactly 0.
      if (Number.isNaN(here)) {
        checked++;
        if (gradient[i] !== 0)
          found.push(
            `${info.name} (${c.label}): d${rule.name}[${i}] = ${gradient[i]} where ${rule.name} is NaN`,
          );
        continue;
      }
      const h = 1e-3 * Math.max(1, Math.abs(here));
      const { value, doubt } = derivative((offset) => {
        moved[i] = here + offset;
        return objective(at);
      }, h);
      const scale = most + 1e-6 * size;
      if (!(doubt <= 1e-5 * scale + 1e-12)) {
        doubtful++;
        continue;
      }
      checked++;
      const error = Math.abs((gradient[i] as number) - value);
      if (!(error <= 10 * doubt + 1e-8 * scale + 1e-11 * size + 1e-14))
        found.push(
          `${info.name} (${c.label}): d${rule.name}[${i}] = ${gradient[i]}, differences say ${value} ± ${doubt.toExponential(1)}`,
        );
    }
  }
  return { found, checked, doubtful };
}
