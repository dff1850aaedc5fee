/** `affuse profile` as a user runs it. */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { affuse } from "../helpers/cli.ts";
import { makeCorpus, writeCorpus } from "../train/corpus.ts";

const folder = mkdtempSync(path.join(tmpdir(), "profile-cli-"));
test.after(() => rmSync(folder, { recursive: true, force: true }));

const TINY = ["--batch", "3", "--frames", "20", "--streams", "2", "--dim", "16", "--attention", "8"];
const QUICK = ["--steps", "2", "--warmup", "1"];

interface Row {
  name: string;
  share: number;
  roof: number | null;
  limit: string | null;
  calls: number;
}

test("--json, and a trace that is one", async () => {
  const file = path.join(folder, "trace.json");
  const args = [
    "profile",
    ...TINY,
    ...QUICK,
    "--threads",
    "2",
    "--structure",
    "weighted",
    "--trace",
    file,
    "--json",
  ];
  const { code, stdout, stderr } = await affuse(args);
  assert.is(code, 0, stderr);
  const result = JSON.parse(stdout) as { runs: number; threads: number; rows: Row[]; roofs: { fma: number } };
  assert.is(result.runs, 2);
  assert.is(result.threads, 2);
  assert.ok(result.roofs.fma > 0);
  assert.ok(Math.abs(result.rows.reduce((sum, { share }) => sum + share, 0) - 1) < 1e-6);
  const afg = result.rows.find(({ name }) => name === "afg") as Row;
  assert.ok(afg.calls === 2 && (afg.roof as number) > 0 && typeof afg.limit === "string");
  const trace = JSON.parse(readFileSync(file, "utf8")) as {
    traceEvents: { ph: string; name: string; ts: number; dur: number; pid: number; tid: number }[];
  };
  for (const event of trace.traceEvents) {
    assert.ok(Number.isInteger(event.pid) && Number.isInteger(event.tid) && event.name !== "");
    assert.ok(event.ph === "M" || (event.ph === "X" && event.ts >= 0 && event.dur >= 0));
  }
  assert.is(trace.traceEvents.filter(({ name, ph }) => name === "run" && ph === "X").length, 2);
  assert.match(stderr, /perfetto/);
});

test("tables: inference, an operator, rows per shape", async () => {
  const infer = await affuse(["profile", ...TINY, ...QUICK, "--infer", "--structure", "gfbp", "--full"]);
  assert.is(infer.code, 0, infer.stderr);
  assert.match(infer.stdout, /^inference, gfbp, batch 3/);
  assert.match(infer.stdout, /\nfbp +1 /);
  assert.not.match(infer.stdout, /backward/);
  const sizes = ["--size", "B=8", "A=8", "m=16", "n=24", "P=20", "--attr", "k=5"];
  const op = await affuse(["profile", "op", "fbp", ...sizes, ...QUICK, "--detail"]);
  assert.is(op.code, 0, op.stderr);
  assert.match(op.stdout, /fbp a\[8,16\] v\[8,24\] U\[20,16\] V\[20,24\]/);
  const afg = await affuse([
    "profile",
    "op",
    "afg",
    "--size",
    "B=2",
    "T=9",
    "--with",
    "lengths",
    "u",
    ...QUICK,
  ]);
  assert.is(afg.code, 0, afg.stderr);
});

test("on a data set, whose name a trace holds without control characters", async () => {
  const data = path.join(folder, 'corpus "\\\u007f\u0085 \u2028é');
  const file = path.join(folder, "named.json");
  writeCorpus(data, makeCorpus(6));
  const { code, stdout, stderr } = await affuse([
    "profile",
    data,
    "--batch",
    "3",
    "--set",
    "modalities.voice=audio",
    "--set",
    "modalities.face=visual",
    "--trace",
    file,
    ...QUICK,
  ]);
  assert.is(code, 0, stderr);
  assert.match(stdout, /^training step, concat, batches: 2 of up to 3 clips/);
  const text = readFileSync(file, "utf8");
  assert.ok(!Array.from(text).some((character) => character < " " || character === "\u007f"));
  const { otherData } = JSON.parse(text) as { otherData: { subject: string } };
  assert.ok(otherData.subject.endsWith(` from ${data}`));
});

test("bf16 operands", async () => {
  const { code, stdout, stderr } = await affuse(["profile", ...TINY, ...QUICK, "--precision", "bf16"]);
  assert.is(code, 0, stderr);
  assert.match(stdout, /^training step, concat, .*, bf16 operands/);
});

test("what is refused, and with which code", async () => {
  const cases: [string[], number, RegExp][] = [
    [["profile", path.join(folder, "nothing")], 1, /ERR_AFFUSE_NOT_FOUND/],
    [["profile", "op"], 2, /ERR_AFFUSE_USAGE/],
    [["profile", "op", "nope"], 1, /ERR_AFFUSE_UNKNOWN_OPERATOR/],
    [["profile", "op", "fbp", "--size", "B"], 2, /ERR_AFFUSE_USAGE/],
    [["profile", "op", "fbp", "--size", "Q=3"], 1, /ERR_AFFUSE_NAME/],
    [["profile", "op", "afg", "--with", "nope"], 1, /ERR_AFFUSE_NAME/],
    [["profile", "op", "fbp", "--attr", "nope=3"], 1, /ERR_AFFUSE_ATTRIBUTE/],
    [["profile", "op", "fbp", "--size", "A=9999999999", "B=9999999999"], 1, /ERR_AFFUSE_MEMORY/],
    [
      ["profile", "op", "linear", "--size", "O=9999999999", "D=999999", "N=1"],
      1,
      /ERR_AFFUSE_SHAPE.*1e\+?15/,
    ],
    [["profile", "--batch", "9999999"], 1, /ERR_AFFUSE_MEMORY/],
    [["profile", "op", "scale", "--trace", folder], 1, /ERR_AFFUSE_WRITE/],
    [["profile", "op", "linear", "--size", "B=2"], 1, /ERR_AFFUSE_NAME/],
    [["profile", "--size", "B=3"], 2, /ERR_AFFUSE_USAGE/],
    [["profile", "a", "b"], 2, /ERR_AFFUSE_USAGE/],
    [["profile", "--precision", "fp8"], 2, /f32.*bf16/],
    [["profile", "op", "linear", "--precision", "bf16"], 2, /ERR_AFFUSE_USAGE/],
    [["profile", "--infer", "op", "fbp"], 2, /ERR_AFFUSE_USAGE: expected --infer with a model/],
    [["profile", "op", "fbp", "--batch", "2"], 2, /ERR_AFFUSE_USAGE: expected --batch with a model/],
    [
      ["profile", "--streams", "100000", "--dim", "4096", "--batch", "512"],
      1,
      /ERR_AFFUSE_MEMORY: .*machine's [\d.]+ GB, got \d{6}\.\d GB/,
    ],
    [["profile", "--structure", "nope"], 2, /expected one of/],
    [["profile", "--steps", "0"], 2, /whole number/],
    [["profile", ...TINY, "--set", "model.nope=1"], 1, /ERR_AFFUSE_CONFIG/],
    [["profile", ...TINY, "--set", "train.lr=1"], 1, /ERR_AFFUSE_CONFIG/],
    [["profile", ...TINY, "--threads", "99999"], 1, /ERR_AFFUSE_THREADS/],
  ];
  await Promise.all(
    cases.map(async ([args, expected, pattern]) => {
      const { code, stderr, stdout } = await affuse(args);
      assert.is(code, expected, `${args.join(" ")}: ${stderr}`);
      assert.match(stderr, pattern);
      assert.is(stdout, "");
    }),
  );
});

test("--help has examples", async () => {
  const { code, stdout } = await affuse(["profile", "--help"]);
  assert.is(code, 0);
  assert.match(stdout, /Examples:\n {2}affuse profile/);
});

test.run();
