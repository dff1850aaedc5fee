import { existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { affuse } from "../helpers/cli.ts";

const test = suite("affuse synth");
const root = mkdtempSync(path.join(os.tmpdir(), "affuse-synth-cli-"));
test.after(() => rmSync(root, { recursive: true, force: true }));

test("prints the ceilings, and with --json one document", async () => {
  const dir = path.join(root, "corpus");
  const args = ["synth", dir, "--clips", "4", "--test-clips", "12", "--seed", "18446744073709551615"];
  const first = await affuse(args);
  assert.is(first.code, 0, first.stderr);
  assert.match(first.stdout, /audio +66\.7 %[\s\S]*visual +66\.7 %[\s\S]*fused +100\.0 %/);
  const again = await affuse([...args, "--json"]);
  assert.is(again.code, 0, again.stderr);
  const info = JSON.parse(again.stdout);
  assert.is(info.seed, "18446744073709551615");
  assert.is(info.ceilings.audio.accuracy, 0.666667);
  assert.is(readdirSync(path.join(dir, "faces")).length, 16);
});

test("--help has examples", async () => {
  const { code, stdout } = await affuse(["synth", "--help"]);
  assert.is(code, 0);
  assert.match(stdout, /Examples:\n {2}affuse synth/);
});

test("wrong usage ends with 2, a refusal with 1 and a code, nothing on standard output", async () => {
  for (const wrong of [["--clips", "many"], ["--noise", "x"], ["--seed", "1.5"], ["--no-such-option"]]) {
    const { code, stdout } = await affuse(["synth", path.join(root, "wrong"), ...wrong]);
    assert.is(code, 2, wrong.join(" "));
    assert.is(stdout, "");
  }
  const { code, stdout, stderr } = await affuse(["synth", root, "--clips", "1", "--json"]);
  assert.is(code, 1);
  assert.is(stdout, "");
  assert.is(JSON.parse(stderr).error.code, "ERR_AFFUSE_EXISTS");
  assert.not.ok(existsSync(path.join(root, "wrong")));
});

test.run();
