/**
 * Calls on whole numbers, on which all sums are exact: device and CPU must agree bit for bit. Other calls against the
 * reference.
 */
import * as assert from "uvu/assert";
import { Random } from "../../lib/data/random.ts";
import type { Attributes, HostTensor } from "../../lib/native/addon.ts";
import type { Case } from "../operators/cases.ts";
import type { Inputs } from "../operators/run.ts";
import { addon, checkRun, modelOf, operator, runsOf } from "../operators/suite.ts";
import { deviceCall } from "./device.ts";

const random = new Random(17, "products");
/** -most … most */
export const whole = (shape: number[], most: number): HostTensor => ({
  dtype: "f32",
  shape,
  data: Float32Array.from(
    { length: shape.reduce((a, b) => a * b, 1) },
    () => random.integer(2 * most + 1) - most,
  ),
});

/** Both devices on the same call: outputs must have the same bits (-0 and 0 are one). */
export function agree(
  label: string,
  op: string,
  inputs: (HostTensor | null)[],
  attributes: Attributes,
  want: boolean[],
) {
  const [wanted, got] = [addon.call, deviceCall].map((call) => call("cpu", op, inputs, attributes, want));
  wanted?.forEach((out, k) => {
    if (!out) return;
    const other = got?.[k]?.data as Float32Array;
    const at = (out.data as Float32Array).findIndex((x, i) => x !== other[i]);
    assert.is(
      at,
      -1,
      `${label}, ${op}, output ${k}: element ${at} is ${other[at]}, expected ${out.data[at]}`,
    );
  });
}

/** FBP forward, with and without projections as outputs, and backward: rows of v, columns of a and v, outputs, factors, rows per group. */
export function agreeFbp(
  [B, m, n, o, k, rowsPerGroup]: readonly [number, number, number, number, number, number],
  precision: string,
  dropout: number,
  backward = true,
) {
  const P = o * k;
  const A = B / rowsPerGroup;
  const label = `B ${B} m ${m} n ${n} o ${o} k ${k} groups of ${rowsPerGroup} dropout ${dropout} ${precision}`;
  const inputs = [
    whole([A, m], 1),
    whole([B, n], 1),
    whole([P, m], 1),
    whole([P, n], 1),
    whole([P], 2),
    whole([P], 2),
  ];
  const attributes = {
    k,
    rowsPerGroup,
    dropout,
    precision,
    normalize: "none",
    activation: "relu",
    seed: 99n,
    step: 4,
  };
  agree(label, "fbp", inputs, attributes, [true, true, true, true]);
  if (!backward) return;
  agree(label, "fbp", inputs, attributes, [false, true, false, false]);
  const absent = [null, null, null, null];
  const given = [...inputs, ...absent, whole([B, o], 1), null];
  agree(label, "fbp.backward", given, attributes, [true, true, true, true, true, true]);
}

/** Forward and backward of one case on the device, within the bounds of float32; `terms`: of its longest sums. */
export function check(
  name: string,
  inputs: Inputs,
  attributes: Attributes,
  terms: number,
  unread?: Case["unread"],
) {
  const info = operator(name);
  const label = Object.entries(inputs)
    .map(([key, values]) => `${key} [${values.shape}]`)
    .join(" ");
  const c: Case = { label, inputs, attributes, terms, large: true, ...(unread ? { unread } : {}) };
  const found = runsOf(addon.call, info, c).flatMap((run) => checkRun(deviceCall, run, [1], modelOf(run)));
  assert.equal(found.slice(0, 6).join("\n"), "");
}
