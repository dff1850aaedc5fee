// `affuse train`, `eval` and `ensemble` as a user runs them: streams, exit codes, Ctrl-C, full and forbidden
// folders.
import { execFileSync, spawn } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { packageRoot } from "#root";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { affuse } from "../helpers/cli.ts";
import { makeCorpus, writeCorpus } from "./corpus.ts";

const folder = mkdtempSync(path.join(tmpdir(), "affuse-cli-train-"));
process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
const data = path.join(folder, "data");
writeCorpus(data, makeCorpus(60), makeCorpus(30, 1, "test1"));
const yaml = path.join(folder, "experiment.yaml");
writeFileSync(
  yaml,
  "data: data\nclasses: [neutral, angry, happy]\nstructures: [concat, audio]\nmodel: {mlp: {widths: [12, 8]}, attention: {dim: 6}}\ntrain: {epochs: 4, batchSize: 8, warmup: 1, folds: 2, seed: 5}\n",
);
const run = path.join(folder, "run");
const noStack = (text: string) => assert.not.match(text, /^\s+at .+\(.*:\d+:\d+\)/m);

test("train from YAML prints a table on stdout, notes on stderr", async () => {
  const { code, stdout, stderr } = await affuse(["train", yaml, "--out", run]);
  assert.is(code, 0, stderr);
  assert.match(stdout, /WA .*UA .*F1 weighted/);
  assert.match(stdout, /^concat /m);
  assert.match(stdout, /^ensemble /m);
  assert.match(stderr, /lack the stream/);
});

test("a misspelled column is not passed over in silence", async () => {
  const misspelled = path.join(folder, "misspelled");
  writeCorpus(misspelled, makeCorpus(24));
  const labels = path.join(misspelled, "train-label.csv");
  writeFileSync(labels, readFileSync(labels, "utf8").replace("valence", "val"));
  const config = path.join(folder, "misspelled.yaml");
  writeFileSync(
    config,
    readFileSync(yaml, "utf8").replace("data: data", "data: misspelled").replace("epochs: 4", "epochs: 2"),
  );
  const { code, stderr } = await affuse(["train", config, "--out", path.join(folder, "misspelled-run")]);
  assert.is(code, 0, stderr);
  assert.match(stderr, /no clip has a valence \(column valence\)/);
});

test("--json prints exactly one document, the same as results.json", async () => {
  const { code, stdout } = await affuse(["train", run, "--resume", "--json"]);
  assert.is(code, 0);
  const { run: _run, ...rest } = JSON.parse(stdout);
  assert.equal(rest, JSON.parse(readFileSync(path.join(run, "results.json"), "utf8")));
});

test("eval on the held-out folds and on another split, with report; ensemble with submission", async () => {
  const held = await affuse(["eval", run]);
  assert.is(held.code, 0, held.stderr);
  assert.match(held.stdout, /held-out folds/);
  const other = await affuse(["eval", run, "--on", "test1", "--against", run, "--json"]);
  assert.is(other.code, 0, other.stderr);
  const value = JSON.parse(other.stdout);
  assert.is(value.clips, 30);
  assert.is(value.pairedTest.p, 1);
  assert.ok(value.systems.ensemble.intervals.wa.low <= value.systems.ensemble.emotion.wa);
  assert.match(readFileSync(value.report, "utf8"), /<!doctype html>/i);
  for (const name of ["eval-heldout.json", "eval-test1.json", "predictions-test1.csv", "report-heldout.html"])
    assert.ok(readdirSync(run).includes(name), name);
  const submission = path.join(folder, "submission.csv");
  for (const method of ["mean", "fitted", "entropy", "logits"]) {
    const { code, stdout, stderr } = await affuse([
      "ensemble",
      run,
      "--on",
      "test1",
      "--method",
      method,
      "--submission",
      submission,
    ]);
    assert.is(code, 0, stderr);
    assert.match(stdout, new RegExp(`method ${method}`));
    const lines = readFileSync(submission, "utf8").trim().split("\n");
    assert.is(lines[0], "name,discrete,valence");
    assert.is(lines.length, 31);
  }
});

test("clips with names alone are predicted, and a bad label file of another split stops nobody", async () => {
  const named = path.join(folder, "named");
  writeCorpus(named, makeCorpus(24), makeCorpus(8, 1, "test1"));
  const rows = readFileSync(path.join(named, "test1-label.csv"), "utf8").trim().split("\n");
  const names = rows.map((row) => row.split(",")[0] as string);
  writeFileSync(path.join(named, "test1-label.csv"), `${names.join("\n")}\n`);
  writeFileSync(path.join(named, "test2-label.csv"), "name,discrete\nz,none of these\n");
  const submission = path.join(named, "submission.csv");
  const predicted = await affuse([
    "ensemble",
    run,
    "--data",
    named,
    "--on",
    "test1",
    "--submission",
    submission,
  ]);
  assert.is(predicted.code, 0, predicted.stderr);
  assert.match(
    predicted.stderr,
    /the labels of test2 are left out: .*test2-label\.csv, line 2: unknown class/,
  );
  assert.match(predicted.stderr, /no clip has an emotion or a valence/);
  assert.is(readFileSync(submission, "utf8").trim().split("\n").length, names.length);
  const scored = await affuse(["eval", run, "--data", named, "--on", "test1"]);
  assert.is(scored.code, 0, scored.stderr);
  assert.match(scored.stderr, /nothing was scored/);
  const held = await affuse(["eval", run, "--data", named, "--no-report"]);
  assert.is(held.code, 0, held.stderr);
  assert.match(held.stderr, /the labels of test2 are left out/);
  const config = path.join(folder, "named.yaml");
  writeFileSync(
    config,
    readFileSync(yaml, "utf8").replace("data: data", "data: named").replace("epochs: 4", "epochs: 1"),
  );
  const trained = await affuse(["train", config, "--out", path.join(folder, "named-run")]);
  assert.is(trained.code, 0, trained.stderr);
  assert.match(trained.stderr, /the labels of test2 are left out/);
  const none = path.join(folder, "named-none");
  const unlabelled = await affuse(["train", config, "--split", "test1", "--out", none]);
  assert.is(unlabelled.code, 1);
  assert.match(unlabelled.stderr, /^ERR_AFFUSE_LABEL: expected labels to learn from/m);
  assert.not.ok(existsSync(none));
  assert.match(
    (await affuse(["train", config, "--split", "test2", "--out", none])).stderr,
    /^ERR_AFFUSE_LABEL: .*unknown class/m,
  );
});

const wrong: [string, string[], number, RegExp][] = [
  ["unknown option", ["train", data, "--epoch", "3"], 2, /unknown option/],
  [
    "unknown structure",
    ["train", data, "--structure", "concta", "--out", path.join(folder, "w1")],
    1,
    /ERR_AFFUSE_CONFIG.*structures\.0/,
  ],
  ["no data", ["train", path.join(folder, "nothing")], 1, /ERR_AFFUSE_NOT_FOUND/],
  ["not a number", ["train", data, "--epochs", "many"], 2, /whole number/],
  [
    "unknown key",
    ["train", data, "--set", "train.epocs=3", "--out", path.join(folder, "w2")],
    1,
    /ERR_AFFUSE_CONFIG.*train\.epocs/,
  ],
  [
    "polluting key",
    ["train", data, "--set", "__proto__.x=3", "--out", path.join(folder, "w3")],
    1,
    /ERR_AFFUSE_CONFIG/,
  ],
  ["a run that exists", ["train", yaml, "--out", run], 1, /ERR_AFFUSE_EXISTS/],
  [
    "resume with other settings",
    ["train", yaml, "--out", run, "--resume", "--lr", "0.5"],
    1,
    /ERR_AFFUSE_RESUME.*train\.lr/,
  ],
  ["unknown split", ["eval", run, "--on", "test9"], 1, /ERR_AFFUSE_NOT_FOUND/],
  ["not a run", ["eval", data], 1, /ERR_AFFUSE_NOT_FOUND/],
  ["unknown method", ["ensemble", run, "--method", "vote"], 2, /Allowed choices/],
  ["a file as run folder", ["train", yaml, "--out", path.join(yaml, "run")], 1, /ERR_AFFUSE_WRITE/],
  [
    "too many folds",
    ["train", yaml, "--folds", "99", "--out", path.join(folder, "w4")],
    1,
    /ERR_AFFUSE_FOLDS/,
  ],
];
for (const [name, args, want, pattern] of wrong) {
  test(`wrong use: ${name}`, async () => {
    const { code, stdout, stderr } = await affuse(args);
    assert.is(code, want, stderr);
    assert.match(stderr, pattern);
    assert.is(stdout, "");
    noStack(stderr);
  });
}

test("a device that cannot compute leaves no run behind", async () => {
  const out = path.join(folder, "w5");
  const { code, stderr } = await affuse(["train", yaml, "--device", "tpu", "--out", out]);
  assert.is(code, 1);
  assert.match(stderr, /ERR_AFFUSE_DEVICE/);
  assert.not.ok(existsSync(out));
});

test("--json errors are one JSON object on stderr, nothing on stdout", async () => {
  const { code, stdout, stderr } = await affuse(["eval", path.join(folder, "none"), "--json"]);
  assert.is(code, 1);
  assert.is(stdout, "");
  assert.is(JSON.parse(stderr).error.code, "ERR_AFFUSE_NOT_FOUND");
});

test("Ctrl-C saves, exits with 130, and --resume ends at the same bits", async () => {
  const short = [
    "train",
    yaml,
    "--set",
    "train.epochs=30",
    "--set",
    "train.patience=null",
    "--structure",
    "concat",
  ];
  const whole = path.join(folder, "whole");
  assert.is((await affuse([...short, "--out", whole])).code, 0);
  for (const signal of ["SIGINT", "SIGHUP"] as const) {
    const again = path.join(folder, `again-${signal}`);
    const second = spawn(
      process.execPath,
      [path.join(packageRoot, "bin/affuse.mjs"), ...short, "--out", again],
      { stdio: ["ignore", "ignore", "pipe"] },
    );
    if (signal === "SIGHUP") second.stderr.destroy(); // as a terminal that was closed
    let stderr = "";
    second.stderr.setEncoding("utf8").on("data", (text: string) => {
      stderr += text;
    });
    const done = new Promise<number | null>((resolve) => second.on("close", resolve));
    const at = path.join(again, "concat", "fold0", "history.jsonl");
    for (let seen = 0; seen < 3 && second.exitCode === null; ) {
      await new Promise((resolve) => setTimeout(resolve, 10));
      try {
        seen = readFileSync(at, "utf8").split("\n").length;
      } catch {
        seen = 0;
      }
    }
    second.kill(signal);
    assert.is(await done, 130, stderr);
    if (signal === "SIGINT") assert.match(stderr, /ERR_AFFUSE_INTERRUPTED.*--resume/);
    assert.is((await affuse([...short, "--out", again, "--resume"])).code, 0);
    for (const fold of ["fold0", "fold1"]) {
      for (const file of ["last.safetensors", "best.safetensors"]) {
        assert.ok(
          readFileSync(path.join(again, "concat", fold, file)).equals(
            readFileSync(path.join(whole, "concat", fold, file)),
          ),
          `${fold}/${file}`,
        );
      }
    }
  }
});

test("a full disk: coded error, and the last good checkpoint stays usable", async () => {
  const disk = path.join(folder, "disk");
  mkdirSync(disk);
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], { stdio: "pipe" });
  } catch {
    return; // no right to mount here; test/data/dataset.test.ts covers the write itself
  }
  try {
    const out = path.join(disk, "run");
    const full = await affuse(["train", yaml, "--out", out, "--set", "model.mlp.widths=[200,100]"]);
    assert.is(full.code, 1, full.stdout);
    assert.match(full.stderr, /ERR_AFFUSE_WRITE.*disk is full/);
    noStack(full.stderr);
  } finally {
    execFileSync("umount", [disk]);
  }
});

test("help of every command has examples", async () => {
  for (const command of ["train", "eval", "ensemble"]) {
    const { code, stdout } = await affuse([command, "--help"]);
    assert.is(code, 0);
    assert.match(stdout, /Examples:/);
  }
});

test.run();
