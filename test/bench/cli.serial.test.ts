// `affuse bench` as a user runs it: lists, errors, JSON, comparison with stored results.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { affuse } from "../helpers/cli.ts";

const folder = mkdtempSync(join(tmpdir(), "affuse-bench-cli-"));
const file = (name: string) => join(folder, name);
const small = ["--filter", "^linear/M=(64|257),", "--quick", "--threads", "1"];
const test = suite("affuse bench");
test.after(() => rmSync(folder, { recursive: true, force: true }));

test("--list names cases and tags", async () => {
  const { code, stdout } = await affuse(["bench", "--list", "--filter", "quick", "--json"]);
  assert.is(code, 0);
  const cases = JSON.parse(stdout) as { name: string; tags: string[] }[];
  assert.ok(cases.length > 5 && cases.every(({ tags }) => tags.includes("quick")));
});

test("bad input is a coded message, before anything is measured", async () => {
  for (const [args, code, exit] of [
    [["--filter", "no such case"], "ERR_AFFUSE_BENCH_FILTER", 1],
    [["--filter", "("], "ERR_AFFUSE_BENCH_FILTER", 1],
    [["--peers", "numpy"], "ERR_AFFUSE_BENCH_PEER", 1],
    [["--device", "cuda"], "ERR_AFFUSE_DEVICE", 1],
    [["--compare", file("absent.json")], "ERR_AFFUSE_BENCH_COMPARE", 1],
    [["--json", folder], "ERR_AFFUSE_WRITE", 1],
    [["--html", ""], "ERR_AFFUSE_WRITE", 1],
    [["--threads", "0"], "whole number", 2],
    [["--threads", "two"], "whole number", 2],
    [["--threshold", "-1"], "percentage", 2],
    [["--patience", "soon"], "seconds", 2],
    [["--patience", "-1"], "seconds", 2],
  ] as const) {
    const result = await affuse(["bench", ...args]);
    assert.is(result.code, exit, `${args.join(" ")}: ${result.stderr}`);
    assert.ok(result.stderr.includes(code), `${args.join(" ")}: ${result.stderr}`);
    assert.not.ok(result.stderr.includes("measuring"));
  }
});

test("JSON goes to the file, a missing peer does not stop the rest", async () => {
  const args = [
    ...small,
    "--peers",
    "torch",
    "--python",
    "/nonexistent/python",
    "--json",
    file("then.json"),
    "--html",
    file("x.html"),
  ];
  const { code, stderr, stdout } = await affuse(["bench", ...args]);
  assert.is(code, 0, stderr);
  assert.ok(stderr.includes("ERR_AFFUSE_BENCH_TORCH"));
  assert.ok(stdout.includes("linear/M=257,N=509,K=263"));
  const { benchmarks } = JSON.parse(readFileSync(file("then.json"), "utf8")) as { benchmarks: object[] };
  assert.is(benchmarks.length, 2);
  assert.ok(readFileSync(file("x.html"), "utf8").startsWith("<!doctype html>"));
});

test("a planted slowdown fails, the same code again does not", async () => {
  const stored = JSON.parse(readFileSync(file("then.json"), "utf8")) as {
    benchmarks: { case: string; median: number; p20: number; p80: number }[];
  };
  // As if the code had once been twenty times as quick in one of the two cases.
  for (const entry of stored.benchmarks) {
    if (entry.case.includes("M=64,")) for (const key of ["median", "p20", "p80"] as const) entry[key] /= 20;
  }
  writeFileSync(file("planted.json"), JSON.stringify(stored));
  const planted = await affuse(["bench", ...small, "--compare", file("planted.json"), "--threshold", "100"]);
  assert.is(planted.code, 1);
  assert.match(planted.stderr, /ERR_AFFUSE_BENCH_SLOWER: 1 of 2/);
  assert.match(planted.stdout, /M=64,.*SLOWER/);
  assert.not.match(planted.stdout, /M=257,.*SLOWER/);
  // With nothing in common nothing would be found slower, whatever it is.
  // What is in one file only, or of another kind, is said; the file's words are no orders to the terminal.
  const [one] = stored.benchmarks;
  const gone = { ...one, name: "linear/M=64,gone/affuse/threads:1", case: "linear/M=64,gone" };
  const context = { cpu: "\u001b[31mred", level: "avx9", commit: null, quick: false };
  writeFileSync(file("hostile.json"), JSON.stringify({ context, benchmarks: [one, gone] }));
  const hostile = await affuse(["bench", ...small, "--compare", file("hostile.json"), "--threshold", "1000"]);
  assert.match(hostile.stderr, /another machine or level \(\?\[31mred, avx9\)/);
  assert.match(hostile.stderr, /not of --quick/);
  assert.match(hostile.stderr, /1 of the stored timings have none now: linear\/M=64,gone/);
  assert.not.ok(hostile.stderr.includes("\u001b"));
  const other = await affuse([
    "bench",
    ...small.slice(0, -1),
    "1000",
    "--compare",
    file("then.json"),
  ]);
  assert.is(other.code, 1);
  assert.match(other.stderr, /ERR_AFFUSE_BENCH_COMPARE: .*--threads .*\(1\), got 1000/);
  for (const entry of stored.benchmarks) Object.assign(entry, { name: `was ${entry.case}` });
  writeFileSync(file("renamed.json"), JSON.stringify(stored));
  const renamed = await affuse(["bench", ...small, "--compare", file("renamed.json")]);
  assert.is(renamed.code, 1);
  assert.match(renamed.stderr, /ERR_AFFUSE_BENCH_COMPARE: .*got none: linear\S+, there was linear/);
  for (const entry of stored.benchmarks) entry.case = "was";
  writeFileSync(file("foreign.json"), JSON.stringify(stored));
  const foreign = await affuse(["bench", "--quick", "--compare", file("foreign.json")]);
  assert.is(foreign.code, 1);
  assert.match(foreign.stderr, /ERR_AFFUSE_BENCH_COMPARE: .*got was\./);
  // Other work on the machine may come and go; a hundred percent in all of three measurements is no noise.
  for (let again = 0; again < 2; again++) {
    const { code, stdout, stderr } = await affuse([
      "bench",
      ...small,
      "--compare",
      file("then.json"),
      "--threshold",
      "100",
    ]);
    assert.is(code, 0, `${stdout}\n${stderr}`);
  }
});

test.run();
