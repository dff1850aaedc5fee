// What the bench must show: rows, limits, merged runs.
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { ALL_CASES } from "../../bench/cases/index.ts";
import type { BenchReport } from "../../bench/index.ts";
import { mergeReports } from "../../bench/page.ts";
import { evaluateTargets, verdict } from "../../bench/targets.ts";
import type { Entry } from "../../bench/types.ts";
import { timing } from "./timing.ts";

const test = suite("bench targets");

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
  const roofs = [
    { level: "x", threads: 1, roofs: { "fma.f32": 150e9, "tile.l1": 147e9, "multiply16.dram": 90e9 } },
  ];
  const limits = new Map(
    evaluateTargets(
      [
        ...pair,
        {
          ...timing("fbp/B=16,m=1024,n=2048,o=1000,k=5", 0.1),
          fma_percent: 55,
          roof_percent: 80,
          roof_kind: "read.dram",
          tags: [],
        } as unknown as Entry,
      ],
      () => roofs,
    ).map((target) => [target.row, verdict(target)]),
  );
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

test("merged reports: a case counts as it was measured last, but shared cores do not replace cores of one's own", () => {
  const run = (date: string, median: number, shared: boolean) =>
    ({
      context: { date, executable: date, commit: null, threads: [1], versions: {}, roofs: [] },
      benchmarks: [{ ...timing("a", median), shared, tags: [] }],
      skipped: [],
    }) as unknown as BenchReport;
  const medians = (...runs: BenchReport[]) => mergeReports(runs).benchmarks.map(({ median }) => median);
  assert.equal(medians(run("2", 2, false), run("1", 1, false)), [2]);
  assert.equal(medians(run("1", 1, true), run("2", 2, true)), [2]);
  assert.equal(medians(run("1", 1, false), run("2", 2, true)), [1]);
  assert.equal(medians(run("1", 1, true), run("2", 2, false), run("3", 3, true)), [2]);
});

test.run();
