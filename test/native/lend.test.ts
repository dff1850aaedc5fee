/** Feeds that a run reads in place: what is lent, what is copied all the same, and who owns the memory meanwhile. */
import { test } from "uvu";
import * as assert from "uvu/assert";
import type { ProgramDesc, TypedArray } from "../../lib/native/addon.ts";
import { addon, arenaValue, chain, codeOf, wave } from "./helpers.ts";

const n = 64;
const rows = 512;

/** y = 2 x, z = 3 (x as one row), behind a long run over a shared buffer: feeds can be changed before it starts. */
function queued() {
  const slow = chain(n, rows, 400);
  const weight = slow.weight;
  const bytes = rows * n * 4;
  const x = { ...arenaValue([rows, n], 0), feed: 0 };
  const desc: ProgramDesc = {
    device: "cpu",
    arenaBytes: 4 * bytes,
    buffers: [weight],
    values: [x, { ...x, shape: [rows * n] }, arenaValue([rows, n], bytes), arenaValue([rows * n], 2 * bytes)],
    instructions: [
      { op: "scale", inputs: [0], outputs: [2], attributes: { factor: 2 } },
      { op: "scale", inputs: [1], outputs: [3], attributes: { factor: 3 } },
    ],
    feeds: [0],
    fetches: [2, 3, 0],
    scalars: 0,
  };
  const program = addon.createProgram(desc);
  const first = new Float32Array(rows * n);
  return { desc, program, begin: () => slow.program.run([first], []) };
}

const filled = (data: Float32Array) => data.map((_, i) => wave(i));
const array = (x: Float32Array) => {
  x.set(filled(x));
  return x;
};
function check(results: TypedArray[], x: ArrayLike<number>) {
  const [twice, thrice, same] = results as [TypedArray, TypedArray, TypedArray];
  for (let i = 0; i < rows * n; i += 97) {
    assert.is(twice[i], Math.fround(2 * (x[i] as number)));
    assert.is(thrice[i], Math.fround(3 * (x[i] as number)));
    assert.is(same[i], x[i]);
  }
}

test("a lent feed is read in place: by its value, by views of it, and when it is fetched", async () => {
  const { program, begin } = queued();
  const x = array(addon.allocate(rows * n));
  const before = begin();
  const run = program.run([x], [], true);
  for (let i = 0; i < x.length; i++) x[i] = i % 1000; // before its turn: shows that nothing was copied
  await before;
  check(await run, x);
});

test("without lend, and from memory of another kind, feeds are copies", async () => {
  const { program, begin } = queued();
  for (const [make, lend] of [
    [() => addon.allocate(rows * n), false],
    [() => new Float32Array(rows * n), true],
    [() => new Float32Array(new SharedArrayBuffer(rows * n * 4)), true],
  ] as const) {
    const x = array(make());
    const kept = Float32Array.from(x);
    const before = begin();
    const run = program.run([x], [], lend);
    x.fill(7);
    await before;
    check(await run, kept);
  }
});

test("part of an allocated array can be lent", async () => {
  const { program } = queued();
  const x = array(addon.allocate(3 * rows * n)).subarray(rows * n, 2 * rows * n);
  check(await program.run([x], [], true), x);
});

test("a lent array may be detached and dropped: the run keeps the memory", async () => {
  const { program, begin } = queued();
  const before = begin();
  const runs = Array.from({ length: 8 }, () => {
    const x = array(addon.allocate(rows * n));
    const run = program.run([x], [], true);
    // Node transfers no external buffer by structuredClone (it copies); where ArrayBuffer.transfer exists it detaches this one.
    (x.buffer as ArrayBuffer & { transfer?: () => ArrayBuffer }).transfer?.();
    return run;
  });
  (globalThis as { gc?: () => void }).gc?.();
  for (let i = 0; i < 200; i++) new Float32Array(1 << 18).fill(i); // collects, with or without --expose-gc
  await before;
  const x = filled(new Float32Array(rows * n));
  for (const run of runs) check(await run, x);
});

test("allocate: zeroed, any length, coded errors", async () => {
  assert.equal([addon.allocate(0).length, addon.allocate(5).every((x) => x === 0)], [0, true]);
  assert.is(await codeOf(() => addon.allocate(-1)), "ERR_AFFUSE_USAGE");
  assert.is(await codeOf(() => addon.allocate(1.5)), "ERR_AFFUSE_USAGE");
  assert.is(await codeOf(() => addon.allocate(2 ** 52)), "ERR_AFFUSE_MEMORY");
});

test("a program cannot write to a fed value, nor call something else a view of it", async () => {
  const { desc } = queued();
  const values = (change: (list: ProgramDesc["values"]) => void) => {
    const list = desc.values.map((value) => ({ ...value }));
    change(list);
    return { ...desc, values: list };
  };
  const code = (changed: ProgramDesc) => codeOf(() => addon.createProgram(changed));
  assert.is(await code(desc), "none");
  const set = (index: number, change: object) => values((list) => Object.assign(list[index] as object, change));
  assert.is(await code(set(1, { shape: [4] })), "ERR_AFFUSE_PROGRAM");
  assert.is(await code(set(1, { offset: 64 })), "ERR_AFFUSE_PROGRAM");
  assert.is(await code(set(1, { feed: 2 })), "ERR_AFFUSE_PROGRAM");
  assert.is(await code(set(0, { feed: 1 })), "ERR_AFFUSE_PROGRAM");
  assert.is(await code({ ...desc, feeds: [] }), "ERR_AFFUSE_PROGRAM");
  const onto = { op: "scale", inputs: [2], outputs: [1], attributes: {} };
  assert.is(await code({ ...desc, instructions: [...desc.instructions, onto] }), "ERR_AFFUSE_PROGRAM");
});

test.run();
