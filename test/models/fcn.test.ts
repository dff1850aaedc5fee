// The fully convolutional trunk of spec 2.2: shapes, clips inside a padded batch against the same clips alone, gradients.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { Random } from "../../lib/data/random.ts";
import { gradients } from "../../lib/graph/gradients.ts";
import { Graph } from "../../lib/graph/graph.ts";
import { interpret } from "../../lib/graph/interpret.ts";
import { type Parameter, ParameterStore } from "../../lib/graph/parameters.ts";
import type { Value } from "../../lib/graph/value.ts";
import { defaultFcn, type FcnConfig, fcnExtent, fcnLeast, fcnTrunk } from "../../lib/models/fcn.ts";
import { loadAddon } from "../../lib/native/index.ts";
import type { TypedArray } from "../../lib/native/addon.ts";
import { Builder } from "../../lib/nn/builder.ts";
import { afgGather } from "../../lib/nn/layers.ts";

const addon = loadAddon();

/** Like the published trunk in kind: strided first layer, LRN, overlapping pools, padded convolutions. */
const tiny: FcnConfig = {
  layers: [
    { kind: "conv", out: 4, kernel: 5, stride: 2, pad: 0, lrn: true },
    { kind: "pool", size: 3, stride: 2 },
    { kind: "conv", out: 5, kernel: 3, stride: 1, pad: 1, lrn: true },
    { kind: "conv", out: 3, kernel: 3, stride: 1, pad: 2, lrn: false },
    { kind: "pool", size: 2, stride: 2 },
  ],
  frequency: "concat",
  alphaOverN: true,
};

test("extents of the specification", () => {
  assert.is(fcnExtent(200), 5);
  assert.equal(
    [300, 700, 1000].map((n) => fcnExtent(n)),
    [8, 20, 30],
  );
  const least = fcnLeast();
  assert.is(fcnExtent(least), 1);
  assert.is(fcnExtent(least - 1), 0);
});

interface Built {
  graph: Graph;
  store: ParameterStore;
  builder: Builder;
  x: Value;
  lengths: Value | null;
}

function build(batch: number, frames: number, bins: number, config: FcnConfig, masked = true): Built {
  const graph = new Graph(addon);
  const store = new ParameterStore(addon, 3);
  const builder = new Builder(graph, store, false);
  const x = graph.input("x", { dtype: "f32", shape: [batch, frames, bins] });
  const given = masked ? graph.input("lengths", { dtype: "i32", shape: [batch] }) : null;
  const features = fcnTrunk(builder, "audio", { x, lengths: given }, config);
  return { graph, store, builder, x: features.x, lengths: features.lengths };
}

test("shapes of the default trunk", () => {
  const { builder, x, lengths } = build(2, 300, 200, defaultFcn);
  assert.equal(x.shape, [2, 8, 1280]);
  assert.equal(lengths?.shape, [2]);
  const weights = [...builder.parameters]
    .filter(([name]) => name.endsWith(".W"))
    .map(([, value]) => value.shape);
  assert.equal(weights, [
    [96, 1, 11, 11],
    [256, 96, 5, 5],
    [384, 256, 3, 3],
    [384, 384, 3, 3],
    [256, 384, 3, 3],
  ]);
  assert.equal(build(1, 700, 200, { ...defaultFcn, frequency: "mean" }).x.shape, [1, 20, 256]);
});

test("too few frames or bins", () => {
  for (const [frames, bins] of [
    [fcnLeast() - 1, 200],
    [300, fcnLeast() - 1],
  ] as const) {
    assert.throws(
      () => build(1, frames, bins, defaultFcn),
      (error: { code?: string }) => error.code === "ERR_AFFUSE_SHAPE",
    );
  }
});

/** Parameters of a built graph by name, as the interpreter wants them; some replaced. */
const storedBy =
  ({ store }: Built, moved: Record<string, Float64Array> = {}) =>
  (value: Value): TypedArray => {
    const { name } = (value.source as unknown as { place: Parameter }).place;
    return moved[name] ?? store.get(name).data;
  };

/** Clips of these lengths, NaN behind them. */
function clips(lengths: readonly number[], frames: number, bins: number): Float32Array {
  const random = new Random(8, "clips");
  const data = new Float32Array(lengths.length * frames * bins).fill(Number.NaN);
  lengths.forEach((length, i) => {
    for (let j = 0; j < length * bins; j++) data[i * frames * bins + j] = random.normal();
  });
  return data;
}

for (const frequency of ["concat", "mean"] as const) {
  test(`a clip in a padded batch is the clip alone, bit for bit (${frequency})`, () => {
    const config = { ...tiny, frequency };
    const [frames, bins] = [61, 24];
    const least = fcnLeast(config);
    const lengths = [61, 0, 37, least, least - 1, 52];
    const data = clips(lengths, frames, bins);
    const batch = build(lengths.length, frames, bins, config);
    const [B, T, D] = batch.x.shape as [number, number, number];
    assert.is(T, fcnExtent(frames, config));
    const [features, columns] = interpret(addon, batch.graph, [batch.x, batch.lengths as Value], {
      feeds: { x: data, lengths: Int32Array.from(lengths) },
      stored: storedBy(batch),
      device: "cpu",
    }) as [Float32Array, Int32Array];
    assert.equal(
      [...columns],
      lengths.map((n) => fcnExtent(n, config)),
    );
    for (let i = 0; i < B; i++) {
      const own = columns[i] as number;
      const rows = features.subarray(i * T * D, (i + 1) * T * D);
      assert.ok(
        rows.subarray(own * D).every((v) => v === 0),
        `clip ${i}: padding is not zero`,
      );
      if (own === 0) continue;
      const n = lengths[i] as number;
      const alone = build(1, n, bins, config, false);
      const [single] = interpret(addon, alone.graph, [alone.x], {
        feeds: { x: data.subarray(i * frames * bins, (i * frames + n) * bins) },
        stored: storedBy(alone),
        device: "cpu",
      }) as [Float32Array];
      assert.equal([...rows.subarray(0, own * D)], [...single], `clip ${i}`);
    }
  });
}

/** Mean over the columns of a gathering on top, as a loss that sees every feature. */
function withLoss(built: Built): Value {
  const { c } = afgGather(
    built.builder,
    "gather",
    { x: built.x, lengths: built.lengths },
    { dim: 4, scale: 1, masked: true },
  );
  const [B, D] = c.shape as [number, number];
  const random = new Random(4, "target");
  const target = built.graph.constant(
    { dtype: "f32", shape: [B, D] },
    Float32Array.from({ length: B * D }, () => random.normal()),
  );
  return built.graph.op("masked_mse", { prediction: c, target }).loss as Value;
}

test("gradients of a tiny trunk against differences, NaN in the padding", () => {
  const [frames, bins] = [41, 22];
  const lengths = [41, 0, 33];
  const feeds = { x: clips(lengths, frames, bins), lengths: Int32Array.from(lengths) };
  const built = build(lengths.length, frames, bins, tiny);
  const loss = withLoss(built);
  const names = [...built.builder.parameters.keys()];
  const random = new Random(6, "directions");
  const start = Object.fromEntries(
    names.map((name) => [
      name,
      Float64Array.from(built.store.get(name).data, (v) => v + 0.05 * random.normal()),
    ]),
  );
  const wanted = gradients(
    built.graph,
    loss,
    names.map((name) => built.builder.parameters.get(name) as Value),
  );
  const evaluate = (values: readonly Value[], at: Record<string, Float64Array>) =>
    interpret(addon, built.graph, values, { feeds, stored: storedBy(built, at) }) as Float64Array[];
  const found = evaluate(wanted as Value[], start);
  let checked = 0;
  for (const [i, name] of names.entries()) {
    const gradient = found[i] as Float64Array;
    assert.ok(gradient.every(Number.isFinite), name);
    assert.ok(
      gradient.some((g) => g !== 0),
      `${name}: no gradient at all`,
    );
    const direction = gradient.map(() => random.normal());
    const at = (h: number) => {
      const moved = (start[name] as Float64Array).map((v, j) => v + h * (direction[j] as number));
      return (evaluate([loss], { ...start, [name]: moved })[0] as Float64Array)[0] as number;
    };
    const numeric = (at(1e-6) - at(-1e-6)) / 2e-6;
    const analytic = gradient.reduce((sum, g, j) => sum + g * (direction[j] as number), 0);
    assert.ok(
      Math.abs(numeric - analytic) <= 1e-6 * (1e-2 + Math.abs(numeric)),
      `${name}: ${numeric} and ${analytic}`,
    );
    checked++;
  }
  assert.is(checked, 9);
});

test("a short clip's gradients are those it gives alone", () => {
  const [frames, bins, n] = [61, 22, 38];
  const data = clips([n], frames, bins);
  const grads = [true, false].map((padded) => {
    const built = build(1, padded ? frames : n, bins, tiny, padded);
    const loss = withLoss(built);
    const names = [...built.builder.parameters.keys()];
    const wanted = gradients(
      built.graph,
      loss,
      names.map((name) => built.builder.parameters.get(name) as Value),
    );
    return interpret(addon, built.graph, wanted as Value[], {
      feeds: padded ? { x: data, lengths: Int32Array.of(n) } : { x: data.subarray(0, n * bins) },
      stored: storedBy(built),
      device: "cpu",
    }) as Float32Array[];
  }) as [Float32Array[], Float32Array[]];
  grads[0].forEach((g, i) => {
    const other = grads[1][i] as Float32Array;
    const most = other.reduce((m, v) => Math.max(m, Math.abs(v)), 0);
    const worst = g.reduce((m, v, j) => Math.max(m, Math.abs(v - (other[j] as number))), 0);
    assert.ok(worst <= 1e-5 * most, `parameter ${i}: ${worst} of ${most}`);
  });
});

test.run();
