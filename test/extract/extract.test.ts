import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import os from "node:os";
import path from "node:path";
import { suite } from "uvu";
import { findStreams, FeatureFolders } from "../../lib/data/features.ts";
import { encodeNpy, readNpyFloat32 } from "../../lib/data/npy.ts";
import { BUILTIN } from "../../lib/encoders/builtin.ts";
import { parseManifest } from "../../lib/encoders/manifest.ts";
import { isAffuseError } from "../../lib/errors.ts";
import { findClips } from "../../lib/extract/discover.ts";
import { extract, type ExtractOptions } from "../../lib/extract/extract.ts";
import { wavPath, facesPath, writeClip } from "../../lib/synth/clip.ts";
import { planSplit } from "../../lib/synth/plan.ts";

const root = mkdtempSync(path.join(os.tmpdir(), "affuse-extract-"));
const test = suite("extract");
test.after(() => rmSync(root, { recursive: true, force: true }));

const recipe = { clips: 5, testClips: 0, seed: 9, noise: 0.5 };
const plans = planSplit(9, "train", 5);
const names = plans.map((plan) => plan.name);
const pristine = path.join(root, "pristine");
test.before(() => {
  for (const folder of ["audio", "faces"]) mkdirSync(path.join(pristine, folder), { recursive: true });
  for (const plan of plans) writeClip(pristine, recipe, plan);
});

let counter = 0;
function copy(): string {
  const data = path.join(root, `data${counter++}`);
  cpSync(pristine, data, { recursive: true, preserveTimestamps: true });
  return data;
}

const run = (data: string, options: ExtractOptions = {}) =>
  extract(data, { workers: 1, threads: 1, ...options });
const coded = (code: string, text: RegExp) => (error: unknown) => {
  assert.ok(isAffuseError(error), String(error));
  assert.equal(error.code, code);
  assert.match(error.message, text);
  return true;
};
const counts = (summary: Awaited<ReturnType<typeof run>>) =>
  summary.encoders.map((e) => [e.written, e.skipped, e.missing.length]);

test("writes the layout that training reads, and skips what is done", async () => {
  const data = copy();
  const summary = await run(data);
  assert.deepEqual(counts(summary), [
    [5, 0, 0],
    [5, 0, 0],
  ]);
  assert.deepEqual(summary.failed, []);
  assert.equal(existsSync(path.join(data, "features", "failed.json")), false);
  const streams = findStreams(data);
  assert.deepEqual(streams.map((s) => [s.name, s.modality]).sort(), [
    ["gabor-face", "visual"],
    ["logmel", "audio"],
  ]);
  const features = new FeatureFolders(streams);
  for (const plan of plans) {
    for (const [s, { name, dim }] of features.streams.entries()) {
      assert.equal(features.length(plan.name, s), plan.frames, `${name} has a row per face frame`);
      assert.equal((await features.load(plan.name, s))?.length, plan.frames * dim);
    }
  }
  const manifest = JSON.parse(
    readFileSync(path.join(data, "features", "logmel-FRA", "manifest.json"), "utf8"),
  );
  assert.deepEqual(
    [manifest.format, manifest.dim, manifest.rate, manifest.encoder.model],
    ["affuse-features", 64, 12.5, "builtin:logmel"],
  );

  assert.deepEqual(counts(await run(data)), [
    [0, 5, 0],
    [0, 5, 0],
  ]);
  // The same features whatever the number of threads, and again after --overwrite.
  const file = path.join(data, "features", "logmel-FRA", `${names[0]}.npy`);
  const before = readFileSync(file);
  assert.deepEqual(counts(await extract(data, { workers: 2, threads: 2, overwrite: true })), [
    [5, 0, 0],
    [5, 0, 0],
  ]);
  assert.ok(readFileSync(file).equals(before));
});

test("damaged, foreign, older and half-written features are made again", async () => {
  const data = copy();
  await run(data, { encoders: ["logmel"] });
  const folder = path.join(data, "features", "logmel-FRA");
  const file = (i: number): string => path.join(folder, `${names[i]}.npy`);
  const good = readFileSync(file(0));
  writeFileSync(file(0), good.subarray(0, good.length - 4)); // cut off
  writeFileSync(file(1), encodeNpy([3, 63], new Float32Array(189))); // another width
  writeFileSync(file(2), "not an array");
  const later = new Date(Date.now() + 60_000);
  utimesSync(wavPath(data, names[3] as string), later, later); // the clip has changed
  writeFileSync(path.join(folder, `.${names[4]}.npy.999999999.deadbeef.tmp`), "left by a killed process");
  assert.deepEqual(counts(await run(data, { encoders: ["logmel"] })), [[4, 1, 0]]);
  assert.ok(readFileSync(file(0)).equals(good));
  assert.deepEqual(readNpyFloat32(file(1)).shape[1], 64);
  assert.deepEqual(
    readdirSync(folder).filter((name) => name.endsWith(".tmp")),
    [],
  );
});

test("clips that fail are listed, the others are written; mended clips leave the list", async () => {
  const data = copy();
  const broken = wavPath(data, names[1] as string);
  const good = readFileSync(broken);
  writeFileSync(broken, good.subarray(0, 1000));
  writeFileSync(facesPath(data, names[2] as string), encodeNpy([4, 48, 48], new Float32Array(4 * 2304)));
  writeFileSync(facesPath(data, names[3] as string), encodeNpy([4, 48, 48], new Uint8Array(4 * 2304))); // black frames
  rmSync(facesPath(data, names[4] as string));
  const summary = await run(data);
  assert.deepEqual(
    summary.failed.map(({ clip, encoder, code }) => [clip, encoder, code]),
    [
      [names[1], "logmel", "ERR_AFFUSE_FORMAT"],
      [names[2], "gabor-face", "ERR_AFFUSE_DTYPE"],
    ],
  );
  assert.deepEqual(counts(summary), [
    [4, 0, 0],
    [2, 0, 2],
  ]);
  assert.deepEqual(summary.encoders[1]?.missing, [
    { clip: names[3], why: "no face: all 4 frames are empty pictures" },
    { clip: names[4], why: "no picture file" },
  ]);
  const list = path.join(data, "features", "failed.json");
  assert.deepEqual(JSON.parse(readFileSync(list, "utf8")), summary.failed);
  writeFileSync(broken, good);
  cpSync(facesPath(pristine, names[2] as string), facesPath(data, names[2] as string));
  assert.deepEqual((await run(data)).failed, []);
  assert.equal(existsSync(list), false);
});

test("a clip with nothing usable is a failure", async () => {
  const data = copy();
  writeFileSync(facesPath(data, names[0] as string), encodeNpy([0, 48, 48], new Uint8Array(0)));
  rmSync(wavPath(data, names[0] as string));
  const { failed } = await run(data);
  assert.deepEqual(
    failed.map(({ clip, code }) => [clip, code]),
    [[names[0], "ERR_AFFUSE_EMPTY_CLIP"]],
  );
});

test("features of two encoders never mix", async () => {
  const data = copy();
  await run(data, { encoders: ["logmel"] });
  const other = parseManifest({ ...BUILTIN.logmel?.manifest, version: 2 });
  await assert.rejects(
    run(data, { encoders: [other] }),
    coded("ERR_AFFUSE_EXTRACT_MIXED", /5 features with another encoder/),
  );
  assert.deepEqual(counts(await run(data, { encoders: [other], overwrite: true })), [[5, 0, 0]]);
  rmSync(path.join(data, "features", "logmel-FRA", "manifest.json"));
  await assert.rejects(run(data, { encoders: ["logmel"] }), coded("ERR_AFFUSE_EXTRACT_MIXED", /no manifest/));
  await assert.rejects(
    run(data, { encoders: ["logmel", "logmel"] }),
    coded("ERR_AFFUSE_DUPLICATE", /logmel twice/),
  );
});

test("pooling writes one vector per clip, the mean of the rows", async () => {
  const data = copy();
  const mean = parseManifest({ ...BUILTIN.logmel?.manifest, name: "logmel-mean", pooling: "mean" });
  await run(data, { encoders: ["logmel", mean] });
  const rows = readNpyFloat32(path.join(data, "features", "logmel-FRA", `${names[0]}.npy`));
  const one = readNpyFloat32(path.join(data, "features", "logmel-mean-UTT", `${names[0]}.npy`));
  assert.deepEqual(one.shape, [64]);
  for (let d = 0; d < 64; d++) {
    let sum = 0;
    for (let t = 0; t < (rows.shape[0] as number); t++) sum += rows.data[t * 64 + d] as number;
    assert.ok(Math.abs(sum / (rows.shape[0] as number) - (one.data[d] as number)) < 1e-5);
  }
  assert.deepEqual(counts(await run(data, { encoders: [mean] })), [[0, 5, 0]]);
});

test("places that cannot be written, folders without clips, duplicate names", async () => {
  const data = copy();
  writeFileSync(path.join(root, "a-file"), "");
  for (const out of [path.join(root, "a-file", "features"), "/proc/affuse-features"]) {
    await assert.rejects(run(data, { out }), coded("ERR_AFFUSE_WRITE", /Could not write/));
  }
  const empty = path.join(root, "empty");
  mkdirSync(empty);
  await assert.rejects(run(empty), coded("ERR_AFFUSE_NOT_FOUND", /found none/));
  await assert.rejects(run(path.join(root, "nowhere")), coded("ERR_AFFUSE_NOT_FOUND", /does not exist/));
  writeFileSync(path.join(data, "audio", `${names[0]}.mp3`), "");
  await assert.rejects(run(data), coded("ERR_AFFUSE_DUPLICATE", /one file per clip/));
});

test("clips are found by exact stem, in audio and faces, then in media folders", () => {
  const data = path.join(root, "find");
  for (const folder of ["audio", "faces", "video"]) mkdirSync(path.join(data, folder), { recursive: true });
  for (const file of [
    "audio/a.wav",
    "audio/ab.wav",
    "faces/a.npy",
    "video/a.mp4",
    "video/ab.MP4",
    "video/c.mkv",
    "video/notes.txt",
    "audio/.hidden.wav",
  ]) {
    writeFileSync(path.join(data, file), "");
  }
  const at = (file: string): string => path.join(data, file);
  assert.deepEqual(findClips(data), [
    { name: "a", audio: at("audio/a.wav"), visual: at("faces/a.npy") },
    { name: "ab", audio: at("audio/ab.wav"), visual: at("video/ab.MP4") },
    { name: "c", audio: at("video/c.mkv"), visual: at("video/c.mkv") },
  ]);
  assert.deepEqual(
    findClips(at("video")).map((clip) => clip.name),
    ["a", "ab", "c"],
  );
});

test("a killed extraction goes on where it stopped", async () => {
  const data = copy();
  const out = path.join(data, "features");
  const script = `
    const { extract } = await import(${JSON.stringify(path.resolve("lib/extract/extract.ts"))});
    await extract(${JSON.stringify(data)}, { workers: 1, threads: 1, onProgress: ({ done }) => { if (done === 4) process.kill(process.pid, "SIGKILL"); } });`;
  const child = spawn(process.execPath, ["--import", "tsx", "--input-type=module", "-e", script], {
    stdio: "inherit",
  });
  const [, signal] = await new Promise<[number | null, string | null]>((resolve) =>
    child.on("exit", (code, s) => resolve([code, s])),
  );
  assert.equal(signal, "SIGKILL");
  const written = (): number =>
    ["logmel-FRA", "gabor-face-FRA"]
      .flatMap((f) => readdirSync(path.join(out, f)))
      .filter((n) => n.endsWith(".npy") && !n.startsWith(".")).length;
  const before = written();
  assert.ok(before >= 4 && before < 10, `${before} files`);
  const summary = await run(data);
  assert.equal(
    summary.encoders.reduce((sum, e) => sum + e.skipped, 0),
    before,
  );
  assert.equal(written(), 10);
  assert.ok(statSync(path.join(out, "logmel-FRA", "manifest.json")).size > 100);
});

test("an aborted extraction keeps what is done and says so", async () => {
  const data = copy();
  const controller = new AbortController();
  await assert.rejects(
    run(data, { signal: controller.signal, onProgress: ({ done }) => done === 2 && controller.abort() }),
    coded("ERR_AFFUSE_INTERRUPTED", /Run the same command again/),
  );
  const summary = await run(data);
  const skipped = summary.encoders.reduce((sum, e) => sum + e.skipped, 0);
  assert.ok(skipped >= 2 && skipped < 10, `${skipped} were kept`);
});

test.run();
