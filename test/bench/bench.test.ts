// What the bench does with a case: selection, statistics, bounds, checking, a small run, interrupts, the page.
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { sampler } from "../../bench/adapter.ts";
import { ALL_CASES } from "../../bench/cases/index.ts";
import { checkCase, difference } from "../../bench/check.ts";
import { type BenchReport, runBench, selectCases } from "../../bench/index.ts";
import { byCalls, byProgram, planOf } from "../../bench/ours.ts";
import { benchPage } from "../../bench/page.ts";
import { loadOrt } from "../../bench/peers/ort.ts";
import { boundBy } from "../../bench/roofs.ts";
import { quantile, summary } from "../../bench/stats.ts";
import { duration, printable } from "../../bench/table.ts";
import { describeTensors, makeSets } from "../../bench/tensors.ts";
import type { Entry, OperatorCase } from "../../bench/types.ts";
import { loadAddon } from "../../lib/native/load.ts";
import { codeOf } from "../native/helpers.ts";

const addon = loadAddon();
const test = suite("bench");
const silent = () => {};
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

test("what is updated in place is checked after one update, however often it was timed before", async () => {
  const shape = [5000];
  const { p, g, m, v } = operatorCase("adamw/N=2097152").tensors;
  const one = { ...operatorCase("adamw/N=2097152"), tensors: {} } as OperatorCase;
  for (const [name, tensor] of Object.entries({ p, g, m, v }))
    one.tensors[name] = { ...tensor, shape } as never;
  const plan = planOf(addon, one, describeTensors(one));
  const sets = makeSets(one, 3);
  const ours = byProgram(addon, one, plan, sets, 1e-6, 2);
  await ours.contender(1).loop?.(0.01);
  const { difference: off } = await checkCase(addon, one, plan, sets, ours);
  assert.ok(off < 1e-6, `${off}`);
  ours.dispose();
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

test("figures: never a thousand of a unit, nothing that a terminal obeys", () => {
  assert.equal([999.4e-6, 999.6e-6, 0.9994, 0.9996, 1.004].map(duration), [
    "999 µs",
    "1.00 ms",
    "999 ms",
    "1.00 s",
    "1.00 s",
  ]);
  assert.is(printable("\u001b[31mfast\u0007\n"), "?[31mfast??");
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
    benchPage({
      ...report,
      benchmarks: [
        { ...mine, shared },
        { ...peer(times * mine.median), shared: false },
      ],
    });
  assert.match(page(true, 3), /class="dot linear shared"[\s\S]*hollow, or with a \*[\s\S]*3\.00 × \*/);
  assert.match(page(true, 3), /<rect class="torch"/);
  assert.match(page(false, 35), /<path class="torch"[^>]*>[\s\S]*→ 35\.00 ×/);
  assert.not.match(page(false, 35), /hollow, or|dot linear shared|35\.00 × \*/);
});

test.run();
