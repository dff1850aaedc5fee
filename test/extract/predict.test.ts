import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { suite } from "uvu";
import type { FeatureSource, StreamInfo } from "../../lib/data/features.ts";
import { encodeNpy } from "../../lib/data/npy.ts";
import { BUILTIN } from "../../lib/encoders/builtin.ts";
import { parseManifest } from "../../lib/encoders/manifest.ts";
import { resolveEncoder } from "../../lib/encoders/pool.ts";
import type { EnsemblePrediction } from "../../lib/ensemble/load.ts";
import { isAffuseError } from "../../lib/errors.ts";
import { clipOfFile } from "../../lib/extract/discover.ts";
import { attentionRanges, encodersOf, predictClips } from "../../lib/extract/predict.ts";
import { FeatureStore } from "../../lib/extract/store.ts";
import { facesPath, wavPath, writeClip } from "../../lib/synth/clip.ts";
import { planSplit } from "../../lib/synth/plan.ts";
import { encodeVideos, videoPath } from "../../lib/synth/video.ts";

const dir = mkdtempSync(path.join(os.tmpdir(), "affuse-predict-"));
const test = suite("predicting clips");
test.after(() => rmSync(dir, { recursive: true, force: true }));
const at = (name: string): string => path.join(dir, name);
const [plan] = planSplit(3, "test1", 1) as [ReturnType<typeof planSplit>[number]];

/** Streams as checkpoints hold them: with the manifests that extraction wrote. */
async function streamsOf(encoders: string[]): Promise<StreamInfo[]> {
  const streams: StreamInfo[] = [];
  for (const name of encoders) {
    const { folder } = FeatureStore.open(at("features"), await resolveEncoder(name));
    const manifest = JSON.parse(readFileSync(path.join(folder, "manifest.json"), "utf8"));
    streams.push({ name, modality: manifest.modality, dim: manifest.dim, manifest });
  }
  return streams;
}

/** Stands for a trained ensemble: says which streams it saw, and attends to the second quarter of each. */
function watcher(streams: StreamInfo[]) {
  const seen: Record<string, number>[] = [];
  return {
    streams,
    classes: ["calm", "stirred"],
    seen,
    async predict(features: FeatureSource, clips: readonly string[]): Promise<EnsemblePrediction[]> {
      return clips.map((name) => {
        const lengths = Object.fromEntries(
          features.streams.map((s, i) => [s.name, features.length(name, i)]),
        );
        seen.push(lengths);
        const attention = Object.fromEntries(
          Object.entries(lengths).map(([stream, T]) => [
            stream,
            Float32Array.from({ length: T }, (_, t) => (t >= T / 4 && t < T / 2 ? 4 / T : 0)),
          ]),
        );
        return {
          name,
          posteriors: [0.25, 0.75],
          logits: [0, 1],
          valence: 0.5,
          emotion: "stirred",
          attention,
          missing: [],
        };
      });
    },
  };
}

test.before(async () => {
  for (const folder of ["audio", "faces"]) mkdirSync(at(folder));
  writeClip(dir, { clips: 0, testClips: 1, seed: 3, noise: 0.5 }, plan);
  await encodeVideos(dir, [plan.name]);
});

test("ranges: the fewest frames with half of the weight, joined where they touch", () => {
  assert.deepEqual(attentionRanges(Float32Array.of(0.125, 0.25, 0.25, 0, 0.0625, 0.3125), 10), [
    { start: 0.1, end: 0.2, weight: 0.25 },
    { start: 0.5, end: 0.6, weight: 0.3125 },
  ]);
  assert.deepEqual(attentionRanges(Float32Array.of(0.125, 0.375, 0.375, 0.125), 2), [
    { start: 0.5, end: 1.5, weight: 0.75 },
  ]);
  assert.deepEqual(attentionRanges(Float32Array.of(1), 12.5), [{ start: 0, end: 0.08, weight: 1 }]);
  assert.deepEqual(attentionRanges(new Float32Array(0), 12.5), []);
  const uniform = attentionRanges(new Float32Array(8).fill(0.125), 1);
  assert.deepEqual(uniform, [{ start: 0, end: 4, weight: 0.5 }]);
});

test("video, sound alone, faces alone, black pictures, and files that hold nothing", async () => {
  const black = at("black.npy");
  writeFileSync(black, encodeNpy([20, 48, 48], new Uint8Array(20 * 2304)));
  const video = readFileSync(videoPath(dir, plan.name));
  writeFileSync(at("truncated.mp4"), video.subarray(0, video.length >> 1));
  writeFileSync(at("text.mp4"), "no film");
  writeFileSync(at("empty.mp4"), "");
  writeFileSync(at("wrong.wav"), "no sound");
  writeFileSync(
    at("objects.npy"),
    Buffer.from(
      Buffer.from(encodeNpy([1, 8, 8], new Uint8Array(64)))
        .toString("latin1")
        .replace("'|u1'", "'|O' "),
      "latin1",
    ),
  );
  const ensemble = watcher(await streamsOf(["logmel", "gabor-face"]));
  const files = [
    videoPath(dir, plan.name),
    wavPath(dir, plan.name),
    facesPath(dir, plan.name),
    at("truncated.mp4"),
    at("text.mp4"),
    at("empty.mp4"),
    at("wrong.wav"),
    at("objects.npy"),
    at("nowhere.mp4"),
    black,
  ];
  const clips = [...files.map(clipOfFile), { name: "both", audio: wavPath(dir, plan.name), visual: black }];
  const results = await predictClips(ensemble, clips, { workers: 2, threads: 2 });
  assert.equal(results.length, clips.length);
  assert.deepEqual(
    results.map((r) => ("error" in r ? r.error.code : r.missing.map((m) => m.modality).join("+") || "all")),
    [
      "all",
      "visual",
      "audio",
      "ERR_AFFUSE_DECODE",
      "ERR_AFFUSE_DECODE",
      "ERR_AFFUSE_DECODE",
      "ERR_AFFUSE_DECODE",
      "ERR_AFFUSE_PICKLE",
      "ERR_AFFUSE_NOT_FOUND",
      "ERR_AFFUSE_EMPTY_CLIP",
      "visual",
    ],
  );
  const whole = results[0];
  assert.ok(whole && !("error" in whole));
  assert.deepEqual(whole.posteriors, { calm: 0.25, stirred: 0.75 });
  assert.equal(whole.emotion, "stirred");
  const seconds = plan.frames / 12.5;
  for (const { ranges } of whole.attention) {
    assert.equal(ranges.length, 1);
    const [range] = ranges as [{ start: number; end: number; weight: number }];
    assert.ok(range.start >= seconds / 4 - 0.17 && range.end <= seconds / 2 + 0.17, JSON.stringify(range));
    assert.ok(range.weight >= 0.49);
  }
  assert.deepEqual(Object.keys(ensemble.seen[0] ?? {}).sort(), ["gabor-face", "logmel"]);
  assert.equal(ensemble.seen[0]?.["gabor-face"], plan.frames);
  assert.ok(Math.abs((ensemble.seen[0]?.logmel ?? 0) - plan.frames) <= 1);
  const last = results.at(-1);
  assert.ok(last && !("error" in last) && /no face/.test(last.missing[0]?.why ?? ""));
});

test("a stream that cannot be decoded is missing while another one is there", async () => {
  const cut = at("cut.npy");
  writeFileSync(cut, readFileSync(facesPath(dir, plan.name)).subarray(0, -7));
  const ensemble = watcher(await streamsOf(["logmel", "gabor-face"]));
  const [result] = await predictClips(
    ensemble,
    [{ name: "x", audio: wavPath(dir, plan.name), visual: cut }],
    { workers: 1 },
  );
  assert.ok(result && !("error" in result));
  assert.match(result.missing[0]?.why ?? "", /ERR_AFFUSE_FORMAT/);
  assert.equal(result.attention.length, 1);
});

test("the encoder must be the one of the training", async () => {
  const coded = (text: RegExp) => (error: unknown) => {
    assert.ok(isAffuseError(error) && error.code === "ERR_AFFUSE_PREDICT_ENCODER", String(error));
    assert.match(error.message, text);
    return true;
  };
  const streams = await streamsOf(["logmel"]);
  assert.equal((await encodersOf({ streams }))[0]?.manifest.name, "logmel");
  const other = parseManifest({ ...BUILTIN.logmel?.manifest, pooling: "mean" });
  await assert.rejects(
    encodersOf({ streams }, [other]),
    coded(/is not the one that the model was trained with/),
  );
  const [stream] = streams as [StreamInfo];
  await assert.rejects(
    encodersOf({ streams: [{ ...stream, manifest: null }] }),
    coded(/whose encoder its checkpoint does not know/),
  );
  assert.equal(
    (await encodersOf({ streams: [{ ...stream, manifest: null }] }, ["logmel"]))[0]?.manifest.name,
    "logmel",
  );
});

test.run();
