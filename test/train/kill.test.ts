// kill -9 at random moments of a real training, in a process of its own, then resuming: the final weights are
// bit-identical to those of an uninterrupted run.
import { fork } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { packageRoot } from "#root";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { Random } from "../../lib/data/random.ts";
import { makeCorpus, writeCorpus } from "./corpus.ts";

const folder = mkdtempSync(path.join(tmpdir(), "affuse-kill-"));
process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
const data = path.join(folder, "data");
writeCorpus(data, makeCorpus(70));

/**
 * Runs the child; kills it `delay` ms after its `steps`-th step.
 * @returns steps done, and whether it was killed
 */
function train(
  out: string,
  steps = Number.POSITIVE_INFINITY,
  delay = 0,
): Promise<{ steps: number; killed: boolean }> {
  return new Promise((resolve, reject) => {
    const child = fork(path.join(packageRoot, "test/train/child.ts"), [data, out], {
      execArgv: ["--import", "tsx"],
      cwd: packageRoot,
      stdio: ["ignore", "ignore", "pipe", "ipc"],
    });
    let done = 0;
    let stderr = "";
    child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      stderr += text;
    });
    child.on("message", () => {
      if (++done === steps) setTimeout(() => child.kill("SIGKILL"), delay);
    });
    child.on("error", reject);
    child.on("close", (code, signal) => {
      if (signal === "SIGKILL") resolve({ steps: done, killed: true });
      else if (code === 0) resolve({ steps: done, killed: false });
      else reject(new Error(`child ended with ${code}: ${stderr}`));
    });
  });
}

const weights = (out: string, fold: number, file: string) =>
  readFileSync(path.join(out, "concat", `fold${fold}`, file));

test("kill -9 at random moments, then resume: the same bits", async () => {
  const whole = path.join(folder, "whole");
  const { steps: total } = await train(whole);
  assert.is(total, 2 * 6 * 4); // 2 folds, 6 epochs, 4 batches: nothing is done twice
  // other moments every time; the outcome may not depend on them
  const random = new Random(Date.now(), "kills");
  const out = path.join(folder, "killed");
  let kills = 0;
  let repeated = -total;
  for (let attempt = 0; attempt < 12; attempt++) {
    // From the seventh attempt on it may run to its end.
    const { steps, killed } = await train(
      out,
      attempt < 6 ? 1 + random.integer(12) : Number.POSITIVE_INFINITY,
      random.integer(25),
    );
    repeated += steps;
    if (killed) kills++;
    else break;
  }
  assert.ok(kills >= 2, `killed ${kills} times`);
  assert.ok(repeated >= 0, "the steps after the last checkpoint were done again, and none was left out");
  for (const fold of [0, 1]) {
    for (const file of ["last.safetensors", "best.safetensors", "history.jsonl", "predictions.json"]) {
      assert.ok(
        weights(out, fold, file).equals(weights(whole, fold, file)),
        `fold ${fold}, ${file}, after ${kills} kills`,
      );
    }
    const left = readdirSync(path.join(out, "concat", `fold${fold}`));
    assert.equal(left.sort(), [
      "best.safetensors",
      "history.jsonl",
      "last.safetensors",
      "predictions.csv",
      "predictions.json",
    ]);
  }
  assert.ok(
    readFileSync(path.join(out, "results.json")).equals(readFileSync(path.join(whole, "results.json"))),
  );
});

test.run();
