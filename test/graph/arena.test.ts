import { test } from "uvu";
import * as assert from "uvu/assert";
import { Random } from "../../lib/data/random.ts";
import { type ArenaItem, planArena } from "../../lib/graph/arena.ts";

/** The first pair of blocks that live at the same time and share a byte, or null. */
function findOverlap(items: readonly ArenaItem[], offsets: readonly number[]): [number, number] | null {
  for (let i = 0; i < items.length; i++) {
    for (let j = 0; j < i; j++) {
      const [a, b] = [items[i] as ArenaItem, items[j] as ArenaItem];
      if (a.bytes === 0 || b.bytes === 0) continue;
      const together = a.start <= b.end && b.start <= a.end;
      const [x, y] = [offsets[i] as number, offsets[j] as number];
      if (together && x < y + b.bytes && y < x + a.bytes) return [j, i];
    }
  }
  return null;
}

function randomItems(random: Random): ArenaItem[] {
  return Array.from({ length: 1 + random.integer(40) }, () => {
    const start = random.integer(30) - 1;
    const bytes = random.choice([0, 4, 60, 64, 68, 1000, 4096, 100_000]);
    return { bytes, start, end: start + random.integer(8) };
  });
}

function mostAlive(items: readonly ArenaItem[]): number {
  let most = 0;
  for (let at = -1; at < 40; at++) {
    const alive = items.filter((item) => item.start <= at && at <= item.end);
    most = Math.max(
      most,
      alive.reduce((sum, item) => sum + item.bytes, 0),
    );
  }
  return most;
}

test("no two live blocks overlap, all lie aligned inside the arena", () => {
  const random = new Random(11, "arena");
  for (let round = 0; round < 500; round++) {
    const items = randomItems(random);
    const { offsets, bytes } = planArena(items);
    assert.is(findOverlap(items, offsets), null, `round ${round}`);
    items.forEach((item, i) => {
      const offset = offsets[i] as number;
      assert.is(offset % 64, 0);
      assert.ok(offset >= 0 && (item.bytes === 0 || offset + item.bytes <= bytes));
    });
    assert.ok(bytes >= mostAlive(items));
  }
});

test("positive control: a plan that ignores lifetimes' ends is caught", () => {
  const random = new Random(12, "arena");
  let caught = 0;
  for (let round = 0; round < 100; round++) {
    const items = randomItems(random);
    const { offsets } = planArena(items.map((item) => ({ ...item, end: item.start })));
    if (findOverlap(items, offsets)) caught++;
  }
  assert.ok(caught > 50, `caught ${caught} of 100`);
});

test("blocks that never live together share their bytes", () => {
  const chain = Array.from({ length: 10 }, (_, i) => ({ bytes: 1000, start: i, end: i + 1 }));
  assert.is(planArena(chain).bytes, 2048);
  const gap = planArena([
    { bytes: 640, start: 0, end: 9 },
    { bytes: 320, start: 0, end: 2 },
    { bytes: 128, start: 0, end: 9 },
    { bytes: 64, start: 3, end: 9 },
  ]);
  assert.is(gap.bytes, 1088, "the last block goes into the gap that the second one left");
});

test.run();
