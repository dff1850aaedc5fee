// Combining members: golden value, alignment by name, class orders, fitted and entropy weights; whole runs
// through the small model.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { FeatureFolders, FeatureMemory, findStreams } from "../../lib/data/features.ts";
import { Random } from "../../lib/data/random.ts";
import {
  align,
  combine,
  combinePresent,
  entropy,
  fitWeights,
  reorderClasses,
  softmax,
} from "../../lib/ensemble/combine.ts";
import { compareSystems, evaluateRuns } from "../../lib/ensemble/evaluate.ts";
import { findMembers, loadEnsemble } from "../../lib/ensemble/load.ts";
import { reportData } from "../../lib/ensemble/report.ts";
import { argmax } from "../../lib/metrics/evaluate.ts";
import { parseTrainConfig } from "../../lib/train/config.ts";
import { type ClipPrediction, readPredictions } from "../../lib/train/predict.ts";
import { trainRun } from "../../lib/train/run.ts";
import { classes, makeCorpus, writeCorpus } from "../train/corpus.ts";
import { fakeModels } from "../train/fake-model.ts";

const near = (a: readonly number[], b: readonly number[], tolerance: number) => {
  assert.is(a.length, b.length);
  for (const [i, x] of a.entries())
    assert.ok(Math.abs(x - (b[i] as number)) <= tolerance, `${a} against ${b}`);
};
const member = (logits: number[], valence = 0, name = "x"): ClipPrediction => ({
  name,
  logits,
  posteriors: softmax(logits),
  valence,
});
async function codeOf(f: () => unknown): Promise<string> {
  try {
    await f();
  } catch (error) {
    const { code } = error as { code?: string };
    if (!code?.startsWith("ERR_AFFUSE_")) throw error;
    return `${code} ${(error as Error).message}`;
  }
  return "none";
}

test("golden value of the specification: mean posterior and mean logits disagree", () => {
  const members = [member([4, 0, 0], 1), member([0, 1.5, 0], 2), member([0, 1.5, 0], 6)];
  const mean = combine(members);
  near(mean.posteriors, [0.42440823, 0.46684844, 0.10874332], 5e-9);
  assert.is(argmax(mean.posteriors), 1);
  assert.is(mean.valence, 3);
  const logits = combine(members, { method: "logits" });
  near(logits.logits, [4 / 3, 1, 0], 1e-12);
  near(logits.posteriors, softmax([4 / 3, 1, 0]), 1e-12);
  assert.is(argmax(logits.posteriors), 0);
});

test("entropy weighting follows exp(-H/tau); weights are normalised; the clamp is optional", () => {
  const a = member([3, 0, 0], -5);
  const b = member([0.1, 0, 0], 5);
  const raw = [a, b].map(({ posteriors }) => Math.exp(-entropy(posteriors) / 0.5));
  const total = (raw[0] as number) + (raw[1] as number);
  const mixed = combine([a, b], { method: "entropy", temperature: 0.5 });
  near([mixed.valence], [(-5 * (raw[0] as number) + 5 * (raw[1] as number)) / total], 1e-12);
  near(combine([a, b], { method: "entropy", temperature: 1e9 }).posteriors, combine([a, b]).posteriors, 1e-8);
  near([combine([a, b], { weights: [3, 1] }).valence], [-2.5], 1e-12);
  assert.is(combine([a], { clampValence: [-3, 3] }).valence, -3);
  near([entropy([0.5, 0.5, 0])], [Math.LN2], 1e-15);
});

test("combine refuses what cannot be combined", async () => {
  assert.match(await codeOf(() => combine([])), /ENSEMBLE/);
  assert.match(await codeOf(() => combine([member([1, 2]), member([1, 2, 3])])), /ENSEMBLE/);
  assert.match(await codeOf(() => combine([member([1, 2], 0, "x"), member([1, 2], 0, "y")])), /ENSEMBLE/);
  assert.match(await codeOf(() => combine([member([1])], { weights: [-1] })), /ENSEMBLE/);
  assert.match(await codeOf(() => combine([member([1])], { method: "fitted" })), /ENSEMBLE/);
  assert.match(await codeOf(() => combine([member([1])], { method: "entropy", temperature: 0 })), /ENSEMBLE/);
});

test("fitted weights maximise the likelihood on the simplex", () => {
  const random = new Random(1);
  const truth = Array.from({ length: 400 }, () => random.integer(3));
  const answers = (sharp: number, seed: number) =>
    truth.map((c) => {
      const r = new Random(seed, c + seed * 7);
      return member([0, 1, 2].map((k) => (k === c ? sharp : 0) + random.normal(0, 1) + 0 * r.word()));
    });
  const members = [answers(2.5, 1), answers(0.5, 2), answers(0, 3)];
  const weights = fitWeights(members, truth);
  near([weights.reduce((a, b) => a + b, 0)], [1], 1e-9);
  const likelihood = (w: number[]) =>
    truth.reduce(
      (sum, c, i) =>
        sum +
        Math.log(members.reduce((p, m, s) => p + (w[s] as number) * (m[i]?.posteriors[c] as number), 0)),
      0,
    );
  const best = likelihood(weights);
  for (let a = 0; a <= 20; a++)
    for (let b = 0; a + b <= 20; b++)
      assert.ok(likelihood([a / 20, b / 20, (20 - a - b) / 20]) <= best + 1e-6);
  assert.ok((weights[0] as number) > 0.8);
  near(
    fitWeights(
      members,
      truth.map(() => -1),
    ),
    [1 / 3, 1 / 3, 1 / 3],
    1e-12,
  );
});

test("members are aligned by clip name and class name, never by position", async () => {
  const a = {
    name: "a",
    classes: ["p", "q", "r"],
    clips: [member([1, 2, 3], 1, "one"), member([4, 5, 6], 2, "two")],
  };
  const b = {
    name: "b",
    classes: ["r", "p", "q"],
    clips: [member([6, 4, 5], 2, "two"), member([9, 9, 9], 3, "three"), member([3, 1, 2], 1, "one")],
  };
  const aligned = align([a, b]);
  assert.equal(
    aligned.clips.map(({ name, answers }) => [name, answers.map((answer) => answer?.logits ?? null)]),
    [
      [
        "one",
        [
          [1, 2, 3],
          [1, 2, 3],
        ],
      ],
      ["three", [null, [9, 9, 9]]],
      [
        "two",
        [
          [4, 5, 6],
          [4, 5, 6],
        ],
      ],
    ],
  );
  assert.is(combinePresent(aligned.clips[1]?.answers ?? [], { weights: [0.9, 0.1] }).valence, 3);
  assert.match(await codeOf(() => reorderClasses(["p", "q"], ["p", "x"], "m")), /CLASSES .*p, q.*p, x/);
  assert.match(await codeOf(() => align([a, { ...a, clips: [...a.clips, ...a.clips] }])), /ENSEMBLE .*twice/);
});

const folder = mkdtempSync(path.join(tmpdir(), "affuse-ensemble-"));
process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
const data = path.join(folder, "data");
writeCorpus(data, makeCorpus(80), makeCorpus(40, 1, "test1"));
const run = path.join(folder, "run");
const createModel = fakeModels();
const config = parseTrainConfig({
  data,
  classes,
  structures: ["concat", "audio"],
  train: { epochs: 8, batchSize: 16, warmup: 1, folds: 2, seed: 4 },
});

test("a run as one predictor: posteriors, emotion, attention, what was missing", async () => {
  await trainRun(config, { out: run, createModel });
  assert.equal(
    findMembers(run).map(({ structure, fold }) => `${structure}${fold}`),
    ["audio0", "audio1", "concat0", "concat1"],
  );
  const ensemble = await loadEnsemble([run], { createModel });
  assert.equal(ensemble.classes, classes);
  assert.equal(ensemble.streams.map(({ name }) => name).sort(), ["face", "voice"]);
  const source = new FeatureFolders(findStreams(data));
  const clips = source.clips.filter((name) => name.startsWith("test1"));
  const answers = await ensemble.predict(source, clips);
  for (const [i, answer] of answers.entries()) {
    assert.is(answer.name, clips[i]);
    near([answer.posteriors.reduce((a, b) => a + b, 0)], [1], 1e-6);
    assert.is(answer.emotion, classes[argmax(answer.posteriors)]);
    for (const [s, { name }] of source.streams.entries()) {
      const weights = answer.attention[name] as Float32Array;
      assert.is(weights.length, source.length(answer.name, s));
      if (weights.length) near([weights.reduce((a, b) => a + b, 0)], [1], 1e-5);
      assert.is(answer.missing.includes(name), weights.length === 0);
    }
  }
  assert.ok(answers.some(({ missing }) => missing.length > 0));
  // One clip alone, from memory, gives the same answer; streams the models do not know are ignored.
  const name = clips[3] as string;
  const index = (stream: string) => source.streams.findIndex((s) => s.name === stream);
  const alone = await ensemble.predictOne(
    {
      face: await source.load(name, index("face")),
      voice: await source.load(name, index("voice")),
      other: Float32Array.of(1),
    },
    name,
  );
  near(alone.posteriors, answers[3]?.posteriors ?? [], 1e-6);
  const nothing = await ensemble.predictOne({});
  assert.equal(nothing.missing.sort(), ["face", "voice"]);
  near([nothing.posteriors.reduce((a, b) => a + b, 0)], [1], 1e-6);
  const wide = new FeatureMemory(
    [{ name: "face", modality: "visual", dim: 9, manifest: null }],
    [["x", { face: new Float32Array(9) }]],
  );
  assert.match(await codeOf(() => ensemble.predict(wide, ["x"])), /DIMENSION .*face/);
  ensemble.dispose();
});

test("held-out evaluation uses the saved predictions and equals the run's own results", async () => {
  const result = await evaluateRuns([run], { seed: config.train.seed });
  const saved = JSON.parse(readFileSync(path.join(run, "results.json"), "utf8"));
  assert.equal(Object.keys(result.systems).sort(), ["audio", "concat", "ensemble"]);
  for (const name of ["audio", "concat", "ensemble"]) {
    assert.equal(
      JSON.parse(JSON.stringify(result.systems[name]?.evaluation)),
      saved.systems[name].heldOut,
      name,
    );
  }
  assert.is(result.clips, 80);
});

test("another split: structures and ensemble, every method, paired test, report data", async () => {
  const mean = await evaluateRuns([run], { on: "test1", createModel });
  assert.is(mean.clips, 40);
  const wa = mean.systems.ensemble?.evaluation?.emotion.wa ?? 0;
  assert.ok(wa > 0.6, `accuracy ${wa}`);
  for (const method of ["fitted", "entropy", "logits"] as const) {
    const other = await evaluateRuns([run], { on: "test1", method, createModel });
    assert.not.equal(other.systems.ensemble?.predictions[0]?.valence, undefined);
    if (method === "fitted") {
      near([other.weights?.reduce((sum, { weight }) => sum + weight, 0) ?? 0], [1], 1e-9);
      const of = (structure: string) =>
        other.weights?.filter((w) => w.structure === structure).map((w) => w.weight) ?? [];
      assert.ok((of("concat")[0] as number) > (of("audio")[0] as number), "two streams tell more than one");
      near([of("concat")[0] as number], [of("concat")[1] as number], 1e-12);
    }
  }
  const a = mean.systems.concat?.predictions ?? [];
  const b = mean.systems.audio?.predictions ?? [];
  const test = compareSystems(a, [...b].reverse(), mean.truth, mean.classes, "wa");
  near(
    [test.difference],
    [(mean.systems.concat?.evaluation?.emotion.wa ?? 0) - (mean.systems.audio?.evaluation?.emotion.wa ?? 0)],
    1e-12,
  );
  const report = reportData([run], mean);
  assert.is(report.systems.length, 3);
  assert.is(report.curves?.length, 4);
  assert.is(report.curves?.[0]?.epochs.length, 8);
  assert.match(
    await codeOf(() => evaluateRuns([run], { on: "nowhere", createModel })),
    /NOT_FOUND .*test1, train/,
  );
  assert.match(await codeOf(() => evaluateRuns([run], { method: "fitted" })), /ENSEMBLE .*--on/);
  assert.match(await codeOf(() => evaluateRuns([path.join(folder, "none")])), /NOT_FOUND/);
});

test("runs whose class lists are ordered differently combine by name; other classes are refused", async () => {
  const swapped = ["happy", "neutral", "angry"];
  const second = path.join(folder, "second");
  await trainRun({ ...config, classes: swapped, structures: ["concat"] }, { out: second, createModel });
  const both = await evaluateRuns([run, second], { on: "test1", createModel });
  const alone = await evaluateRuns([second], { on: "test1", createModel });
  assert.equal(both.classes, classes);
  assert.equal(alone.classes, swapped);
  assert.ok((both.systems.concat?.evaluation?.emotion.wa ?? 0) > 0.6);
  const held = await evaluateRuns([run, second]);
  assert.ok((held.systems.ensemble?.evaluation?.emotion.wa ?? 0) > 0.6);
  const file = path.join(second, "concat", "fold0", "predictions.json");
  const text = readFileSync(file, "utf8");
  writeFileSync(file, text.replace('"happy"', '"glad"'));
  assert.match(await codeOf(() => evaluateRuns([run, second])), /CLASSES .*glad/);
  writeFileSync(file, text.replace('"neutral"', '"happy"'));
  assert.match(await codeOf(() => readPredictions(file)), /FORMAT .*twice/);
  writeFileSync(file, text.slice(0, 200));
  assert.match(await codeOf(() => readPredictions(file)), /FORMAT/);
});

test("a missing stream in the data counts as missing, and is said", async () => {
  const silent = path.join(folder, "silent");
  const corpus = makeCorpus(20, 1, "test1");
  for (const value of corpus.data.values()) value.voice = null;
  writeCorpus(silent, corpus);
  const result = await evaluateRuns([run], {
    on: "test1",
    data: silent,
    structures: ["concat"],
    createModel,
  });
  assert.ok(result.notes.some((text) => text.includes("no stream voice")));
  assert.is(Object.keys(result.systems).join(), "concat");
});

test.run();
