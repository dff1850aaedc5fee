import { createHash } from "node:crypto";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { readLabels } from "../../lib/data/labels.ts";
import { readNpy } from "../../lib/data/npy.ts";
import { isAffuseError } from "../../lib/errors.ts";
import { planCorpus, readCorpus, readTruth, synthesise } from "../../lib/synth/index.ts";

const test = suite("synthetic corpus on disk");
const root = mkdtempSync(path.join(os.tmpdir(), "affuse-synth-"));
test.after(() => rmSync(root, { recursive: true, force: true }));

/** SHA-256 over names and contents of every file, in the order of their names. */
function digest(dir: string): string {
  const hash = createHash("sha256");
  const files = (readdirSync(dir, { recursive: true }) as string[]).map((file) => file.replaceAll("\\", "/")).sort();
  for (const file of files) {
    const full = path.join(dir, file);
    if (!statSync(full).isFile()) continue;
    hash.update(`${file}\0`).update(readFileSync(full)).update("\0");
  }
  return hash.digest("hex");
}

async function codeOf(run: () => Promise<unknown>): Promise<string> {
  try {
    await run();
  } catch (error) {
    return isAffuseError(error) ? error.code : `uncoded: ${error}`;
  }
  return "no error";
}

const small = { clips: 12, testClips: 6, seed: 20260101, noise: 1 };

test("gives these very bytes, whatever the number of threads", async () => {
  const one = path.join(root, "one");
  const three = path.join(root, "three");
  await synthesise(one, { ...small, threads: 1 });
  await synthesise(three, { ...small, threads: 3 });
  const expected = "8ca8ccd471a8e79c924a90b51ccd8906c59be1acb56d2c365c64503937e4b675";
  assert.is(digest(one), expected);
  assert.is(digest(three), expected);
});

test("has the layout that the readers expect", async () => {
  const dir = path.join(root, "one");
  const labels = readLabels(path.join(dir, "train-label.csv"));
  assert.is(labels.clips.length, 12);
  const truth = readTruth(dir);
  assert.is(truth.size, 18);
  for (const plan of planCorpus(small)) {
    const faces = readNpy(path.join(dir, "faces", `${plan.name}.npy`));
    assert.equal(faces.shape, [plan.frames, 48, 48]);
    assert.instance(faces.data, Uint8Array);
    const wav = readFileSync(path.join(dir, "audio", `${plan.name}.wav`));
    assert.is(wav.toString("latin1", 0, 4) + wav.toString("latin1", 8, 16), "RIFFWAVEfmt ");
    assert.is(wav.readUInt32LE(24), 16000);
    assert.is((wav.length - 44) / 2 / 16000, plan.frames / 12.5);
    assert.is(truth.get(plan.name)?.face, `F${plan.face}`);
  }
  const info = readCorpus(dir);
  assert.is(info.complete, true);
  assert.is(info.seed, "20260101");
  assert.is(info.ceilings.fused.accuracy, 1);
});

test("leaves a complete corpus alone and completes an interrupted one", async () => {
  const dir = path.join(root, "resumed");
  await synthesise(dir, { ...small, threads: 2 });
  const before = digest(dir);
  const kept = path.join(dir, "faces", "train_00003.npy");
  const stamp = statSync(kept).mtimeMs;
  const lost = path.join(dir, "faces", "train_00002.npy");
  const cut = path.join(dir, "audio", "test1_00004.wav");
  rmSync(lost);
  truncateSync(cut, 1000); // as a power cut may leave it
  writeFileSync(path.join(dir, "corpus.json"), JSON.stringify({ ...readCorpus(dir), complete: false }));
  let calls = 0;
  await synthesise(dir, { ...small, threads: 2 }, () => calls++);
  assert.is(digest(dir), before);
  assert.is(statSync(kept).mtimeMs, stamp);
  assert.is(calls, 18);
  await synthesise(dir, small, () => calls++);
  assert.is(calls, 18, "nothing was left to do");
});

test("refuses a folder with other content, another corpus, and impossible figures", async () => {
  const dir = path.join(root, "taken");
  await synthesise(dir, { ...small, clips: 0, testClips: 1 });
  assert.is(await codeOf(() => synthesise(dir, { ...small, clips: 0, testClips: 1, seed: 2 })), "ERR_AFFUSE_EXISTS");
  assert.is(await codeOf(() => synthesise(dir, { ...small, clips: 0, testClips: 2 })), "ERR_AFFUSE_EXISTS");
  rmSync(path.join(dir, "corpus.json"));
  assert.is(await codeOf(() => synthesise(dir, { ...small, clips: 0, testClips: 1 })), "ERR_AFFUSE_EXISTS");
  const file = path.join(root, "a-file");
  writeFileSync(file, "x");
  assert.is(await codeOf(() => synthesise(file, small)), "ERR_AFFUSE_WRITE");
  assert.is(readFileSync(file, "utf8"), "x");
  for (const wrong of [{ clips: -1 }, { clips: 1.5 }, { noise: Number.NaN }, { noise: -1 }, { seed: 0.5 }, { threads: 0 }]) {
    assert.is(await codeOf(() => synthesise(path.join(root, "wrong"), { ...small, ...wrong })), "ERR_AFFUSE_ARGUMENT");
  }
  assert.not.ok(existsSync(path.join(root, "wrong")));
});

test("a larger corpus begins with the smaller one, and splits differ", () => {
  const few = planCorpus({ ...small, clips: 5, testClips: 5 });
  const many = planCorpus({ ...small, clips: 40, testClips: 5 });
  assert.equal(few.slice(0, 5), many.slice(0, 5));
  assert.not.equal(
    few.slice(0, 5).map(({ name, split, ...rest }) => rest),
    few.slice(5).map(({ name, split, ...rest }) => rest),
  );
});

test.run();
