/** The demonstration as a user runs it, against what it promises. Alone on the machine: it also measures time. */
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { type CliResult, affuse } from "../helpers/cli.ts";

interface Score {
  wa: number;
  ua: number;
  f1Weighted: number;
  mse: number;
  merMetric: number;
  intervals: Record<string, { low: number; high: number }>;
}
interface Summary {
  ceiling: { audio: number; visual: number; fused: number };
  results: Record<string, Score>;
  attention: Record<string, { ratio: number }>;
  seconds: Record<string, number>;
  report: string;
}

const demo = suite("affuse demo");
const folder = mkdtempSync(path.join(os.tmpdir(), "affuse-demo-"));
const seed = process.env.AFFUSE_DEMO_SEED ?? "1";
let run: CliResult;
let summary: Summary;
const score = (name: string): Score => summary.results[name] as Score;

demo.before(async () => {
  const file = path.join(folder, "results.json");
  run = await affuse(["demo", "--seed", seed, "--out", path.join(folder, "demo"), "--json", file], { timeout: 900_000 });
  if (run.code === 0) summary = JSON.parse(readFileSync(file, "utf8")) as Summary;
});
demo.after(() => rmSync(folder, { recursive: true, force: true }));

demo("ends well, with a table on standard output and a report", () => {
  assert.is(run.code, 0, run.stderr);
  for (const name of ["audio", "visual", "concat", "weighted", "hierarchical", "gfbp", "ensemble"]) {
    assert.match(run.stdout, new RegExp(`^${name} +0\\.\\d+`, "m"));
    for (const key of ["wa", "ua", "f1Weighted", "mse", "merMetric"] as const) assert.ok(Number.isFinite(score(name)[key]));
  }
  assert.ok(existsSync(summary.report));
});

demo("each modality alone reaches its ceiling, and does not pass it beyond chance", () => {
  for (const name of ["audio", "visual"] as const) {
    const { wa, intervals } = score(name);
    assert.ok(wa >= summary.ceiling[name] - 0.07, `${name}: ${wa}, ceiling ${summary.ceiling[name]}`);
    assert.ok((intervals.wa?.low ?? 1) <= summary.ceiling[name], `${name}: ${wa} lies above its ceiling`);
  }
});

demo("every fusion structure beats the better single modality by 15 points of WA", () => {
  const single = Math.max(score("audio").wa, score("visual").wa);
  for (const name of ["concat", "weighted", "hierarchical", "gfbp"]) {
    assert.ok(score(name).wa >= single + 0.15, `${name}: ${score(name).wa}, best single modality ${single}`);
  }
});

demo("the ensemble is at least as good as the best structure, within its interval", () => {
  const best = Math.max(...["concat", "weighted", "hierarchical", "gfbp"].map((name) => score(name).wa));
  assert.ok((score("ensemble").intervals.wa?.high ?? 0) >= best, `ensemble ${score("ensemble").wa}, best ${best}`);
});

demo("attention weighs expressive frames at least 3 times as much as neutral ones", () => {
  for (const [stream, { ratio }] of Object.entries(summary.attention)) assert.ok(ratio >= 3, `${stream}: ${ratio}`);
  assert.is(Object.keys(summary.attention).length, 2);
});

demo("takes less than three minutes when built", () => {
  assert.ok((summary.seconds.total ?? Infinity) < 180, `${summary.seconds.total} s`);
});

demo("run again, it finds everything done, says so, and says the same", async () => {
  const out = path.join(folder, "demo");
  const file = path.join(folder, "again.json");
  const again = await affuse(["demo", "--seed", seed, "--out", out, "--json", file], { timeout: 300_000 });
  assert.is(again.code, 0, again.stderr);
  assert.equal((JSON.parse(readFileSync(file, "utf8")) as Summary).results, summary.results);
  assert.match(run.stderr, /Making the corpus …\nRunning the ONNX encoders …\nTraining six systems …\n {2}audio\n/);
  const reused = [
    ["Corpus", "corpus"],
    ["Features", "features"],
    ["Training", "run"],
  ].map(([what, where]) => `${what}: finished before, taken from ${path.join(out, where as string)}\n`);
  assert.ok(again.stderr.includes(`${reused.join("")}Predicting the test clips …\n`), again.stderr);
  assert.not.match(again.stderr, /Making|Running|Training six/);
});

demo("refuses a folder with a demonstration of other settings, and leaves it alone", async () => {
  const before = readFileSync(path.join(folder, "demo", "corpus", "corpus.json"), "utf8");
  const other = await affuse(["demo", "--seed", "99", "--out", path.join(folder, "demo")]);
  assert.is(other.code, 1);
  assert.match(other.stderr, /^ERR_AFFUSE_EXISTS: .*seed/m);
  assert.is(readFileSync(path.join(folder, "demo", "corpus", "corpus.json"), "utf8"), before);
});

demo("refuses numbers that are none", async () => {
  for (const flags of [["--seed", "x"], ["--epochs", "1.5"], ["--noise", "loud"], ["--folds", "-1"]]) {
    const wrong = await affuse(["demo", "--out", path.join(folder, "none"), ...flags]);
    assert.is(wrong.code, 2, flags.join(" "));
    assert.not.ok(existsSync(path.join(folder, "none")));
  }
});

demo.run();
