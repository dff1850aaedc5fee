/** Summing up and tracing: on made-up native profiles whose result is known, and on a real training step. */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { loadAddon, type NativeProfile } from "../../lib/native/index.ts";
import {
  formatSummary,
  measureRoofs,
  profile,
  type Roofs,
  summarize,
  syntheticSubject,
  type TraceEvent,
  toTrace,
  traceFile,
} from "../../lib/profile/index.ts";
import { compare } from "../../lib/profile/roofs.ts";

const addon = loadAddon();
const caches = { l1: 32e3, l2: 1e6, l3: 30e6 };
/** 100 GFLOP/s; 400, 200, 50, 10 GB/s from L1 to DRAM. */
const roofs: Roofs = {
  threads: 1,
  fma: 1e11,
  l1: 4e11,
  l2: 2e11,
  l3: 5e10,
  dram: 1e10,
  copy: 1e10,
  update: 2e10,
  caches,
};
const load = { calls: 1, seconds: 1e-3, flops: 0, read: 0, written: 0, inPlace: false };

const smallSizes = { batch: 4, frames: 24, streams: 2, dim: 32, lengths: "mixed", classes: 3 } as const;
const small = () => syntheticSubject({ structure: "concat", attention: { dim: 16 } }, smallSizes, true);

test("what limits a call", () => {
  assert.equal(compare({ ...load, flops: 8e7, read: 1e3 }, roofs), { roof: 0.8, limit: "compute" });
  assert.equal(compare({ ...load, read: 9e6, seconds: 2e-4 }, roofs).limit, "L3");
  const copied = compare({ ...load, read: 4e7, written: 4e7, seconds: 1e-2 }, roofs);
  assert.equal(copied, { roof: 0.8, limit: "DRAM" });
  assert.is(compare({ ...load, read: 4e7, written: 4e7, seconds: 1e-2, inPlace: true }, roofs).roof, 0.4);
  assert.is(compare({ ...load, read: 4e7, seconds: 1e-2 }, roofs).roof, 0.4);
  assert.is(compare({ ...load, flops: 1e6 }, roofs).limit, "latency");
  assert.is(compare({ ...load, flops: 1e3, seconds: 2e-6 }, roofs).limit, "overhead");
  assert.equal(compare(load, roofs), { roof: null, limit: "overhead" });
  // The level follows from the size of one call, not of all of them.
  assert.is(compare({ ...load, calls: 1000, read: 1e7, seconds: 3e-5 }, roofs).limit, "L1");
});

/** Two runs of one program: operator a for 60, b for 30 of 100 microseconds. */
const known: NativeProfile = {
  programs: [
    [
      { op: "a", shapes: "x[2]", inPlace: false },
      { op: "b", shapes: "x[3]", inPlace: true },
    ],
  ],
  runs: [0, 1].map((run) => {
    const at = run * 2e5;
    const spans = [
      [0, at, at + 6e4, 3e6, 1000, 500],
      [1, at + 6e4, at + 9e4, 0, 100, 100],
      [-3, at + 9e4, at + 9.4e4, 0, 0, 0],
      [-1, at, at + 1e5, 0, 0, 0],
    ];
    return {
      program: 0,
      spans: Float64Array.from(spans.flat()),
      tasks: Float64Array.of(0, 1, at + 10, at + 20),
    };
  }),
};

test("a known profile", () => {
  const { rows, ...summary } = summarize(known, roofs);
  assert.is(summary.runs, 2);
  assert.ok(Math.abs(summary.mean - 0.1) < 1e-12 && Math.abs(summary.median - 0.1) < 1e-12);
  assert.ok(Math.abs(summary.gflops - 30) < 1e-9 && Math.abs(summary.roof - 0.3) < 1e-9);
  assert.equal(
    rows.map(({ name, calls, share }) => [name, calls, Math.round(share * 1000)]),
    [
      ["a", 1, 600],
      ["b", 1, 300],
      ["(between operators)", 1, 60],
      ["(copy out)", 1, 40],
    ],
  );
  const [a] = rows;
  assert.ok(Math.abs((a?.gflops ?? 0) - 50) < 1e-9 && a?.bytes === 1500 && a?.intensity === 2000);
  assert.is(a?.limit, "compute");
  assert.equal(summarize(known, roofs, true).rows[0]?.shapes, "x[2]");
  const text = formatSummary(summarize(known, roofs), roofs);
  assert.match(text, /^0\.10 ms per run/);
  assert.match(text, /\na +1 +0\.060 +60\.0 % +50\.0/);
});

test("a known trace", () => {
  const { traceEvents } = toTrace(known);
  const tracks = traceEvents.filter(({ name }) => name === "thread_name").map(({ args }) => args?.name);
  assert.equal(tracks, ["program", "program · worker 1"]);
  const slices = traceEvents.filter(({ ph }) => ph === "X");
  assert.is(slices.length, 10);
  assert.equal(
    slices.slice(0, 4).map(({ name, ts, dur }) => [name, ts, dur]),
    [
      ["run", 0, 100.0001],
      ["a", 0, 60],
      ["b", 60, 30],
      ["copy out", 90, 4],
    ],
  );
  const { flops, bytes, ...args } = (slices[1]?.args ?? {}) as Record<string, number>;
  assert.ok((flops as number) > 0 && (bytes as number) > 0);
  for (const [unit, amount] of [["GFLOP/s", flops] as const, ["GB/s", bytes] as const])
    assert.ok(Math.abs((args[unit] as number) / ((amount as number) / 60e3) - 1) < 1e-12, unit);
  const labels = (about: Record<string, unknown>) =>
    toTrace(known, about).traceEvents.find(({ name }) => name === "process_labels")?.args;
  assert.equal([labels({}), labels({ subject: "a step" })], [undefined, { labels: "a step" }]);
});

test("a trace's file is its JSON, however long", () => {
  const { traceEvents, ...rest } = toTrace(known, { subject: "a \u007f step" });
  for (const count of [0, 1, 9_999, 10_000, 10_001, 25_000]) {
    const events = Array.from({ length: count }, (_, i) => traceEvents[i % traceEvents.length] as TraceEvent);
    const text = Buffer.concat(traceFile({ traceEvents: events, ...rest })).toString();
    assert.not.match(text, "\u007f");
    assert.equal(JSON.parse(text), { traceEvents: events, ...rest });
  }
});

test("no thread of a trace is 0, and the program's is the main one", () => {
  const { traceEvents } = toTrace(known);
  assert.ok(traceEvents.every(({ pid, tid }) => pid > 0 && tid > 0));
  const name = (args?: Record<string, unknown>) => args?.name;
  const main = traceEvents.filter(({ ph, pid, tid }) => ph === "M" && tid === pid);
  assert.equal(
    main.map(({ args }) => name(args)),
    ["affuse", "program", undefined],
  );
  // The tasks of worker 0, which is the thread of the program, stay on a track of their own.
  const spans = Float64Array.of(-1, 0, 100, 0, 0, 0, 0, 0, 100, 0, 0, 0);
  const run = { program: 0, spans, tasks: Float64Array.of(0, 0, 10, 20, 0, 1, 10, 20) };
  const both = toTrace({ programs: known.programs, runs: [run] }).traceEvents;
  const tracks = both.filter((event) => event.name === "thread_name");
  assert.equal(
    tracks.map(({ tid, args }) => [tid, name(args)]),
    [
      [1, "program"],
      [2, "program · worker 0"],
      [3, "program · worker 1"],
    ],
  );
  const shown = both.filter(({ ph }) => ph === "X").map(({ tid, cat }) => [tid, cat]);
  assert.equal(shown, [
    [1, "run"],
    [1, "operator"],
    [2, "task"],
    [3, "task"],
  ]);
});

test("what ends with its run stays inside it, to readers that add, shift, round and cut", () => {
  const begins = [0, 473196545, 248789587, 2 ** 40 + 1];
  for (let i = 1; i < 3000; i++) begins.push(Math.floor(7919.7 * i ** 2.1));
  for (const begin of begins) {
    const end = begin + 224412707 + (begin % 100003);
    for (const length of [5749, 841, 20000 + (begin % 7919), end - begin]) {
      const spans = Float64Array.of(-1, begin, end, 0, 0, 0, -3, end - length, end, 0, 0, 0);
      const text = JSON.stringify(
        toTrace({ programs: [[]], runs: [{ program: 0, spans, tasks: new Float64Array() }] }),
      );
      const { traceEvents } = JSON.parse(text) as { traceEvents: { ph: string; ts: number; dur: number }[] };
      const slices = traceEvents.filter(({ ph }) => ph === "X");
      const rounded = slices.flatMap(({ ts, dur }) => [Math.round(ts * 1e3), Math.round(dur * 1e3)]);
      assert.equal(rounded, [begin, end - begin, end - length, length]);
      const cut = (value: number) => Math.trunc(value * 1e3);
      for (const [at, of] of [
        [(ts: number) => ts, (dur: number) => dur],
        [(ts: number) => ts - 57.123, (dur: number) => dur],
        [(ts: number) => ts / 1e3, (dur: number) => dur / 1e3],
        [cut, cut],
      ] as const) {
        const [run, last] = slices.map(({ ts, dur }) => ({ from: at(ts), to: at(ts) + of(dur) }));
        assert.ok(run && last && run.from <= last.from && last.to <= run.to, `${begin} ${length} ${text}`);
      }
    }
  }
});

test("runs at the same time get tracks of their own", () => {
  const run = (from: number) => ({
    program: 0,
    spans: Float64Array.of(-1, from, from + 100, 0, 0, 0),
    tasks: new Float64Array(),
  });
  const { traceEvents } = toTrace({ programs: [[]], runs: [run(50), run(0), run(120)] });
  const slices = traceEvents.filter(({ ph }) => ph === "X");
  assert.is(new Set(slices.map(({ tid }) => tid)).size, 2);
});

test("a training step: shares sum to 1, nothing overlaps, work is counted without padding", async () => {
  const subject = small();
  const recorded = await profile(addon, subject, { steps: 3, warmup: 1, tasks: true });
  subject.dispose();
  assert.is(recorded.runs.length, 3);
  const { rows, runs, mean } = summarize(recorded, measureRoofs(addon, addon.cpu().threads, 0.001));
  assert.is(runs, 3);
  const shares = rows.reduce((sum, { share }) => sum + share, 0);
  assert.ok(Math.abs(shares - 1) < 1e-6, `shares sum to ${shares}`);
  assert.ok(rows.every(({ milliseconds }) => milliseconds >= 0 && milliseconds <= mean));
  const names = rows.map(({ name }) => name);
  for (const name of ["afg", "afg.backward", "linear", "adam", "grad_norm"])
    assert.ok(names.includes(name), name);

  // Operators follow one another on their track; a run holds all of its spans.
  for (const { spans } of recorded.runs) {
    const list = Array.from({ length: spans.length / 6 }, (_, i) => spans.subarray(i * 6, i * 6 + 6));
    const whole = list.find(([step]) => step === -1) as Float64Array;
    let until = whole[1] as number;
    for (const [step, begin, end] of list as unknown as [number, number, number][]) {
      assert.ok(end >= begin && begin >= (whole[1] as number) && end <= (whole[2] as number));
      if (step >= 0) assert.ok(begin >= until, "an operator starts after the one before it");
      if (step >= 0) until = end;
    }
  }

  // afg: 2 * frames * (A D + A + D), frames as they are in the batch and not B * T.
  const model = syntheticSubject(
    { structure: "concat", attention: { dim: 16 } },
    { ...smallSizes, lengths: "full" },
    true,
  );
  const full = await profile(addon, model, { steps: 1, warmup: 0 });
  model.dispose();
  const flopsOf = (of: NativeProfile) =>
    summarize(of, roofs).rows.find(({ name }) => name === "afg")?.flops ?? 0;
  assert.is(flopsOf(full), 2 * 2 * 4 * 24 * (16 * 32 + 16 + 32));
  assert.ok(flopsOf(recorded) < flopsOf(full) && flopsOf(recorded) % (2 * (16 * 32 + 16 + 32)) === 0);
});

test("profiling changes no result", async () => {
  const bits = async (recording: boolean) => {
    const subject = small();
    if (recording) addon.startProfile(true);
    const results = [await subject.step(1), await subject.step(2)];
    if (recording) addon.stopProfile();
    subject.dispose();
    return results;
  };
  assert.equal(await bits(true), await bits(false));
});

test("starting twice, stopping nothing, stopping too early", async () => {
  const code = (body: () => unknown) => {
    try {
      body();
    } catch (error) {
      return (error as { code?: string }).code;
    }
    return "none";
  };
  assert.is(
    code(() => addon.stopProfile()),
    "ERR_AFFUSE_PROFILE",
  );
  assert.is(
    code(() => addon.startProfile("yes" as never)),
    "ERR_AFFUSE_ATTRIBUTE",
  );
  addon.startProfile();
  assert.is(
    code(() => addon.startProfile()),
    "ERR_AFFUSE_BUSY",
  );
  const subject = small();
  const steps = Array.from({ length: 50 }, (_, i) => subject.step(i + 1)); // more than can end meanwhile
  assert.is(
    code(() => addon.stopProfile()),
    "ERR_AFFUSE_BUSY",
  );
  await Promise.all(steps);
  assert.is(addon.stopProfile().runs.length, 50);
  // A run that began before the profile is not in it.
  const before = subject.step(51);
  addon.startProfile();
  await before;
  assert.is(addon.stopProfile().runs.length, 0);
  subject.dispose();
});

test.run();
