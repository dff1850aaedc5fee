// No result and no gradient is NaN or infinite for finite input (spec section 0): inputs of zero, of a size near
// float32's limits on either side, and single elements of that size, one input at a time.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { Random } from "../../lib/data/random.ts";
import { casesOf } from "./cases.ts";
import { type Inputs, inferred, normal, runKernel, runReference, type Values } from "./run.ts";
import { addon, differentiable, forwards, operator } from "./suite.ts";

/** Sums of a few products with values near 1 must fit: 1e30, not 3e38. */
const SIZES = [0, 1e-38, 1e-20, 1e10, 1e30];
/** Inputs for which the exact result itself leaves float32 beyond these sizes: it holds x^2, U^2 v a, or 1/w. */
const LIMITS: Record<string, Record<string, readonly [least: number, most: number]>> = {
  masked_mse: { prediction: [0, 1e10], target: [0, 1e10] },
  ratio_attention: { x: [0, 1e10] },
  softmax_cross_entropy: { classWeights: [1e-20, 1e30] },
  fbp: Object.fromEntries(["a", "v", "U", "V", "bu", "bv"].map((name) => [name, [0, 1e10] as const])),
};

function resized(values: Values, size: number, single: boolean): Values {
  if (values.data instanceof Int32Array) return values;
  const at = Math.floor(values.data.length / 2);
  return {
    shape: values.shape,
    data: values.data.map((x, i) => Math.fround(single && i !== at ? x : Math.sign(x) * size)),
  };
}

function notFinite(name: string, inputs: Inputs, attributes: Record<string, never>): string[] {
  const info = operator(name);
  const shapes = inferred(addon, info, inputs, attributes);
  const found: string[] = [];
  for (const [device, outputs] of [
    ["reference", runReference(addon.call, info, inputs, attributes, shapes)],
    ["cpu", runKernel(addon.call, info, inputs, attributes, shapes).outputs],
  ] as const) {
    for (const [output, values] of Object.entries(outputs)) {
      if (values?.data.some((x) => !Number.isFinite(x))) found.push(`${name} on ${device}: ${output}`);
    }
  }
  return found;
}

for (const info of forwards) {
  if (!info.backward) continue;
  test(info.name, () => {
    const found = new Set<string>();
    let runs = 0;
    const outputs = differentiable(info);
    const backward = info.backward as string;
    for (const c of casesOf(info)) {
      if (c.large && info.name !== "fbp") continue;
      if (Object.values(c.inputs).some((v) => v.data.length > 200)) continue;
      const attributes = c.attributes as Record<string, never>;
      const shapes = inferred(addon, info, c.inputs, attributes);
      for (const [name, values] of Object.entries(c.inputs)) {
        if (values.data instanceof Int32Array) continue;
        for (const size of SIZES) {
          const [least, most] = LIMITS[info.name]?.[name] ?? [0, Number.POSITIVE_INFINITY];
          if (size > most || (size > 0 && size < least)) continue;
          for (const single of [false, true]) {
            const inputs: Inputs = { ...c.inputs, [name]: resized(values, size, single) };
            const random = new Random(1, "finite");
            for (const output of outputs) inputs[`d${output}`] = normal(random, shapes[output] as number[]);
            const where = `with ${single ? "one element" : "all"} of ${name} at ${size} (${c.label})`;
            for (const what of [
              ...notFinite(info.name, inputs, attributes),
              ...notFinite(backward, inputs, attributes),
            ])
              found.add(`${what} ${where}`);
            runs++;
          }
        }
      }
    }
    assert.ok(runs > 0);
    assert.equal([...found].slice(0, 12).join("\n"), "", `${found.size} findings in ${runs} runs`);
  });
}

test("the largest numbers there are", () => {
  const most = 3.4e38;
  const x: Values = {
    shape: [3, 4],
    data: Float64Array.of(most, -most, 0, 1, most, most, most, most, 1, 2, 3, -most),
  };
  const rounded: Values = { shape: x.shape, data: x.data.map(Math.fround) };
  const random = new Random(2);
  const labels: Values = { shape: [3], data: Int32Array.of(1, 0, 2) };
  const none = {} as Record<string, never>;
  const dy = normal(random, [3, 4]);
  const gamma = normal(random, [4]);
  for (const [name, inputs] of [
    ["softmax", { x: rounded }],
    ["softmax.backward", { x: rounded, dy }],
    ["layer_norm", { x: rounded, gamma, beta: gamma }],
    ["layer_norm.backward", { x: rounded, gamma, beta: gamma, dy }],
    ["softmax_cross_entropy.backward", { logits: rounded, labels, dloss: normal(random, [1]) }],
    ["activation", { x: rounded }],
    ["activation.backward", { x: rounded, dy }],
  ] as [string, Inputs][]) {
    const choices = name.startsWith("activation") ? ["relu", "gelu", "tanh", "sigmoid"] : [undefined];
    for (const choice of choices) {
      const attributes = (choice ? { activation: choice } : none) as Record<string, never>;
      assert.equal(notFinite(name, inputs, attributes), [], `${name} ${choice ?? ""}`);
    }
  }
});

/** The largest difference between kernel and reference, relative to the reference's largest value. */
function distance(
  name: string,
  inputs: Inputs,
  attributes: Record<string, number | string>,
): Record<string, number> {
  const info = operator(name);
  const given = attributes as Record<string, never>;
  const shapes = inferred(addon, info, inputs, given);
  const want = runReference(addon.call, info, inputs, given, shapes);
  const got = runKernel(addon.call, info, inputs, given, shapes).outputs;
  return Object.fromEntries(
    Object.entries(want).flatMap(([output, values]) => {
      if (!values) return [];
      let most = 0;
      let off = 0;
      for (const [i, exact] of values.data.entries()) {
        const by = Math.abs(exact - (got[output]?.data[i] as number));
        most = Math.max(most, Math.abs(exact));
        if (!(by <= off)) off = by; // NaN too
      }
      return [[output, most > 0 ? off / most : off]];
    }),
  );
}

test("FBP's norm of sums whose squares leave float32", () => {
  const f = (rows: number, ...values: number[]): Values => ({
    shape: [rows, values.length / rows],
    data: Float64Array.from(values, Math.fround),
  });
  for (const size of [1e9, 3e9, 1e10, 1e19])
    for (const l2Scope of ["sample", "group"])
      for (const normalize of ["l2", "power-l2"]) {
        const rows = f(2, size, size, size, -size);
        const inputs = { a: rows, v: rows, U: f(2, 1, 0, 0, 0.5), V: f(2, 1, 0, 0, 0.5) };
        const attributes = { k: 1, normalize, l2Scope };
        for (const [name, off] of [
          ...Object.entries(distance("fbp", inputs, attributes)),
          ...Object.entries(distance("fbp.backward", { ...inputs, dz: f(2, 1, -2, 3, 1) }, attributes)),
        ])
          assert.ok(off < 1e-5, `${normalize} ${l2Scope} at ${size}: ${name} is off by ${off}`);
      }
});

test("layer normalisation of rows far from 0 beside their spread", () => {
  const random = new Random(5);
  for (const [value, C] of [
    [1000.1, 9],
    [12345.678, 1023],
    [100000.1, 9],
    [1e6 + 0.3, 1024],
    [0.7, 9],
  ] as const) {
    const x: Values = { shape: [1, C], data: new Float64Array(C).fill(Math.fround(value)) };
    const gamma: Values = { shape: [C], data: new Float64Array(C).fill(1) };
    const near: Values = { shape: [1, C], data: x.data.map((v) => Math.fround(v + random.normal())) };
    for (const rows of [x, near]) {
      const off = {
        ...distance("layer_norm", { x: rows, gamma, beta: normal(random, [C]) }, {}),
        ...distance("layer_norm.backward", { x: rows, gamma, dy: normal(random, [1, C]) }, {}),
      };
      for (const [name, by] of Object.entries(off)) {
        if (rows === x && name === "dgamma") continue; // its exact value is 0
        assert.ok(by < (name === "mean" ? 1e-7 : 2e-4), `C ${C} around ${value}: ${name} is off by ${by}`);
      }
    }
    const flat = addon.call(
      "cpu",
      "layer_norm",
      [x, gamma, { ...gamma, data: new Float64Array(C) }].map((t) => ({
        dtype: "f32" as const,
        shape: t.shape,
        data: Float32Array.from(t.data),
      })),
      {},
      [true, false, false],
    )[0];
    const most = value > 256 * Math.sqrt(1e-5) ? 0 : 256 * (C / 16 + 8) * 2 ** -24;
    assert.ok(
      flat?.data.every((y) => Math.abs(y) <= most),
      `a constant row of ${C} times ${value}`,
    );
  }
});

test("LRN's gradient of the largest numbers there are", () => {
  for (const layout of ["nchw", "nhwc"])
    for (const C of [1, 7, 64])
      for (const size of [3, 5])
        for (const attributes of [
          { alpha: 0 },
          { alpha: 1 },
          { alpha: 1e6 },
          { alpha: 0, beta: 0.5, k: 0.1 },
          { alpha: 1, beta: 0 },
        ] as Record<string, number>[])
          for (const most of [1e30, 2e38, 3.4e38]) {
            const shape = layout === "nchw" ? [1, C, 1, 3] : [1, 1, 3, C];
            const x: Values = {
              shape,
              data: normal(new Random(C), shape).data.map((v) => Math.fround(Math.sign(v) * most)),
            };
            const dy = normal(new Random(3), shape);
            const { outputs } = runKernel(
              addon.call,
              operator("lrn.backward"),
              { x, dy },
              { layout, size, ...attributes },
              { dx: shape },
            );
            assert.ok(
              outputs.dx?.data.every(Number.isFinite),
              `${layout} C ${C} size ${size} ${JSON.stringify(attributes)} x ${most}`,
            );
          }
});

test.run();
