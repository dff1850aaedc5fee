// The parts of the bench: selection, statistics, comparison, checking, a small run, the page.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { sampler } from "../../bench/adapter.ts";
import { ALL_CASES } from "../../bench/cases/index.ts";
import { Calm } from "../../bench/calm.ts";
import { checkCase, difference } from "../../bench/check.ts";
import { compareRuns, leastChange, missing, readStored, type Stored } from "../../bench/compare.ts";
import { type BenchReport, chooser, runBench, selectCases } from "../../bench/index.ts";
import { byCalls, byProgram, planOf } from "../../bench/ours.ts";
import { benchPage, mergeReports } from "../../bench/page.ts";
import { loadOrt } from "../../bench/peers/ort.ts";
import { TorchPeer } from "../../bench/peers/torch.ts";
import { boundBy } from "../../bench/roofs.ts";
import { quantile, summary } from "../../bench/stats.ts";
import { describeChanges, duration, printable } from "../../bench/table.ts";
import { evaluateTargets, verdict } from "../../bench/targets.ts";
import { describeTensors, makeSets } from "../../bench/tensors.ts";
import type { Entry, OperatorCase } from "../../bench/types.ts";
import type { AffuseError } from "../../lib/errors.ts";
import type { NativeAddon, RoofKind } from "../../lib/native/addon.ts";
import { loadAddon } from "../../lib/native/load.ts";
import { codeOf } from "../native/helpers.ts";

const addon = loadAddon();
const test = suite("bench");
const silent = () => {};
const folder = mkdtempSync(join(tmpdir(), "affuse-bench-test-"));
test.after(() => rmSync(folder, { recursive: true, force: true }));
const operatorCase = (name: string) => {
  const found = ALL_CASES.find((candidate) => candidate.name === name);
  assert.ok(found, `no case ${name}`);
  return found as OperatorCase;
};

test("case names are unique, every operator with mathematics of its own is there, the sweep has a hundred shapes", () => {
  const names = ALL_CASES.map(({ name }) => name);
  assert.is(new Set(names).size, names.length);
  assert.is(ALL_CASES.filter(({ tags }) => tags.includes("sweep")).length, 100);
  const ops = new Set(ALL_CASES.flatMap((one) => (one.kind === "operator" ? [one.op] : [])));
  for (const op of [
    "fbp",
    "afg",
    "linear",
    "layer_norm",
    "ratio_attention",
    "softmax",
    "dropout",
    "adamw",
    "conv2d",
    "lrn",
  ]) {
    assert.ok(ops.has(op), op);
  }
});

test("cases are selected by name and tag; nothing chosen and bad patterns are refused", async () => {
  assert.ok(selectCases(undefined, false).every(({ tags }) => !tags.includes("sweep")));
  assert.ok(selectCases(undefined, true).every(({ tags }) => tags.includes("quick")));
  assert.is(selectCases("^sweep$", false).length, 100);
  assert.equal(
    selectCases("^linear/M=64,", false).map(({ name }) => name),
    ["linear/M=64,N=1024,K=1024"],
  );
  assert.is(selectCases(undefined, false, new Set(["linear/M=64,N=1024,K=1024"])).length, 1);
  assert.is(await codeOf(() => selectCases("no such case", false)), "ERR_AFFUSE_BENCH_FILTER");
  assert.is(await codeOf(() => selectCases("(", false)), "ERR_AFFUSE_BENCH_FILTER");
});

test("quantiles", () => {
  assert.is(quantile([3, 1, 2], 0.5), 2);
  assert.is(quantile([1, 2], 0.5), 1.5);
  assert.equal(summary([5, 1, 2, 3, 4, 6]), { median: 3.5, p20: 2, p80: 5, samples: 6 });
});

test("the sampler counts calls, reaches its time and passes errors on", async () => {
  let calls = 0;
  const sample = sampler(() => {
    calls++;
    const end = performance.now() + 0.2;
    while (performance.now() < end);
  });
  await sample(0.004);
  const { seconds, count } = await sample(0.004);
  assert.ok(count >= 5 && calls > count, `${count} of ${calls}`);
  assert.ok(seconds > 0.00019, String(seconds));
  const later = sampler(() => new Promise((resolve) => setTimeout(resolve, 30)), 3, true); // three in a call
  const third = (await later(0.002)).seconds;
  assert.ok(third > 0.0095, String(third)); // timers may fire a millisecond early
  const failing = sampler(() => Promise.reject(new Error("broken")), 1, true);
  assert.is(
    await failing(0.001).then(
      () => "",
      (error: Error) => error.message,
    ),
    "broken",
  );
});

test("what bounds a case", () => {
  const table = { level: "x", threads: 1, roofs: { "fma.f32": 100e9, "read.dram": 10e9, "read.l3": 20e9 } };
  assert.is(boundBy(table, 1e9, [{ bytes: 1e6, kind: "read.dram" }]).kind, "fma.f32");
  const memory = boundBy(table, 1e6, [
    { bytes: 1e9, kind: "read.dram" },
    { bytes: 1e9, kind: "read.l3" },
  ]);
  assert.is(memory.kind, "read.dram");
  assert.ok(Math.abs(memory.least - 0.15) < 1e-12);
  assert.ok(Math.abs(memory.seconds(20e9) - 0.075) < 1e-12);
});

test("a wrong result is not timed, by calls and by programs", async () => {
  for (const name of [
    "linear/M=257,N=509,K=263",
    "fbp+backward/B=37,m=131,n=517,o=33,k=3",
    "afg/B=5,T=1-37,D=131,A=67",
  ]) {
    const one = operatorCase(name);
    const plan = planOf(addon, one, describeTensors(one));
    const sets = makeSets(one, 2);
    for (const ours of [byCalls(addon, one, plan, sets, 2), byProgram(addon, one, plan, sets, 1e-3, 2)]) {
      const { difference: off } = await checkCase(addon, one, plan, sets, ours);
      assert.ok(off < 1e-4, `${name}: ${off}`);
      const broken = {
        ...ours,
        results: async (replaced: Parameters<typeof ours.results>[0]) => {
          const results = await ours.results(replaced);
          const { data } = results[plan.results[0] as string] as { data: Float32Array };
          data[0] = (data[0] as number) + 0.01 * data.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
          return results;
        },
      };
      assert.is(await codeOf(() => checkCase(addon, one, plan, sets, broken)), "ERR_AFFUSE_BENCH_RESULT");
      ours.dispose();
    }
  }
});

test("a gradient over the whole batch is checked by some rows", async () => {
  const one: OperatorCase = {
    ...operatorCase("linear+backward/M=256,N=1024,K=1024"),
    tensors: {
      x: { shape: [4096, 300], role: "batch" },
      W: { shape: [500, 300], role: "weight" },
      b: { shape: [500], role: "weight" },
      dy: { shape: [4096, 500], role: "batch" },
    },
  };
  const plan = planOf(addon, one, describeTensors(one));
  const sets = makeSets(one, 1);
  const ours = byProgram(addon, one, plan, sets, 1e-3, 2);
  const { against, difference: off } = await checkCase(addon, one, plan, sets, ours);
  assert.match(against, /^reference \(float64\), \d+ of 4096 rows$/);
  assert.ok(off > 0 && off < 1e-4);
  ours.dispose();
});

test("differences are relative to the largest value, and NaN never agrees with a number", () => {
  assert.is(difference([1, 2], [1, 4]), 0.5);
  assert.is(difference([Number.NaN], [1]), Number.POSITIVE_INFINITY);
  assert.is(difference([0.5], [-0.5], true), 2);
});

const timing = (name: string, median: number, roof: number | null = 100) =>
  ({
    name,
    case: name,
    peer: "affuse",
    threads: 1,
    median,
    p20: median * 0.97,
    p80: median * 1.03,
    roof_kind: roof ? "fma.f32" : null,
    roof,
  }) as unknown as Entry;

test("comparison: a planted slowdown is found, noise and a slower machine are not", () => {
  const then = [timing("a", 1), timing("b", 1), timing("c", 1), timing("d", 1, null)];
  const slow = compareRuns(
    then,
    [timing("a", 1.3), timing("b", 1.04), timing("c", 2, 50), timing("d", 1.3, null)],
    0.1,
  );
  assert.equal(
    slow.filter(({ slower }) => slower).map(({ name }) => name),
    ["a", "d"],
  );
  assert.ok(Math.abs((slow[0]?.change ?? 0) - 0.3) < 1e-9);
  // Beyond the threshold, but the spreads meet.
  const wide = { ...timing("a", 1.3), p20: 1.0 } as Entry;
  assert.is(compareRuns(then, [wide], 0.1)[0]?.slower, false);
  // Measured again and quick: it was noise. Measured again and slow: it stays.
  const first = compareRuns(then, [timing("a", 1.3), timing("b", 1.3)], 0.1);
  const kept = leastChange(first, compareRuns(then, [timing("a", 1.01), timing("b", 1.25)], 0.1));
  assert.equal(
    kept.filter(({ slower }) => slower).map(({ name }) => name),
    ["b"],
  );
});

test("comparison: improvements are clear by the same rules, and counted by the least of the ways", () => {
  const text = (now: Entry[]) => describeChanges(compareRuns(now.map(({ name }) => timing(name, 1)), now, 0.1));
  assert.is(text([timing("a", 0.5)]), "    −50.0 %  a  faster");
  assert.is(text([{ ...timing("a", 0.5), p80: 1 }]), "    −50.0 %  a  (within the spread)");
  assert.is(text([timing("a", 0.93)]), "     −7.0 %  a");
  assert.is(text([timing("a", 0.99)]), "     −1.0 %  a  (within the spread)");
  // The roof is lower now, or higher: of seconds and units of it the least counts; where they disagree there is no change.
  assert.is(text([timing("a", 0.8, 50)]), "    −20.0 %  a  faster");
  assert.is(text([timing("a", 0.6, 125)]), "    −25.0 %  a  faster");
  assert.is(text([timing("a", 0.6, 200)]), "     +0.0 %  a  (within the spread)");
});

test("comparison: after repetitions the slowest is first again, and a single quick look is no change", () => {
  const then = ["a", "b", "c"].map((name) => timing(name, 1));
  const first = compareRuns(then, [timing("a", 2), timing("b", 1.05), timing("c", 0.5)], 0.1);
  const again = leastChange(first, compareRuns(then, [timing("a", 1.01), timing("c", 0.9)], 0.1));
  assert.equal(
    again.map(({ name }) => name),
    ["b", "a", "c"],
  );
  assert.ok(Math.abs((again[2]?.change ?? 0) + 0.1) < 1e-9);
  // Once within the spread, once slower: not slower.
  const wide = compareRuns(then, [{ ...timing("a", 2), p20: 1 }], 0.1);
  assert.is(leastChange(wide, compareRuns(then, [timing("a", 1.5)], 0.1))[0]?.slower, false);
});

test("comparison: stored timings that the run should have and has not are named", () => {
  const benchmarks = ["a", "b", "sweep 1"].map((name) => ({
    ...timing(name, 1),
    tags: name === "b" ? ["quick"] : [],
  }));
  const stored = { benchmarks: [...benchmarks, { ...timing("c", 1), threads: 2, tags: [] }] } as unknown as Stored;
  const now = { context: { threads: [1] }, benchmarks: [timing("a", 1)] };
  assert.equal(missing(stored, now, chooser(undefined, false, true)), ["b", "sweep 1"]);
  assert.equal(missing(stored, now, chooser("^sweep", false, true)), ["sweep 1"]);
  assert.equal(missing(stored, now, chooser(undefined, true, true)), ["b"]);
});

test("figures: never a thousand of a unit, nothing that a terminal obeys", () => {
  assert.equal(
    [999.4e-6, 999.6e-6, 0.9994, 0.9996, 1.004].map(duration),
    ["999 µs", "1.00 ms", "999 ms", "1.00 s", "1.00 s"],
  );
  assert.is(printable("\u001b[31mfast\u0007\n"), "?[31mfast??");
});

test("comparison: a neighbour on the core takes issue slots and is no slowdown; a slower kernel takes none and is one", () => {
  const beside = (entry: Entry, issue: number, kind = "fma.f32") =>
    ({ ...entry, roof: 1e11, roof_kind: kind, issue_percent: issue }) as Entry;
  const slower = (then: Entry, now: Entry) => compareRuns([then], [now], 0.1)[0]?.slower;
  assert.is(slower(beside(timing("a", 1), 99), beside(timing("a", 1.9), 50)), false);
  assert.is(slower(beside(timing("a", 1), 99), beside(timing("a", 1.9), 99)), true);
  assert.is(slower(beside(timing("a", 1), 99), beside(timing("a", 3), 50)), true);
  // A neighbour then, none now: the roof alone says it.
  assert.is(slower(beside(timing("a", 1), 50), beside(timing("a", 1.5), 99)), true);
  // Memory does not wait for issue slots.
  assert.is(slower(beside(timing("a", 1), 99, "read.dram"), beside(timing("a", 1.9), 50, "read.dram")), true);
});

/** A machine whose issue loop reaches these shares of the multiply-add roof, look after look; the last one stays. */
function machine(shares: readonly number[]): NativeAddon {
  let look = 0;
  const roof = (kind: RoofKind) =>
    kind === "issue.f32" ? 1e11 * (shares[Math.min(look++, shares.length - 1)] as number) : 1e11;
  return { roof } as unknown as NativeAddon;
}
const fma = [{ level: "x", threads: 1, roofs: { "fma.f32": 1e11 } }];

test("patience: what was measured on a shared core is measured again, whatever it gave", async () => {
  // Calm before, shared after; shared before; calm around.
  const calm = new Calm(machine([0.97, 0.5, 0.6, 0.97, 0.95]), fma, 60);
  let taken = 0;
  const { value, share } = await calm.around(1, () => ++taken);
  assert.equal([value, share], [2, 0.95]);
  assert.ok(calm.left < 59.9 && calm.left > 50, `${calm.left}`);
});

test("patience ends; without any, everything counts and says what it was beside", async () => {
  const begin = performance.now();
  const shared = new Calm(machine([0.5]), fma, 0.3);
  assert.equal(await shared.around(1, () => "x"), { value: "x", share: 0.5 });
  assert.ok(performance.now() - begin < 5000 && shared.left <= 0);
  assert.not.ok(shared.own(0.5, 1));
  const hasty = new Calm(machine([0.97, 0.5]), fma, 0);
  assert.is((await hasty.around(1, () => 0)).share, 0.5);
  assert.not.ok(hasty.own(0.5, 1));
  assert.ok(hasty.own(0.9, 1));
  // A core that never reaches more is not taken for a shared core.
  const slow = new Calm(machine([0.8]), fma, 0);
  assert.ok(slow.own((await slow.around(1, () => 0)).share, 1));
});

test("an interrupt ends patience, also between measurements that only compute", async () => {
  const restless = Array.from({ length: 100_000 }, (_, i) => (i % 2 === 0 ? 0.97 : 0.5));
  const busy = (): void => {
    for (const end = performance.now() + 5; performance.now() < end; );
  };
  for (const shares of [[0.5], restless]) {
    const controller = new AbortController();
    setTimeout(() => controller.abort(), 100);
    const calm = new Calm(machine(shares), fma, 5, controller.signal);
    assert.is((await calm.around(1, busy)).share, 0.5);
    assert.ok(calm.left > 3, `${calm.left} s left`);
  }
});

test("stored results that are none are refused", async () => {
  const folder = mkdtempSync(join(tmpdir(), "affuse-bench-test-"));
  const file = join(folder, "x.json");
  assert.is(await codeOf(() => readStored(join(folder, "absent.json"))), "ERR_AFFUSE_BENCH_COMPARE");
  for (const text of ["", "{", "[]", '{"context":{},"benchmarks":[]}', '{"benchmarks":[{"name":1}]}']) {
    writeFileSync(file, text);
    assert.is(await codeOf(() => readStored(file)), "ERR_AFFUSE_BENCH_COMPARE", text);
  }
  rmSync(folder, { recursive: true });
});

test("targets: every row is there, those not measured say so", () => {
  assert.equal(evaluateTargets([]), []);
  const all = evaluateTargets([], () => [], true);
  assert.ok(all.length > 30 && all.every(({ pass, note }) => pass === null && note));
  const entry = { ...timing("overhead/addon.call", 1.2e-6, null), tags: [] } as unknown as Entry;
  const [row] = evaluateTargets([entry]);
  assert.ok(row?.pass && Math.abs((row.value ?? 0) - 1.2) < 1e-9);
  // A missed ratio says what share of its roof would reach it.
  const both = "fbp+backward/B=256,m=1024,n=2048,o=1000,k=5";
  const pair = [
    { ...timing(both, 0.2), roof_percent: 75, tags: [] },
    { ...timing(both, 0.14), peer: "torch", tags: [] },
  ] as unknown as Entry[];
  const missed = evaluateTargets(pair).find(({ row }) => row.includes("PyTorch's best, we at 1 thread"));
  assert.ok(missed?.pass === false && Math.abs((missed.value ?? 0) - 0.7) < 1e-9);
  assert.is(verdict(missed), "missed: takes 123 % of fma.f32");
  assert.is(verdict(row), "reached");
  // And what a bare loop reaches, where one was measured.
  const roofs = [{ level: "x", threads: 1, roofs: { "fma.f32": 150e9, "tile.l1": 147e9, "multiply16.dram": 90e9 } }];
  const limits = new Map(evaluateTargets(
    [...pair, { ...timing("fbp/B=16,m=1024,n=2048,o=1000,k=5", 0.1), fma_percent: 55, roof_percent: 80, roof_kind: "read.dram", tags: [] } as unknown as Entry],
    () => roofs,
  ).map((target) => [target.row, verdict(target)]));
  assert.is(limits.get(missed.row), "missed: takes 123 % of fma.f32; bare tile.l1 reaches 98 % of fma.f32");
  assert.is(
    limits.get("FBP forward, B = 16"),
    "missed: takes 87 % of read.dram; bare multiply16.dram reaches 60.0 % of fma.f32",
  );
  // Names that targets ask for exist.
  const names = new Set(ALL_CASES.map(({ name }) => name));
  const asked = new Set<string>();
  const spy = new Proxy([] as Entry[], {
    get: (target, key) =>
      key === "filter"
        ? (keep: (entry: Entry) => boolean) => {
            for (const name of names)
              if (keep({ case: name, peer: "affuse", threads: 1, tags: [] } as unknown as Entry))
                asked.add(name);
            return [];
          }
        : Reflect.get(target, key),
  });
  evaluateTargets(spy, () => [], true);
  const tagged = ALL_CASES.filter(({ tags }) => tags.includes("targets")).map(({ name }) => name);
  assert.equal(
    tagged.filter((name) => !asked.has(name) && !/lrn.*nchw|torch/.test(name)),
    [],
  );
});

test("merged reports: a target is judged with the roofs of the run that its case is from", () => {
  const run = (date: string, name: string, tile: number) =>
    ({
      context: {
        date,
        executable: "",
        commit: null,
        threads: [1],
        versions: {},
        roofs: [{ level: "x", threads: 1, roofs: { "fma.f32": 100e9, "tile.l1": tile } }],
      },
      benchmarks: [{ ...timing(name, 1), fma_percent: 50, roof_percent: 50, tags: [] }],
      skipped: [],
    }) as unknown as BenchReport;
  const [first, second] = ["linear/M=1024,N=1024,K=1024", "linear/M=64,N=1024,K=1024"] as const;
  const { targets } = mergeReports([run("1", first, 90e9), run("2", second, 80e9)]);
  const bare = (row: string) => targets.find((target) => target.row === row)?.bare?.percent;
  assert.equal([bare("GEMM 1024³"), bare("GEMM M = 64")], [90, 80]);
});

let report: BenchReport;

test("a small run: entries in Google Benchmark's shape, checked, with roofs; a missing PyTorch does not stop it", async () => {
  report = await runBench({
    filter: "^(linear/M=257|overhead/addon)",
    peers: ["ort", "torch"],
    threads: 1,
    quick: true,
    python: "/nonexistent/python",
    command: "affuse bench",
    note: silent,
  });
  const ort = await loadOrt().then(
    () => true,
    () => false,
  );
  const peers = report.benchmarks.map(({ peer }) => peer);
  assert.equal(peers, ort ? ["affuse", "onnxruntime", "affuse"] : ["affuse", "affuse"]);
  assert.ok(report.skipped.some(({ code, peer }) => peer === "torch" && code === "ERR_AFFUSE_BENCH_TORCH"));
  for (const entry of report.benchmarks) {
    assert.ok(entry.median > 0 && entry.p20 <= entry.median && entry.median <= entry.p80, entry.name);
    assert.ok(entry.samples >= 3 && entry.iterations >= entry.samples);
    assert.is(entry.time_unit, "us");
    assert.ok(Math.abs(entry.real_time - entry.median * 1e6) < 1e-9 * entry.real_time);
  }
  const [mine] = report.benchmarks;
  assert.is(mine?.flops, 2 * 257 * 509 * 263);
  assert.ok((mine?.roof_percent ?? 0) > 0.1 && mine?.check && mine.check.difference < 1e-4);
  assert.is(report.context.roofs.length, 1);
  assert.ok((report.context.roofs[0]?.roofs["fma.f32"] ?? 0) > 1e9);
  assert.equal(
    report.targets.map(({ row }) => row),
    ["smallest synchronous operator call from JavaScript"],
  );
});

/** A program in Python's place: `answer` is what it does with each command. */
function python(name: string, answer: string): string {
  const file = join(folder, name);
  const body = `#!${process.execPath}
if (process.argv[2] === "-c") process.exit(0);
const say = (value) => console.log(JSON.stringify(value));
require("node:readline").createInterface({ input: process.stdin }).on("line", (line) => {
  const { do: command } = JSON.parse(line);
  ${answer}
});`;
  writeFileSync(file, body, { mode: 0o755 });
  return file;
}
const about = `if (command === "about") return say({ torch: "0", blas: null, libraries: [], mkldnn: true });`;

test("a Python that hangs, ends or says something else is an error, and nothing of it stays", async () => {
  for (const [name, answer, reason] of [
    ["hangs", "", /said nothing for 0.5 s/],
    ["ends", "process.exit(3);", /it ended/],
    ["chatters", `console.log("Welcome");`, /it said "Welcome"/],
    ["null", "say(null);", /it said "null"/],
    ["other", "say({ hello: 1 });", /it said .*hello/],
    ["fails", `say({ error: "no" });`, /PyTorch: no/],
  ] as const) {
    const error = await TorchPeer.start(python(name, answer), name === "hangs" ? 0.5 : 60).then(
      () => null,
      (thrown: unknown) => thrown as AffuseError,
    );
    assert.is(error?.code, "ERR_AFFUSE_BENCH_TORCH", name);
    assert.match(error?.message ?? "", reason, name);
  }
  // What it says may end with a dot of its own.
  writeFileSync(join(folder, "refuses"), "#!/bin/sh\necho See the manual. >&2; exit 1\n", { mode: 0o755 });
  const refused = await TorchPeer.start(join(folder, "refuses")).catch((error: AffuseError) => error.message);
  assert.match(refused as string, /the manual\. Install it/);
  // Who has been lost once is not waited for again.
  const peer = await TorchPeer.start(python("later", `${about}\n  process.exit(1);`), 60);
  for (let again = 0; again < 2; again++)
    assert.is(await codeOf(() => peer.contender(1).sample(0)), "ERR_AFFUSE_BENCH_TORCH");
  peer.stop();
});

test("a peer that ends while it is timed is left out of the case, our timings stay", async () => {
  const noted: string[] = [];
  const { benchmarks, skipped } = await runBench({
    filter: "^adamw/N=",
    peers: ["torch"],
    threads: 1,
    quick: true,
    python: python(
      "tires",
      `${about}
  if (command === "load") return say({});
  if (command === "results") { require("node:fs").writeFileSync(JSON.parse(line).file, ""); return say({ names: [] }); }
  process.exit(1);`,
    ),
    command: "affuse bench",
    note: (text) => noted.push(text),
  });
  assert.equal(
    benchmarks.map(({ peer }) => peer),
    ["affuse"],
  );
  assert.equal(
    skipped.map(({ peer, code }) => [peer, code]),
    [["torch", "ERR_AFFUSE_BENCH_TORCH"]],
  );
  assert.ok(noted.some((text) => /torch: .*it ended/.test(text)));
});

test("an interrupted run reports what is finished", async () => {
  const controller = new AbortController();
  const { benchmarks, interrupted } = await runBench({
    filter: "^overhead/",
    peers: [],
    threads: 1,
    quick: true,
    command: "affuse bench",
    signal: controller.signal,
    note: silent,
    done: () => controller.abort(),
  });
  assert.equal([benchmarks.length, interrupted], [1, true]);
});

test("an interrupted case ends with the samples that it needs", async () => {
  const controller = new AbortController();
  const { benchmarks } = await runBench({
    filter: "^adamw/N=",
    peers: [],
    threads: 1,
    quick: false,
    command: "affuse bench",
    signal: controller.signal,
    note: (text) => text.startsWith("[1/") && controller.abort(),
  });
  assert.equal(
    benchmarks.map(({ samples }) => samples),
    [3],
  );
});

test("the page holds every case and no gaps", () => {
  const page = benchPage(report);
  for (const { name } of ALL_CASES.filter(({ name }) =>
    report.benchmarks.some((entry) => entry.case === name),
  )) {
    assert.ok(page.includes(name.replace("+", "+")), name);
  }
  assert.not.match(page, /NaN|undefined|Infinity|\[object/);
  assert.not.match(page, /<script|https?:\/\//);
});

test("the page marks timings on shared cores, and bars that are longer than there is room", () => {
  const [mine] = report.benchmarks as [Entry];
  const peer = (median: number) => ({ ...mine, peer: "torch", median, ratio: median / mine.median }) as Entry;
  const page = (shared: boolean, times: number) =>
    benchPage({ ...report, benchmarks: [{ ...mine, shared }, { ...peer(times * mine.median), shared: false }] });
  assert.match(page(true, 3), /class="dot linear shared"[\s\S]*hollow, or with a \*[\s\S]*3\.00 × \*/);
  assert.match(page(true, 3), /<rect class="torch"/);
  assert.match(page(false, 35), /<path class="torch"[^>]*>[\s\S]*→ 35\.00 ×/);
  assert.not.match(page(false, 35), /hollow, or|dot linear shared|35\.00 × \*/);
});

test.run();
