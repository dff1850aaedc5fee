// The trainer on a small model in TypeScript: protocol, files, interruption, resuming, refusals.
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { readFolds } from "../../lib/data/folds.ts";
import { FeatureMemory } from "../../lib/data/features.ts";
import { readCheckpoint } from "../../lib/train/checkpoint.ts";
import { parseTrainConfig, readTrainConfig, type TrainConfigInput } from "../../lib/train/config.ts";
import type { TrainEvent } from "../../lib/train/fold-job.ts";
import { readPredictions } from "../../lib/train/predict.ts";
import { type RunOptions, trainRun } from "../../lib/train/run.ts";
import { epochBatches, learningRate, longest } from "../../lib/train/schedule.ts";
import { makeCorpus } from "./corpus.ts";
import { fakeModels } from "./fake-model.ts";

const folder = mkdtempSync(path.join(tmpdir(), "affuse-train-"));
process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
let next = 0;
const fresh = () => path.join(folder, `run${next++}`);
const corpus = makeCorpus(90);

const settings = (train: NonNullable<TrainConfigInput["train"]> = {}, more: Partial<TrainConfigInput> = {}) =>
  parseTrainConfig({
    data: "memory",
    classes: corpus.labels.classes,
    ...more,
    train: { epochs: 6, batchSize: 16, warmup: 2, folds: 2, seed: 3, ...train },
  });
const run = (out: string, config = settings(), options: Partial<RunOptions> = {}) =>
  trainRun(config, { out, data: corpus, createModel: fakeModels(), ...options });
const weights = (out: string, which = "last", fold = 0) =>
  readFileSync(path.join(out, "concat", `fold${fold}`, `${which}.safetensors`));

async function codeOf(f: () => Promise<unknown>): Promise<string> {
  try {
    await f();
  } catch (error) {
    const { code } = error as { code?: string };
    if (!code?.startsWith("ERR_AFFUSE_")) throw error;
    return `${code} ${(error as Error).message}`;
  }
  return "none";
}

test("learning rate: linear warm-up over 5 epochs, then x0.9 every 2", () => {
  const { train } = parseTrainConfig({ data: "x" });
  const rates = Array.from({ length: 12 }, (_, e) => learningRate(train, e) / 1e-3);
  const want = [0.2, 0.4, 0.6, 0.8, 1, 1, 1, 0.9, 0.9, 0.81, 0.81, 0.729];
  for (const [e, rate] of rates.entries()) {
    assert.ok(Math.abs(rate - (want[e] as number)) < 1e-12, `epoch ${e}: ${rate}`);
  }
});

test("batches: every clip once, even in length, another order every epoch, the same for the same seed", () => {
  const clips = corpus.clips.map((clip) => clip.name);
  const one = epochBatches(corpus.features, clips, 8, 5, 0);
  assert.equal(one.flat().sort(), [...clips].sort());
  assert.equal(one, epochBatches(corpus.features, clips, 8, 5, 0));
  assert.not.equal(one, epochBatches(corpus.features, clips, 8, 5, 1));
  assert.is(one.filter((batch) => batch.length !== 8).length, 1);
  const waste = one.map((batch) => {
    const lengths = batch.map((clip) => longest(corpus.features, clip));
    return Math.max(...lengths) * batch.length - lengths.reduce((a, b) => a + b, 0);
  });
  const total = clips.reduce((sum, clip) => sum + longest(corpus.features, clip), 0);
  assert.ok(waste.reduce((a, b) => a + b, 0) < 0.15 * total);
});

test("a run: files, folds, history, predictions by name, scores that show learning", async () => {
  const out = fresh();
  const events: TrainEvent[] = [];
  const results = await run(out, settings({ epochs: 10 }), { onEvent: (event) => events.push(event) });
  assert.equal(readdirSync(out).sort(), ["concat", "config.yaml", "folds.json", "results.json"]);
  assert.equal(readdirSync(path.join(out, "concat", "fold1")).sort(), [
    "best.safetensors",
    "history.jsonl",
    "last.safetensors",
    "predictions.csv",
    "predictions.json",
  ]);
  const folds = readFolds(path.join(out, "folds.json"));
  const predictions = readPredictions(path.join(out, "concat", "fold1", "predictions.json"));
  assert.equal(predictions.classes, corpus.labels.classes);
  const of = (part: string) =>
    predictions.clips.filter((clip) => clip.part === part).map((clip) => clip.name);
  assert.equal(of("test"), folds.folds[1]?.test);
  assert.equal(of("validation"), folds.folds[1]?.validation);
  const history = readFileSync(path.join(out, "concat", "fold0", "history.jsonl"), "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  assert.is(history.length, 10);
  assert.ok(history[9].ce < history[0].ce);
  assert.ok(history[9].sigmaEmotion < 1 && history[9].weightValence < 1);
  const system = results.systems.concat;
  assert.is(system?.heldOut?.emotion.count, 90);
  assert.ok((system?.heldOut?.emotion.wa ?? 0) > 0.7, `held-out accuracy ${system?.heldOut?.emotion.wa}`);
  assert.ok(system?.heldOut?.intervals.merMetric);
  assert.is(events.filter((event) => event.type === "epoch").length, 20);
  const best = readCheckpoint(path.join(out, "concat", "fold0", "best.safetensors"));
  assert.is(best.info.metric, "merMetric");
  assert.equal(best.info.streams[0]?.manifest, { encoder: "test", layer: 3 });
  assert.equal(best.info.classes, corpus.labels.classes);
  assert.is(best.info.epoch, results.folds.concat?.[0]?.bestEpoch);
  assert.is(best.state.m, undefined);
  assert.ok(best.standardization?.[1]?.mean.length === 3);
});

test("the reported fold never chooses the epoch: other test labels change neither weights nor epoch", async () => {
  const a = fresh();
  await run(a);
  const test = new Set(readFolds(path.join(a, "folds.json")).folds[0]?.test);
  // Folds are drawn per class for validation, so labels move only among the test clips' valences, which folds
  // do not look at.
  const changed = {
    ...corpus,
    clips: corpus.clips.map((clip) => (test.has(clip.name) ? { ...clip, valence: 100 } : clip)),
  };
  const b = fresh();
  await run(b, settings(), { data: changed });
  assert.equal(weights(a, "best"), weights(b, "best"));
});

test("standardisation and metric come from the training and validation parts only", async () => {
  const a = fresh();
  await run(a);
  const test = new Set(readFolds(path.join(a, "folds.json")).folds[0]?.test);
  const data = new Map(
    [...corpus.data].map(([name, value]) => [
      name,
      test.has(name) ? { ...value, voice: value.voice?.map((x) => x * 50) ?? null } : value,
    ]),
  );
  const b = fresh();
  await run(b, settings(), {
    data: { ...corpus, features: new FeatureMemory(corpus.features.streams, data) },
  });
  assert.equal(weights(a, "best"), weights(b, "best"));
});

test("early stopping waits `patience` epochs after the best one; the best weights are kept", async () => {
  const out = fresh();
  await run(out, settings({ epochs: 60, patience: 3, folds: 1 }));
  const last = readCheckpoint(path.join(out, "concat", "fold0", "last.safetensors"));
  const { progress } = last.info;
  assert.ok(progress?.finished);
  assert.is(progress?.epoch, (progress?.bestEpoch ?? 0) + 4);
  const metrics = progress?.history.map((line) => (line.validation as { metric: number }).metric) ?? [];
  assert.is(progress?.bestMetric, Math.max(...metrics));
  assert.is(metrics.indexOf(Math.max(...metrics)), progress?.bestEpoch);
  const best = readCheckpoint(path.join(out, "concat", "fold0", "best.safetensors"));
  assert.equal(best.state.parameters.w?.data, last.best?.w?.data);
});

test("interrupting after any step and resuming gives the same bits", async () => {
  const whole = fresh();
  await run(whole);
  for (const stopAt of [1, 3, 4, 9, 18]) {
    const out = fresh();
    const controller = new AbortController();
    const createModel = fakeModels({ onStep: (step) => step === stopAt && controller.abort() });
    assert.match(
      await codeOf(() => run(out, settings(), { createModel, signal: controller.signal })),
      /INTERRUPTED .*--resume/,
    );
    await run(out, settings(), { resume: true });
    for (const fold of [0, 1]) {
      for (const which of ["last", "best"])
        assert.ok(
          weights(out, which, fold).equals(weights(whole, which, fold)),
          `stop ${stopAt} ${which} ${fold}`,
        );
      for (const file of ["history.jsonl", "predictions.json"]) {
        const at = path.join("concat", `fold${fold}`, file);
        assert.is(readFileSync(path.join(out, at), "utf8"), readFileSync(path.join(whole, at), "utf8"));
      }
    }
    assert.is(
      readFileSync(path.join(out, "results.json"), "utf8"),
      readFileSync(path.join(whole, "results.json"), "utf8"),
    );
  }
});

test("resuming several times in one training gives the same bits", async () => {
  const whole = fresh();
  await run(whole, settings({ folds: 1 }));
  const out = fresh();
  for (let stops = 0; ; stops++) {
    const controller = new AbortController();
    let steps = 0;
    const createModel = fakeModels({ onStep: () => ++steps === 4 && controller.abort() });
    const code = await codeOf(() =>
      run(out, settings({ folds: 1 }), { createModel, signal: controller.signal, resume: true }),
    );
    if (code === "none") {
      assert.ok(stops > 3);
      break;
    }
  }
  assert.ok(weights(out).equals(weights(whole)));
});

test("the seed is used: the same one gives the same bits, another one other folds, weights and order", async () => {
  const [a, b, c] = [fresh(), fresh(), fresh()];
  await run(a);
  await run(b);
  await run(c, settings({ seed: 4 }));
  assert.ok(weights(a).equals(weights(b)));
  assert.not(weights(a).equals(weights(c)));
  const tests = (out: string) => readFolds(path.join(out, "folds.json")).folds.map((fold) => fold.test);
  assert.equal(tests(a), tests(b));
  assert.not.equal(tests(a), tests(c));
});

test("a finished run resumed does nothing anew and changes nothing", async () => {
  const out = fresh();
  await run(out);
  const before = weights(out);
  let steps = 0;
  await run(out, settings(), { resume: true, createModel: fakeModels({ onStep: () => steps++ }) });
  assert.is(steps, 0);
  assert.ok(weights(out).equals(before));
});

test("resuming with a changed configuration or changed data is refused and says what changed", async () => {
  const out = fresh();
  await run(out);
  assert.match(await codeOf(() => run(out)), /ERR_AFFUSE_EXISTS .*--resume/);
  assert.match(
    await codeOf(() => run(out, settings({ lr: 2e-3 }), { resume: true })),
    /ERR_AFFUSE_RESUME .*train\.lr/,
  );
  assert.match(
    await codeOf(() => run(out, settings({ seed: 4 }), { resume: true })),
    /ERR_AFFUSE_RESUME .*train\.seed/,
  );
  const resumeWith = (data: Partial<typeof corpus>) =>
    codeOf(() => run(out, settings(), { resume: true, data: { ...corpus, ...data } }));
  const relabelled = corpus.clips.map((clip, i) => (i === 3 ? { ...clip, valence: 9 } : clip));
  assert.match(await resumeWith({ clips: relabelled }), /ERR_AFFUSE_RESUME .*clips\./);
  assert.match(await resumeWith({ clips: corpus.clips.slice(1) }), /ERR_AFFUSE_RESUME/);
  const touched = new Map(corpus.data);
  const name =
    readFolds(path.join(out, "folds.json")).folds[0]?.train.find((clip) => corpus.data.get(clip)?.voice) ??
    "";
  touched.set(name, {
    ...touched.get(name),
    voice: touched.get(name)?.voice?.map((x, i) => (i === 0 ? x + 1 : x)) ?? null,
  });
  assert.match(
    await resumeWith({ features: new FeatureMemory(corpus.features.streams, touched) }),
    /ERR_AFFUSE_RESUME .*features of voice/,
  );
  assert.is(await resumeWith({}), "none");
});

test("a loss that is not finite: coded, names step and clips, the checkpoint before stays", async () => {
  const out = fresh();
  const code = await codeOf(() => run(out, settings(), { createModel: fakeModels({ nanAt: 5 }) }));
  assert.match(code, /ERR_AFFUSE_NONFINITE_LOSS .*step 5 .*train_0/);
  const { info } = readCheckpoint(path.join(out, "concat", "fold0", "last.safetensors"));
  assert.ok((info.progress?.step ?? 99) < 5);
});

test("damaged checkpoints are refused with a code", async () => {
  const out = fresh();
  await run(out, settings({ folds: 1, epochs: 1 }));
  const file = path.join(out, "concat", "fold0", "last.safetensors");
  const good = readFileSync(file);
  for (const bytes of [
    good.subarray(0, 100),
    good.subarray(0, good.length - 4),
    Buffer.from(""),
    Buffer.from(good.toString("latin1").replace("affuse-checkpoint-1", "affuse-checkpoint-2"), "latin1"),
  ]) {
    writeFileSync(file, bytes);
    assert.match(
      await codeOf(() => run(out, settings({ folds: 1, epochs: 1 }), { resume: true })),
      /ERR_AFFUSE_FORMAT/,
    );
  }
});

test("a folder that cannot be written fails before any training", async () => {
  let steps = 0;
  const createModel = fakeModels({ onStep: () => steps++ });
  const blocked = path.join(folder, "blocked");
  writeFileSync(blocked, "a file");
  assert.match(
    await codeOf(() => run(path.join(blocked, "run"), settings(), { createModel })),
    /ERR_AFFUSE_WRITE/,
  );
  assert.is(steps, 0);
});

test("several structures share folds; balanced weights; f1 when there is no valence", async () => {
  const out = fresh();
  const clips = corpus.clips.map((clip) => ({ ...clip, valence: Number.NaN }));
  const results = await run(
    out,
    settings({ epochs: 2, classWeights: "balanced" }, { structures: ["concat", "audio"] }),
    { data: { ...corpus, clips } },
  );
  assert.equal(Object.keys(results.systems), ["concat", "audio", "ensemble"]);
  assert.is(results.folds.audio?.[0]?.metric, "f1Weighted");
  assert.is(results.systems.audio?.heldOut?.merMetric, null);
  const { info } = readCheckpoint(path.join(out, "audio", "fold0", "best.safetensors"));
  const { classWeights } = info.config.loss;
  assert.ok(classWeights && Math.abs(Math.min(...classWeights) - 1) < 0.5 && new Set(classWeights).size > 1);
});

test("configuration files: relative paths, defaults, errors with their path", () => {
  const file = path.join(folder, "config.yaml");
  writeFileSync(file, "data: my/data\nstructures: [concat, gfbp]\nmodel: {mlp: {dropout: 0.5}}\n");
  const config = readTrainConfig(file);
  assert.is(config.data, path.join(folder, "my/data"));
  assert.is(config.model.mlp.dropout, 0.5);
  assert.equal(config.model.mlp.widths, [256, 128]);
  assert.is(config.train.epochs, 100);
  writeFileSync(file, "data: x\nmodel:\n  mlp:\n    droput: 1\n");
  assert.throws(() => readTrainConfig(file), /line 4: unknown key model\.mlp\.droput/);
  writeFileSync(file, "data: x\nstructures: [concta]\n");
  assert.throws(() => readTrainConfig(file), /structures\.0/);
  assert.ok(!existsSync(path.join(folder, "x")));
});

test.run();
