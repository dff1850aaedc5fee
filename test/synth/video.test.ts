import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { isAffuseError } from "../../lib/errors.ts";
import { encodeVideos, synthesise, videoPath } from "../../lib/synth/index.ts";
import { requireFromRoot } from "#root";

const test = suite("MP4 copies");
const dir = mkdtempSync(path.join(os.tmpdir(), "affuse-video-"));
test.after(() => rmSync(dir, { recursive: true, force: true }));

test("are added to a complete corpus, test clips first, and kept when they exist", async () => {
  const recipe = { clips: 1, testClips: 2, seed: 4 };
  await synthesise(dir, recipe);
  await synthesise(dir, { ...recipe, mp4: 2 });
  assert.equal(readdirSync(path.join(dir, "video")), ["test1_00001.mp4", "test1_00002.mp4"]);
  const file = videoPath(dir, "test1_00001");
  const bytes = readFileSync(file);
  assert.is(bytes.toString("latin1", 4, 8), "ftyp");
  for (const box of ["moov", "vide", "soun", "avc1", "mp4a"]) assert.ok(bytes.includes(box), box);
  const stamp = statSync(file).mtimeMs;
  await synthesise(dir, { ...recipe, mp4: true });
  assert.is(readdirSync(path.join(dir, "video")).length, 3);
  assert.is(statSync(file).mtimeMs, stamp);
});

test("of a clip that is not there end in a coded error, and leave nothing", async () => {
  const before = readdirSync(path.join(dir, "video"));
  try {
    await encodeVideos(dir, ["no-such-clip"]);
    assert.unreachable();
  } catch (error) {
    assert.is(isAffuseError(error) && error.code, "ERR_AFFUSE_NOT_FOUND");
  }
  assert.equal(readdirSync(path.join(dir, "video")), before);
});

try {
  requireFromRoot.resolve("node-av");
  test.run();
} catch {
  rmSync(dir, { recursive: true, force: true });
  console.log("SKIPPED MP4 copies: the package node-av is not installed.");
}
