import { test } from "uvu";
import * as assert from "uvu/assert";
import { Random } from "../../lib/data/random.ts";
import { createModel, type Batch, type Model, type ModelState } from "../../lib/models/index.ts";
import { bucket } from "../../lib/models/bucket.ts";
import { parseModelConfig } from "../../lib/models/config.ts";
import { classes, distance, makeBatch, streams, structures, tinyConfig, toyBatch, toyFrames } from "./helpers.ts";


function code(error: unknown): string {
  return (error as { code?: string }).code ?? String(error);
}

async function failure(action: () => unknown): Promise<string> {
  try {
    await action();
  } catch (error) {
    return code(error);
  }
  return "no error";
}

function sameState(a: ModelState, b: ModelState): boolean {
  return (["parameters", "m", "v"] as const).every((role) =>
    Object.entries(a[role] ?? {}).every(
      ([name, tensor]) => distance(tensor.data, b[role]?.[name]?.data ?? []) === 0,
    ),
  );
}

for (const structure of structures) {
  test(`${structure} learns a toy problem`, async () => {
    const random = new Random(51, structure);
    const model = createModel(tinyConfig(structure), streams, classes);
    const batches = Array.from({ length: 4 }, () => toyBatch(random, 16));
    const epoch = async (first: number) => {
      let ce = 0;
      let mse = 0;
      for (const [i, batch] of batches.entries()) {
        const result = await model.trainStep(batch, { lr: 1e-2, step: first + i });
        assert.ok(Object.values(result).every(Number.isFinite), JSON.stringify(result));
        ce += result.ce / batches.length;
        mse += result.mse / batches.length;
      }
      return { ce, mse };
    };
    const before = await epoch(1);
    let after = before;
    for (let round = 1; round < 40; round++) after = await epoch(1 + round * batches.length);
    assert.ok(after.ce < 0.5 * before.ce, `cross-entropy ${before.ce} → ${after.ce}`);
    assert.ok(after.mse < 0.6 * before.mse, `squared error ${before.mse} → ${after.mse}`);

    const fresh = toyBatch(random, 64);
    const { posteriors, valence, attention, logits, embedding } = await model.infer(fresh);
    let right = 0;
    for (let b = 0; b < 64; b++) {
      const row = [...posteriors.subarray(b * 3, b * 3 + 3)];
      assert.ok(Math.abs(row.reduce((sum, p) => sum + p, 0) - 1) < 1e-5);
      if (row.indexOf(Math.max(...row)) === fresh.labels?.[b]) right++;
    }
    assert.ok(right > 45, `${right} of 64 new clips`);
    assert.is(valence.length, 64);
    assert.is(logits.length, 64 * 3);
    assert.is(embedding.length, 64 * model.embeddingWidth);
    for (const { name } of model.streams) {
      const [weights, stream] = [attention[name] as Float32Array, fresh.streams[name]];
      if (!stream) throw new Error("no stream");
      for (let b = 0; b < 64; b++) {
        const row = [...weights.subarray(b * stream.T, (b + 1) * stream.T)];
        assert.ok(Math.abs(row.reduce((sum, w) => sum + w, 0) - 1) < 1e-4, "attention sums to 1");
        assert.ok(
          row.slice(stream.lengths[b]).every((w) => w === 0),
          "none on padding",
        );
      }
    }
    model.dispose();
  });
}

test("a resumed training gives the same bits as an uninterrupted one", async () => {
  for (const structure of ["hierarchical", "gfbp"] as const) {
    const config = tinyConfig(structure, {
      modalityDropout: 0.3,
      optimizer: { type: "adamw", maxNorm: 1, weightDecay: 0.01 },
    });
    const batches = Array.from({ length: 6 }, (_, i) => toyBatch(new Random(52, i), 5));
    const steps = async (model: Model, from: number, to: number) => {
      for (let step = from; step <= to; step++) {
        await model.trainStep(batches[step - 1] as Batch, { lr: 1e-2, step });
      }
    };
    const whole = createModel(config, streams, classes);
    await steps(whole, 1, 6);
    const first = createModel(config, streams, classes);
    await steps(first, 1, 3);
    const saved = structuredClone(first.state());
    first.dispose();
    const second = createModel({ ...config, seed: 5 }, streams, classes);
    await steps(second, 1, 1); // whatever it held before is replaced
    second.load(saved);
    assert.is(second.state().step, 3);
    await steps(second, 4, 6);
    assert.ok(sameState(whole.state(), second.state()), structure);
    assert.not.ok(sameState(whole.state(), saved), "and the training did move");
    whole.dispose();
    second.dispose();
  }
});

test("a task without labels in the batch adds nothing and leaves its s and its head untouched", async () => {
  for (const form of ["kendall", "half", "log1p"] as const) {
    const config = tinyConfig("concat", { loss: { form }, optimizer: { weightDecay: 0 } });
    const { labels, valence, ...bare } = toyBatch(new Random(53, "toy"), 8);

    const classification = createModel(config, streams, classes);
    const before = classification.state();
    const onlyLabels = await classification.trainStep({ ...bare, labels }, { lr: 1e-2, step: 1 });
    assert.is(onlyLabels.mse, 0);
    assert.is(onlyLabels.sV, 0);
    assert.not.equal(onlyLabels.sE, 0);
    assert.is(
      onlyLabels.loss.toFixed(5),
      form === "kendall" ? onlyLabels.ce.toFixed(5) : onlyLabels.loss.toFixed(5),
    );
    const after = classification.state();
    for (const name of ["head.v.W", "head.m", "head.ev.W", "loss.s_v"]) {
      assert.equal(after.parameters[name], before.parameters[name], `${form} ${name}`);
    }
    assert.not.equal(after.parameters["head.e.W"], before.parameters["head.e.W"]);
    classification.dispose();

    const regression = createModel(config, streams, classes);
    const onlyValence = await regression.trainStep({ ...bare, valence }, { lr: 1e-2, step: 1 });
    assert.is(onlyValence.ce, 0);
    assert.is(onlyValence.sE, 0);
    assert.not.equal(onlyValence.sV, 0);
    regression.dispose();

    const neither = createModel(config, streams, classes);
    const start = neither.state();
    const nothing = await neither.trainStep(bare, { lr: 1e-2, step: 1 });
    assert.equal(nothing, { loss: 0, ce: 0, mse: 0, sE: 0, sV: 0, gradNorm: 0 });
    assert.ok(sameState({ ...start }, neither.state()), "dead gradients are zeros: nothing moves");
    neither.dispose();
  }
});

test("weight decay spares s_e and s_v", async () => {
  const config = tinyConfig("concat", { optimizer: { type: "adamw", weightDecay: 0.5 } });
  const model = createModel(config, streams, classes);
  const state = model.state();
  (state.parameters["loss.s_e"] as { data: Float32Array }).data[0] = 0.7;
  model.load(state);
  const { labels: _labels, valence: _valence, ...bare } = toyBatch(new Random(54, "toy"), 8);
  const { sE } = await model.trainStep(bare, { lr: 1e-1, step: 1 });
  assert.is(sE, Math.fround(0.7));
  const before = state.parameters["head.e.W"]?.data[0] as number;
  const after = model.state().parameters["head.e.W"]?.data[0] as number;
  assert.ok(Math.abs(after / before - 0.95) < 1e-5, "the others shrink by 1 − lr·weightDecay");
  model.dispose();
});

test("clipping bounds the step's gradient, the reported norm is the one before", async () => {
  const batch = toyBatch(new Random(55, "toy"), 8);
  const norm = async (maxNorm: number | null) => {
    const model = createModel(tinyConfig("concat", { optimizer: { maxNorm } }), streams, classes);
    const { gradNorm } = await model.trainStep(batch, { lr: 1e-2, step: 1 });
    const m = Object.values(model.state().m ?? {}).flatMap(({ data }) => [...data]);
    model.dispose();
    // Adam's first moment after one step is (1 − β₁) times the gradient that arrived (weight decay is 1e-5 here).
    return { gradNorm, arrived: Math.hypot(...m) / 0.1 };
  };
  const free = await norm(null);
  const clipped = await norm(free.gradNorm / 4);
  assert.ok(Math.abs(free.arrived / free.gradNorm - 1) < 1e-3);
  assert.is(clipped.gradNorm, free.gradNorm);
  assert.ok(Math.abs(clipped.arrived / (free.gradNorm / 4) - 1) < 1e-3);
});

test("a clip without any stream still gets a finite prediction, and a finite training step", async () => {
  for (const structure of structures) {
    const model = createModel(tinyConfig(structure), streams, classes);
    const batch = makeBatch(new Random(56, structure), 3, toyFrames, () => true);
    const prediction = await model.infer(batch);
    for (const name of ["logits", "posteriors", "valence", "embedding"] as const) {
      assert.ok(prediction[name].every(Number.isFinite), `${structure} ${name}`);
    }
    const step = await model.trainStep(batch, { lr: 1e-3, step: 1 });
    assert.ok(Object.values(step).every(Number.isFinite), structure);
    model.dispose();
  }
});

test("presence 0 hides a stream whatever its rows hold", async () => {
  for (const structure of structures) {
    const model = createModel(tinyConfig(structure), streams, classes);
    const batch = makeBatch(new Random(57, structure), 4, toyFrames);
    const hidden = batch.streams.face;
    if (!hidden) throw new Error("no stream");
    hidden.presence[1] = 0;
    const a = await model.infer(batch);
    hidden.data.fill(Number.NaN, toyFrames.face * 4, 2 * toyFrames.face * 4);
    const b = await model.infer(batch);
    assert.equal(a.logits.slice(3, 6), b.logits.slice(3, 6), structure);
    model.dispose();
  }
});

test("wrong batches, states and configurations are refused with a code", async () => {
  const model = createModel(tinyConfig("concat"), streams, classes);
  const batch = toyBatch(new Random(58, "toy"), 4);
  const face = batch.streams.face;
  if (!face) throw new Error("no stream");
  const { face: _face, ...others } = batch.streams;
  const withFace = (change: Partial<typeof face>) => ({
    ...batch,
    streams: { ...others, face: { ...face, ...change } },
  });
  assert.is(await failure(() => model.infer({ ...batch, streams: others })), "ERR_AFFUSE_BATCH");
  assert.is(await failure(() => model.infer({ ...batch, size: 0 })), "ERR_AFFUSE_BATCH");
  assert.is(await failure(() => model.infer(withFace({ T: 7 }))), "ERR_AFFUSE_BATCH");
  assert.is(await failure(() => model.infer(withFace({ lengths: new Int32Array(3) }))), "ERR_AFFUSE_BATCH");
  assert.is(
    await failure(() => model.infer(withFace({ lengths: new Int32Array(4).fill(25) }))),
    "ERR_AFFUSE_LENGTH",
  );
  const labels = new Int32Array(4).fill(3);
  assert.is(
    await failure(() => model.trainStep({ ...batch, labels }, { lr: 1e-3, step: 1 })),
    "ERR_AFFUSE_LABEL",
  );
  assert.is(await failure(() => model.trainStep(batch, { lr: 1e-3, step: 0 })), "ERR_AFFUSE_SCALAR");
  assert.is(await failure(() => model.trainStep(batch, { lr: Number.NaN, step: 1 })), "ERR_AFFUSE_SCALAR");

  const state = model.state();
  const { "head.m": _m, ...fewer } = state.parameters;
  assert.is(await failure(() => model.load({ ...state, parameters: fewer })), "ERR_AFFUSE_PARAMETER");
  const extra = { ...state.parameters, more: { shape: [1], data: new Float32Array(1) } };
  assert.is(await failure(() => model.load({ ...state, parameters: extra })), "ERR_AFFUSE_PARAMETER");
  const step = model.trainStep(batch, { lr: 1e-3, step: 1 });
  assert.is(await failure(() => model.state()), "ERR_AFFUSE_BUSY");
  await step;
  model.dispose();
  assert.is(await failure(() => model.infer(batch)), "ERR_AFFUSE_DISPOSED");
  assert.is(await failure(() => model.state()), "ERR_AFFUSE_DISPOSED");

  const visualOnly = streams.filter((stream) => stream.modality === "visual");
  assert.is(
    await failure(() => createModel({ structure: "audio" }, visualOnly, classes)),
    "ERR_AFFUSE_STREAMS",
  );
  assert.is(
    await failure(() => createModel({ structure: "gfbp" }, visualOnly, classes)),
    "ERR_AFFUSE_STREAMS",
  );
  assert.is(await failure(() => createModel(tinyConfig("concat"), streams, ["one"])), "ERR_AFFUSE_CONFIG");
  assert.is(await failure(() => parseModelConfig({ structure: "concat", mpl: {} })), "ERR_AFFUSE_CONFIG");
  assert.is(await failure(() => parseModelConfig({ structure: "sum" })), "ERR_AFFUSE_CONFIG");
});

test("a batch cut short by an error leaves the model usable and unchanged", async () => {
  const model = createModel(tinyConfig("concat"), streams, classes);
  const batch = toyBatch(new Random(59, "toy"), 4);
  const before = model.state();
  await failure(() =>
    model.trainStep({ ...batch, labels: new Int32Array(4).fill(9) }, { lr: 1e-2, step: 1 }),
  );
  assert.ok(sameState(before, model.state()));
  const result = await model.trainStep(batch, { lr: 1e-2, step: 1 });
  assert.ok(Number.isFinite(result.loss));
  model.dispose();
});

test("programs beyond the cache's limit are dropped and made again", async () => {
  const model = createModel(tinyConfig("concat"), streams, classes, { programCacheBytes: 1 });
  const small = toyBatch(new Random(60, "toy"), 2);
  const large = toyBatch(new Random(61, "toy"), 9);
  const first = await model.infer(small);
  await Promise.all([model.infer(large), model.infer(small), model.infer(large)]);
  assert.equal((await model.infer(small)).logits, first.logits);
  model.dispose();
});

test("buckets: few of them, never too small, at most 14 % padding beyond 64", () => {
  const made = new Set<number>();
  for (let length = 0; length <= 4000; length++) {
    const T = bucket(length);
    assert.ok(T >= length && T >= 1);
    if (length > 64) assert.ok(T <= 1.14 * length, `${length} → ${T}`);
    made.add(T);
  }
  assert.ok(made.size <= 60, `${made.size} buckets`);
});

test.run();
