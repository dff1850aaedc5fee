/** The built command line: extract, a small training, predict; and the same without the optional packages. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import os from "node:os";
import path from "node:path";
import { suite } from "uvu";
import { packageRoot } from "#root";
import { affuse, type CliResult } from "../helpers/cli.ts";

const dir = mkdtempSync(path.join(os.tmpdir(), "affuse-cli-"));
const test = suite("extract and predict on the command line");
test.after(() => rmSync(dir, { recursive: true, force: true }));
const at = (name: string): string => path.join(dir, name);
const corpus = at("corpus");
const run = at("run");

/** No stack trace, and a coded message. */
function refused(result: CliResult, code: RegExp, exit = 1): void {
  assert.equal(result.code, exit, `${result.stdout}\n${result.stderr}`);
  assert.match(result.stderr, code);
  assert.doesNotMatch(result.stderr, /\n\s+at .*:\d+:\d+/);
}

test.before(async () => {
  const synth = await affuse([
    "synth",
    corpus,
    "--clips",
    "24",
    "--test-clips",
    "2",
    "--seed",
    "3",
    "--mp4",
    "1",
  ]);
  assert.equal(synth.code, 0, synth.stderr);
});

test("extract: summary as JSON and nothing else; again: all skipped; broken clip: exit 1", async () => {
  const first = await affuse(["extract", corpus, "--json"]);
  assert.equal(first.code, 0, first.stderr);
  const summary = JSON.parse(first.stdout);
  assert.deepEqual(
    summary.encoders.map((e: { name: string; written: number }) => [e.name, e.written]),
    [
      ["logmel", 26],
      ["gabor-face", 26],
    ],
  );
  const second = await affuse(["extract", corpus]);
  assert.equal(second.code, 0);
  assert.match(second.stdout, /logmel \[T,64\]: 0 written, 26 were there/);
  const small = at("small");
  mkdirSync(path.join(small, "audio"), { recursive: true });
  const [wav] = readdirSync(path.join(corpus, "audio")) as [string];
  cpSync(path.join(corpus, "audio", wav), path.join(small, "audio", wav));
  writeFileSync(path.join(small, "audio", "bad.wav"), "RIFF....WAVE");
  const broken = await affuse(["extract", small, "--encoder", "logmel", "--json"]);
  refused(broken, /bad \(logmel\): ERR_AFFUSE_FORMAT/);
  assert.equal(JSON.parse(broken.stdout).encoders[0].written, 1);
  refused(await affuse(["extract", at("nowhere")]), /^ERR_AFFUSE_NOT_FOUND/);
  refused(await affuse(["extract", corpus, "--encoder", "nothing"]), /^ERR_AFFUSE_ENCODER_UNKNOWN/);
  refused(await affuse(["extract", corpus, "--out", "/proc/nope"]), /^ERR_AFFUSE_WRITE/);
  refused(await affuse(["extract", corpus, "--thread", "2"]), /unknown option/, 2);
  refused(await affuse(["extract"]), /missing required argument/, 2);
  assert.match((await affuse(["extract", "--help"])).stdout, /Examples:/);
});

test("predict: an MP4, sound alone, faces alone, bad files; JSON and text", async () => {
  const args = "--structure concat --folds 1 --epochs 1 --set model.attention.dim=16";
  const train = await affuse(["train", corpus, ...args.split(" "), "--out", run]);
  assert.equal(train.code, 0, train.stderr);
  const mp4 = path.join(corpus, "video", readdirSync(path.join(corpus, "video"))[0] as string);
  const name = path.basename(mp4, ".mp4");
  const wav = path.join(corpus, "audio", `${name}.wav`);
  const faces = path.join(corpus, "faces", `${name}.npy`);
  const good = await affuse(["predict", mp4, wav, faces, "--model", run, "--json"]);
  assert.equal(good.code, 0, good.stderr);
  const { clips, classes } = JSON.parse(good.stdout);
  assert.deepEqual(
    clips.map((c: { missing: { modality: string }[] }) => c.missing.map((m) => m.modality)),
    [[], ["visual"], ["audio"]],
  );
  for (const clip of clips) {
    const sum = Object.values<number>(clip.posteriors).reduce((a, b) => a + b, 0);
    assert.ok(Math.abs(sum - 1) < 1e-5);
    assert.ok(classes.includes(clip.emotion) && Number.isFinite(clip.valence));
    for (const { ranges } of clip.attention) {
      assert.ok(ranges.reduce((s: number, r: { weight: number }) => s + r.weight, 0) > 0.499);
    }
  }
  assert.equal(clips[0].attention.length, 2);

  for (const place of [["runs", "mine"], ["demo", "seed1", "run"]]) {
    const home = at(`home-${place[0]}`);
    mkdirSync(path.join(home, ...place.slice(0, -1)), { recursive: true });
    cpSync(run, path.join(home, ...place), { recursive: true });
    const found = await affuse(["predict", wav], { cwd: home });
    assert.equal(found.code, 0, found.stderr);
    assert.ok(found.stderr.includes(`Model: ${path.join(...place)}`), found.stderr);
  }

  writeFileSync(at("text.mp4"), "no film");
  writeFileSync(at("empty.mp4"), "");
  const whole = readFileSync(mp4);
  writeFileSync(at("half.mp4"), whole.subarray(0, whole.length >> 1));
  const mixed = await affuse([
    "predict",
    mp4,
    at("text.mp4"),
    at("empty.mp4"),
    at("half.mp4"),
    "--model",
    run,
  ]);
  refused(mixed, /text\.mp4: ERR_AFFUSE_DECODE/);
  assert.match(mixed.stderr, /empty\.mp4: ERR_AFFUSE_DECODE/);
  assert.match(mixed.stderr, /half\.mp4: ERR_AFFUSE_DECODE/);
  assert.match(mixed.stdout, /emotion .*\n[\s\S]*valence .*\n[\s\S]*attention of gabor-face: /);

  refused(await affuse(["predict", wav, "--model", at("nowhere")]), /^ERR_AFFUSE_NOT_FOUND/);
  refused(await affuse(["predict", wav], { cwd: dir }), /ERR_AFFUSE_NOT_FOUND.*--model RUN/);
  refused(await affuse(["predict"]), /missing required argument/, 2);
});

/** A copy of the built package whose node_modules lacks some packages. */
function packageWithout(...absent: string[]): string {
  const copy = at(`without-${absent.join("-")}`);
  mkdirSync(path.join(copy, "node_modules"), { recursive: true });
  for (const part of ["package.json", "bin", "dist", "lib/root"]) {
    cpSync(path.join(packageRoot, part), path.join(copy, part), { recursive: true });
  }
  for (const name of readdirSync(path.join(packageRoot, "node_modules"))) {
    if (absent.includes(name) || name.startsWith(".")) continue;
    symlinkSync(path.join(packageRoot, "node_modules", name), path.join(copy, "node_modules", name));
  }
  return path.join(copy, "bin", "affuse.mjs");
}

const script = (file: string, ...args: string[]): Promise<CliResult> =>
  new Promise((resolve) => {
    execFile(process.execPath, [file, ...args], (error, stdout, stderr) => {
      resolve({ code: typeof error?.code === "number" ? error.code : error ? 137 : 0, stdout, stderr });
    });
  });

test("without the optional packages the error names the command that installs them", async () => {
  const noOrt = await script(packageWithout("onnxruntime-node"), "extract", corpus, "--out", at("f1"));
  refused(noOrt, /^ERR_AFFUSE_NO_ONNXRUNTIME: .*npm install onnxruntime-node/);
  const noAv = packageWithout("node-av");
  const direct = await script(noAv, "extract", corpus, "--out", at("f2"), "--encoder", "logmel");
  assert.equal(direct.code, 0, "WAV needs no decoder");
  const video = await script(noAv, "extract", path.join(corpus, "video"), "--out", at("f3"));
  refused(video, /^ERR_AFFUSE_NO_DECODER: .*npm install node-av/);
});

test.run();
