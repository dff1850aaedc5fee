import { test } from "uvu";
import * as assert from "uvu/assert";
import { Random } from "../../lib/data/random.ts";
import { gradients } from "../../lib/graph/gradients.ts";
import type { Value } from "../../lib/graph/value.ts";
import { loadAddon } from "../../lib/native/index.ts";
import { fixture, makeBatch, reference, structures, tinyConfig } from "./helpers.ts";

const addon = loadAddon();

/** Clip 1 lacks the faces, clip 2 one audio stream, clip 3 everything audible, clip 4 everything. */
const absent = (b: number, { name, modality }: { name: string; modality: string }) =>
  (b === 1 && modality === "visual") ||
  (b === 2 && name === "voice") ||
  (b === 3 && modality === "audio") ||
  b === 4;

/** Largest relative error over parameters of (gradient · direction) against central differences of the loss. */
function worstError(
  structure: (typeof structures)[number],
  extra: object,
  spoil = 1,
): { worst: number; checked: number } {
  const random = new Random(21, `gradients ${structure}`);
  const batch = makeBatch(random, 6, { voice: 5, prosody: 7, face: 4 }, absent);
  const model = fixture(addon, tinyConfig(structure, extra), batch, "loss");
  const loss = model.fetches.loss as Value;
  const names = [...model.builder.parameters.keys()];
  // s at its initial 0 would hide a wrong sign; everything else is random already.
  const start: Record<string, Float64Array> = {};
  for (const name of names) {
    start[name] = Float64Array.from(model.store.get(name).data, (value) => value + 0.05 * random.normal());
  }
  const found = gradients(
    model.graph,
    loss,
    names.map((name) => model.builder.parameters.get(name) as Value),
  );
  const wanted = found.filter((value) => value !== null);
  const values = reference(addon, model, wanted, start);
  let worst = 0;
  for (const [i, name] of names.entries()) {
    const gradient = found[i];
    assert.ok(gradient, `${name} has a gradient`);
    const data = values[wanted.indexOf(gradient as Value)] as Float64Array;
    assert.ok(data.every(Number.isFinite), name);
    const direction = data.map(() => random.normal());
    const at = (h: number) => {
      const moved = (start[name] as Float64Array).map((value, j) => value + h * (direction[j] as number));
      return (reference(addon, model, [loss], { ...start, [name]: moved })[0] as Float64Array)[0] as number;
    };
    const h = 1e-5;
    const numeric = (at(h) - at(-h)) / (2 * h);
    const analytic = spoil * data.reduce((sum, value, j) => sum + value * (direction[j] as number), 0);
    // Central differences: truncation ~ h² and rounding ~ 1e-16·|L|/h, far below 1e-6.
    worst = Math.max(worst, Math.abs(numeric - analytic) / (1e-3 + Math.abs(numeric)));
  }
  return { worst, checked: names.length };
}

for (const structure of structures) {
  test(`whole-model gradients of ${structure} agree with central differences in float64`, () => {
    const { worst, checked } = worstError(structure, {});
    assert.ok(checked >= 10, `${checked} parameters`);
    assert.ok(worst < 1e-6, `worst relative error ${worst}`);
  });
}

test("options: valence transforms, loss forms, unmasked attention, gfbp's variants", () => {
  const variants: [(typeof structures)[number], object][] = [
    ["concat", { valence: { transform: "softmax" }, loss: { form: "half", labelSmoothing: 0.1 } }],
    ["concat", { valence: { transform: "prelu" }, loss: { form: "log1p", classWeights: [1, 2, 0.5] } }],
    ["weighted", { attention: { dim: null, masked: false }, loss: { form: "kendall" } }],
    ["gfbp", { fbp: { k: 2, outputs: 4, commonWidth: 6, visualGather: "afg", activation: "tanh" } }],
    ["gfbp", { fbp: { k: 2, outputs: 4, frameDropout: 0.5, normalize: "power" } }],
  ];
  for (const [structure, extra] of variants) {
    const { worst } = worstError(structure, extra);
    assert.ok(worst < 1e-6, `${structure} ${JSON.stringify(extra)}: ${worst}`);
  }
});

test("positive control: gradients off by 0.01 % are caught", () => {
  assert.ok(worstError("concat", {}, 1.0001).worst > 1e-6);
});

test.run();
