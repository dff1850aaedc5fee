// Whole models trained on a device as on the CPU: the same seeds give the same dropout masks, and losses, parameters and the
// optimiser's state stay within rounding of each other, step after step (queued, recorded, replayed).
import { test } from "uvu";
import * as assert from "uvu/assert";
import { Random } from "../../lib/data/random.ts";
import { compile } from "../../lib/graph/compile.ts";
import { type Precision, PRECISIONS } from "../../lib/graph/precision.ts";
import { Graph } from "../../lib/graph/graph.ts";
import { appendUpdate } from "../../lib/graph/optimizer.ts";
import { ParameterStore } from "../../lib/graph/parameters.ts";
import type { Value } from "../../lib/graph/value.ts";
import { parseModelConfig } from "../../lib/models/config.ts";
import { type FcnConfig, fcnTrunk } from "../../lib/models/fcn.ts";
import {
  createModel,
  type ModelConfigInput,
  type ModelState,
  type StepResult,
} from "../../lib/models/index.ts";
import { Builder } from "../../lib/nn/builder.ts";
import { classes, makeBatch, streams, structures, tinyConfig } from "../models/helpers.ts";
import { addon } from "../operators/suite.ts";
import { device, ensureDevice, ported } from "./device.ts";

ensureDevice();

const STEPS = 4;
const LR = 1e-2;
/**
 * ‖device − CPU‖ / ‖CPU‖ after all steps. float32: sums in another order, 2^-24 each, through a dozen operators and four
 * updates; FBP's signed roots magnify what small sums lost. bf16: the rounding of an operand, 2^-9, goes the other way
 * where float32's last bits differ. tf32, which the CPU computes as float32: 2^-11 for each operand, and Adam's first
 * steps go by a gradient's sign, also where it is 0 but for rounding (bf16 would be off by 0.05 so, with signed roots by 0.14).
 */
const BOUND = {
  f32: { scalars: 3e-6, state: 2e-6 },
  bf16: { scalars: 4e-3, state: 4e-3 },
  tf32: { scalars: 2e-3, state: 6e-3 },
};
const ROOTS = 50;

interface Trained {
  steps: StepResult[];
  state: ModelState;
  posteriors: Float32Array;
  attention: Record<string, Float32Array>;
}

async function train(
  config: ModelConfigInput,
  on: string,
  precision: Precision,
  firstStep = 1,
  steps = STEPS,
): Promise<Trained> {
  const model = createModel(config, streams, classes, { device: on, precision });
  const frames = { voice: 9, prosody: 7, face: 12 };
  const absent = (b: number, stream: { name: string }) => b === 3 && stream.name === "face";
  const batch = (seed: string) => makeBatch(new Random(3, seed), 5, frames, absent);
  const results: StepResult[] = [];
  // The same two batches in turn, so that programs are queued, recorded and replayed.
  for (let i = 0; i < steps; i++)
    results.push(await model.trainStep(batch(`batch ${i % 2}`), { lr: LR, step: firstStep + i }));
  const { posteriors, attention } = await model.infer(batch("held out"));
  const state = model.state();
  model.dispose();
  return { steps: results, state, posteriors, attention };
}

function distance(a: Float32Array, b: Float32Array): number {
  let off = 0;
  let all = 0;
  for (let i = 0; i < b.length; i++) {
    off += ((a[i] as number) - (b[i] as number)) ** 2;
    all += (b[i] as number) ** 2;
  }
  return Math.sqrt(off) / Math.sqrt(all || 1);
}

/** The largest distance of the steps' scalars, and of everything that was learned. */
function distances(got: Trained, expected: Trained): { scalars: number; state: number; where: string } {
  let scalars = 0;
  const names = ["loss", "ce", "mse", "sE", "sV", "gradNorm"] as const;
  got.steps.forEach((step, i) => {
    for (const name of names) {
      const other = expected.steps[i]?.[name] as number;
      // sE and sV start at 0 and move by the learning rate.
      scalars = Math.max(scalars, Math.abs(step[name] - other) / Math.max(Math.abs(other), LR));
    }
  });
  let state = 0;
  let where = "";
  const compare = (label: string, a: Float32Array, b: Float32Array) => {
    const off = distance(a, b);
    if (!(off <= state)) [state, where] = [off, label];
  };
  // All of a role together: an update of a bias that is 0 but for rounding says nothing by itself.
  for (const role of ["parameters", "m", "v"] as const) {
    const join = ({ state: of }: Trained) =>
      Float32Array.from(Object.values(of[role] ?? {}).flatMap(({ data }) => [...data]));
    compare(role, join(got), join(expected));
  }
  compare("posteriors", got.posteriors, expected.posteriors);
  for (const [name, weights] of Object.entries(got.attention))
    compare(`attention:${name}`, weights, expected.attention[name] as Float32Array);
  return { scalars, state, where };
}

const all = ported();
const missing = addon.operators().filter(({ name }) => !all.has(name));
const whole = missing.length === 0 ? test : test.skip;

for (const structure of structures) {
  for (const precision of PRECISIONS) {
    whole(`${structure}, ${precision}`, async () => {
      const config = tinyConfig(structure, {
        modalityDropout: 0.2,
        optimizer: { type: "adamw", weightDecay: 1e-2, maxNorm: 0.7 },
      });
      const expected = await train(config, "cpu", precision);
      const { scalars, state, where } = distances(await train(config, device, precision), expected);
      const bound = BOUND[precision];
      const factor = structure === "gfbp" && precision === "f32" ? ROOTS : 1;
      assert.ok(scalars <= factor * bound.scalars, `scalars differ by ${scalars}`);
      assert.ok(state <= factor * bound.state, `${where} differs by ${state}`);
    });
  }
}

whole("other masks would show: the same model with the masks of other steps", async () => {
  for (const structure of ["concat", "gfbp"] as const) {
    const config = tinyConfig(structure);
    const expected = await train(config, "cpu", "f32", 1, 1);
    // Adam's correction for the step is in the parameters, not in the loss.
    const { scalars } = distances(await train(config, device, "f32", 2, 1), expected);
    assert.ok(scalars > 20 * BOUND.bf16.scalars, `${structure}: ${scalars}`);
  }
});

whole("a device's results do not change from run to run", async () => {
  const config = tinyConfig("hierarchical");
  const [one, other] = [await train(config, device, "f32"), await train(config, device, "f32")];
  assert.equal(one.steps, other.steps);
  assert.equal(one.state, other.state);
});

whole("a state moves from the CPU to the device and back", async () => {
  const config = parseModelConfig(tinyConfig("weighted"));
  const batch = makeBatch(new Random(3, "moved"), 4, { voice: 6, prosody: 5, face: 4 });
  const finals: Float32Array[] = [];
  for (const places of [
    ["cpu", "cpu", "cpu"],
    ["cpu", device, "cpu"],
  ]) {
    let state: ModelState | null = null;
    for (const [i, place] of places.entries()) {
      const model = createModel(config, streams, classes, { device: place });
      if (state) model.load(state);
      await model.trainStep(batch, { lr: LR, step: i + 1 });
      state = model.state();
      model.dispose();
    }
    finals.push(Float32Array.from(Object.values(state?.parameters ?? {}).flatMap(({ data }) => [...data])));
  }
  const off = distance(finals[1] as Float32Array, finals[0] as Float32Array);
  assert.ok(off <= BOUND.f32.state, `parameters differ by ${off}`);
});

/** The published trunk in kind: strided first layer, LRN, overlapping pools, padded convolutions. */
const TRUNK: FcnConfig = {
  layers: [
    { kind: "conv", out: 4, kernel: 5, stride: 2, pad: 0, lrn: true },
    { kind: "pool", size: 3, stride: 2 },
    { kind: "conv", out: 5, kernel: 3, stride: 1, pad: 1, lrn: true },
    { kind: "pool", size: 2, stride: 2 },
  ],
  frequency: "concat",
  alphaOverN: true,
};

whole("the convolutional trunk learns the same", async () => {
  const finals: Float32Array[] = [];
  for (const on of ["cpu", device]) {
    const graph = new Graph(addon);
    const store = new ParameterStore(addon, 3);
    const builder = new Builder(graph, store, true);
    const x = graph.input("x", { dtype: "f32", shape: [2, 33, 31] });
    const lengths = graph.input("lengths", { dtype: "i32", shape: [2] });
    const features = fcnTrunk(builder, "audio", { x, lengths }, TRUNK).x;
    const target = graph.input("target", { dtype: "f32", shape: features.shape });
    const loss = graph.op("masked_mse", { prediction: features, target }).loss as Value;
    const { optimizer } = parseModelConfig({ structure: "audio", optimizer: { type: "adamw" } });
    appendUpdate(graph, loss, store, builder.parameters, optimizer);
    const program = compile(addon, graph, { device: on, fetches: { loss } });
    const random = new Random(9, "trunk");
    const numbers = (shape: readonly number[]) =>
      Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, () => random.normal());
    const feeds = {
      x: numbers(x.shape),
      lengths: Int32Array.of(33, 26),
      target: numbers(features.shape),
    };
    const losses: number[] = [];
    for (let step = 1; step <= STEPS; step++)
      losses.push((await program.run({ feeds, scalars: { lr: LR, step } })).loss?.[0] as number);
    const learned = store.parameters().flatMap(({ name }) => [...store.get(name).data]);
    finals.push(Float32Array.from([...losses, ...learned]));
    program.dispose();
    store.dispose();
  }
  const off = distance(finals[1] as Float32Array, finals[0] as Float32Array);
  assert.ok(off <= BOUND.f32.state, `losses and parameters differ by ${off}`);
});

test.run();
