// Runs against stored ones: slowdowns and improvements, noise, neighbours, what is missing, files that are none.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { compareRuns, leastChange, missing, readStored, type Stored } from "../../bench/compare.ts";
import { chooser } from "../../bench/index.ts";
import { describeChanges } from "../../bench/table.ts";
import type { Entry } from "../../bench/types.ts";
import { codeOf } from "../native/helpers.ts";
import { timing } from "./timing.ts";

const test = suite("bench comparison");

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
  const text = (now: Entry[]) =>
    describeChanges(
      compareRuns(
        now.map(({ name }) => timing(name, 1)),
        now,
        0.1,
      ),
    );
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
  const stored = {
    benchmarks: [...benchmarks, { ...timing("c", 1), threads: 2, tags: [] }],
  } as unknown as Stored;
  const now = { context: { threads: [1] }, benchmarks: [timing("a", 1)] };
  assert.equal(missing(stored, now, chooser(undefined, false, true)), ["b", "sweep 1"]);
  assert.equal(missing(stored, now, chooser("^sweep", false, true)), ["sweep 1"]);
  assert.equal(missing(stored, now, chooser(undefined, true, true)), ["b"]);
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

test.run();
