/** The program executor: order, shared buffers, packed weights, scalars, errors. */
import { test } from "uvu";
import * as assert from "uvu/assert";
import type { HostTensor, ProgramDesc } from "../../lib/native/addon.ts";
import { addon, arenaValue, chain, codeOf, f32, wave } from "./helpers.ts";

/** y = x Wᵀ with W [4,4] in a buffer; x is fed. */
function product() {
  const buffer = addon.createBuffer(64);
  const desc: ProgramDesc = {
    device: "cpu",
    arenaBytes: 256,
    buffers: [buffer],
    values: [arenaValue([2, 4], 0), arenaValue([2, 4], 64), { dtype: "f32", shape: [4, 4], buffer: 0, offset: 0 }],
    instructions: [{ op: "linear", inputs: [0, 2], outputs: [1], attributes: {} }],
    feeds: [0],
    fetches: [1],
    scalars: 0,
  };
  return { buffer, desc, program: addon.createProgram(desc) };
}

function direct(x: HostTensor, weight: Float32Array): number[] {
  const W: HostTensor = { dtype: "f32", shape: [4, 4], data: weight };
  return Array.from((addon.call("cpu", "linear", [x, W], {}, [true])[0] as HostTensor).data);
}

const first = async (promise: Promise<ArrayLike<number>[]>) => Array.from((await promise)[0] as ArrayLike<number>);

test("a packed weight follows every write()", async () => {
  const { buffer, program } = product();
  const x = f32([2, 4], wave);
  for (let round = 0; round < 3; round++) {
    const weight = Float32Array.from({ length: 16 }, (_, i) => wave(i + 17 * round));
    buffer.write(0, weight);
    for (let again = 0; again < 2; again++) assert.equal(await first(program.run([x.data], [])), direct(x, weight));
  }
  // One element, in the middle.
  const weight = new Float32Array(16);
  buffer.read(0, weight);
  weight[5] = 7;
  buffer.write(20, new Float32Array([7]));
  assert.equal(await first(program.run([x.data], [])), direct(x, weight));
});

test("a packed weight follows an instruction that writes it, in this program and in others", async () => {
  const { buffer, desc, program } = product();
  const weight = Float32Array.from({ length: 16 }, (_, i) => wave(i));
  buffer.write(0, weight);
  const x = f32([2, 4], wave);
  await program.run([x.data], []);
  // p ← 2 p by way of a program that also multiplies with it before and after.
  const values = [...desc.values, arenaValue([2, 4], 128), arenaValue([4, 4], 192), arenaValue([4, 4], 256)];
  const doubling = addon.createProgram({
    ...desc,
    arenaBytes: 512,
    values,
    instructions: [
      { op: "linear", inputs: [0, 2], outputs: [1], attributes: {} },
      { op: "scale", inputs: [2], outputs: [4], attributes: { factor: 2 } },
      { op: "scale", inputs: [4], outputs: [2], attributes: {} },
      { op: "linear", inputs: [0, 2], outputs: [3], attributes: {} },
    ],
    fetches: [1, 3],
  });
  for (let round = 0; round < 2; round++) {
    const before = weight.map((w) => w * 2 ** round);
    const after = weight.map((w) => w * 2 ** (round + 1));
    const results = await doubling.run([x.data], []);
    assert.equal(Array.from(results[0] as Float32Array), direct(x, before));
    assert.equal(Array.from(results[1] as Float32Array), direct(x, after));
    assert.equal(await first(program.run([x.data], [])), direct(x, after), "the other program sees it too");
  }
});

test("a weight that its program changes is kept packed only if several instructions read it so", async () => {
  // W [4096,1024], 16 MiB; the program then changes its first row. Compared: one reader, two readers.
  const grown: number[] = [];
  const ones = new Float32Array(2 ** 22).fill(1);
  const alive: unknown[] = []; // nothing is freed in between
  for (const readers of [1, 2]) {
    const buffer = addon.createBuffer(2 ** 24);
    buffer.write(0, ones);
    const matrix = { dtype: "f32" as const, shape: [4096, 1024], buffer: 0, offset: 0 };
    const values = [arenaValue([2, 1024], 0), matrix, { ...matrix, shape: [1, 1024] }];
    const reads = Array.from({ length: readers }, (_, i) => {
      values.push(arenaValue([2, 4096], 8192 * (1 + 4 * i)));
      return { op: "linear", inputs: [0, 1], outputs: [3 + i], attributes: {} };
    });
    values.push(arenaValue([1, 1024], 8192 * 9));
    const program = addon.createProgram({
      device: "cpu",
      arenaBytes: 8192 * 10,
      buffers: [buffer],
      values,
      instructions: [
        ...reads,
        { op: "scale", inputs: [2], outputs: [values.length - 1], attributes: { factor: 3 } },
        { op: "scale", inputs: [values.length - 1], outputs: [2], attributes: {} },
      ],
      feeds: [0],
      fetches: [3],
      scalars: 0,
    });
    alive.push(buffer, program);
    const x = ones.subarray(0, 2048);
    const before = process.memoryUsage().rss;
    for (const factor of [1, 3, 9]) {
      const y = (await program.run([x], []))[0] as Float32Array;
      assert.equal([y[0], y[1], y[4096], y[4097]], [1024 * factor, 1024, 1024 * factor, 1024]);
    }
    grown.push((process.memoryUsage().rss - before) / 2 ** 20);
  }
  const [one, two] = grown as [number, number];
  assert.ok(alive.length === 4 && one < 8 && two >= 14, `grew by ${one.toFixed(1)} and ${two.toFixed(1)} MiB`);
});

test("runs that share a buffer happen in call order, others do not wait for each other", async () => {
  // Each run doubles the buffer; the fetched sequence must be exactly 2, 4, 8 …
  const buffer = addon.createBuffer(64);
  buffer.write(0, new Float32Array([1]));
  const stored = { dtype: "f32" as const, shape: [1], buffer: 0, offset: 0 };
  const program = () =>
    addon.createProgram({
      device: "cpu",
      arenaBytes: 64,
      buffers: [buffer],
      values: [stored, arenaValue([1], 0)],
      instructions: [
        { op: "scale", inputs: [0], outputs: [1], attributes: { factor: 2 } },
        { op: "scale", inputs: [1], outputs: [0], attributes: {} },
      ],
      feeds: [],
      fetches: [1],
      scalars: 0,
    });
  const programs = [program(), program(), program()];
  const runs = Array.from({ length: 30 }, (_, i) => programs[i % 3]?.run([], []));
  const seen = (await Promise.all(runs)).map((result) => result?.[0]?.[0]);
  assert.equal(seen, Array.from({ length: 30 }, (_, i) => 2 ** (i + 1)));
});

test("feeds are copied before run() returns, whether or not a run is under way", async () => {
  const { buffer, program } = product();
  const weight = Float32Array.from({ length: 16 }, (_, i) => (i % 5 === 0 ? 1 : 0));
  buffer.write(0, weight);
  const x = new Float32Array(8);
  const runs = [1, 2, 3, 4].map((value) => {
    x.fill(value);
    return first(program.run([x], []));
  });
  x.fill(Number.NaN);
  assert.equal(await Promise.all(runs), [1, 2, 3, 4].map((value) => new Array(8).fill(value)));
});

test("scalars reach their attributes; a bad one fails that run only", async () => {
  const program = addon.createProgram({
    device: "cpu",
    arenaBytes: 128,
    buffers: [],
    values: [arenaValue([2], 0), arenaValue([2], 64)],
    instructions: [{ op: "scale", inputs: [0], outputs: [1], attributes: {}, scalars: { factor: 0 } }],
    feeds: [0],
    fetches: [1],
    scalars: 1,
  });
  const x = new Float32Array([1, 2]);
  assert.equal(await first(program.run([x], [3])), [3, 6]);
  try {
    await program.run([x], [Number.NaN]);
    assert.unreachable();
  } catch (error) {
    assert.is((error as { code: string }).code, "ERR_AFFUSE_ATTRIBUTE");
    assert.match((error as Error).message, /instruction 0 \(scale\).*factor/);
  }
  assert.equal(await first(program.run([x], [-1])), [-1, -2]);
  assert.is(await codeOf(() => program.run([x], [])), "ERR_AFFUSE_SCALAR");
});

test("scalars that would make other shapes than the program's are refused: they would read beyond an input", async () => {
  const program = addon.createProgram({
    device: "cpu",
    arenaBytes: 128,
    buffers: [],
    values: [arenaValue([1, 1, 4, 4], 0), arenaValue([1, 1, 2, 2], 64)],
    instructions: [{ op: "max_pool2d", inputs: [0], outputs: [1, -1], attributes: {}, scalars: { stride: 0 } }],
    feeds: [0],
    fetches: [1],
    scalars: 1,
  });
  const x = Float32Array.from({ length: 16 }, (_, i) => i);
  for (const stride of [1, 1000]) assert.is(await codeOf(() => program.run([x], [stride])), "ERR_AFFUSE_SCALAR");
  assert.equal(await first(program.run([x], [2])), [5, 7, 13, 15]);
});

test("bad data fails the run with the operator's code and place, and the program goes on", async () => {
  const program = addon.createProgram({
    device: "cpu",
    arenaBytes: 1024,
    buffers: [],
    values: [
      arenaValue([1, 2, 3], 0),
      { dtype: "i32", shape: [1], buffer: -1, offset: 64 },
      arenaValue([3], 128),
      arenaValue([1], 192),
      arenaValue([1, 3], 256),
    ],
    instructions: [{ op: "ratio_attention", inputs: [0, 1, 2, 3], outputs: [4], attributes: {} }],
    feeds: [0, 1, 2, 3],
    fetches: [4],
    scalars: 0,
  });
  const feeds = (length: number) => [new Float32Array(6).fill(1), new Int32Array([length]), new Float32Array(3), new Float32Array(1)];
  assert.equal(await first(program.run(feeds(2), [])), [1, 1, 1]);
  try {
    await program.run(feeds(3), []);
    assert.unreachable();
  } catch (error) {
    assert.is((error as { code: string }).code, "ERR_AFFUSE_LENGTH");
    assert.match((error as Error).message, /instruction 0 \(ratio_attention\)/);
  }
  assert.equal(await first(program.run(feeds(1), [])), [1, 1, 1]);
});

test("what createProgram refuses", async () => {
  const { desc } = product();
  const refused = (change: Partial<ProgramDesc>) => codeOf(() => addon.createProgram({ ...desc, ...change }));
  const instruction = desc.instructions[0] as ProgramDesc["instructions"][0];
  const value = desc.values[1] as ProgramDesc["values"][0];
  const withValue = (v: object) => ({ values: [desc.values[0], { ...value, ...v }, desc.values[2]] as ProgramDesc["values"] });
  assert.is(await refused({}), "none");
  process.env.AFFUSE_DISABLE_CUDA = "1";
  assert.is(await refused({ device: "cuda" }), "ERR_AFFUSE_CUDA_UNAVAILABLE");
  delete process.env.AFFUSE_DISABLE_CUDA;
  assert.is(await refused({ device: "abacus" }), "ERR_AFFUSE_DEVICE");
  assert.is(await refused({ arenaBytes: 64 }), "ERR_AFFUSE_PROGRAM");
  assert.is(await refused({ arenaBytes: 1e15 }), "ERR_AFFUSE_MEMORY");
  assert.is(await refused({ arenaBytes: -1 }), "ERR_AFFUSE_PROGRAM");
  assert.is(await refused(withValue({ offset: 4 })), "ERR_AFFUSE_PROGRAM");
  assert.is(await refused(withValue({ offset: 1 << 20 })), "ERR_AFFUSE_PROGRAM");
  assert.is(await refused(withValue({ buffer: 1 })), "ERR_AFFUSE_PROGRAM");
  assert.is(await refused(withValue({ shape: [2, 5] })), "ERR_AFFUSE_PROGRAM");
  assert.is(await refused(withValue({ dtype: "i32" })), "ERR_AFFUSE_PROGRAM");
  assert.is(await refused(withValue({ offset: 0 })), "ERR_AFFUSE_OVERLAP");
  assert.is(await refused({ instructions: [{ ...instruction, op: "nope" }] }), "ERR_AFFUSE_UNKNOWN_OPERATOR");
  assert.is(await refused({ instructions: [{ ...instruction, inputs: [0] }] }), "ERR_AFFUSE_MISSING");
  assert.is(await refused({ instructions: [{ ...instruction, op: "add", inputs: [0, 2] }] }), "ERR_AFFUSE_SHAPE");
  assert.is(await refused({ instructions: [{ ...instruction, inputs: [0, 9] }] }), "ERR_AFFUSE_PROGRAM");
  assert.is(await refused({ instructions: [{ ...instruction, attributes: { nope: 1 } }] }), "ERR_AFFUSE_ATTRIBUTE");
  assert.is(await refused({ instructions: [{ ...instruction, scalars: { activation: 0 } }], scalars: 1 }), "ERR_AFFUSE_PROGRAM");
  assert.is(await refused({ instructions: [{ ...instruction, scalars: { nope: 0 } }], scalars: 1 }), "ERR_AFFUSE_ATTRIBUTE");
  assert.is(await refused({ feeds: [3] }), "ERR_AFFUSE_PROGRAM");
  assert.is(await refused({ feeds: [2] }), "ERR_AFFUSE_PROGRAM");
  assert.is(await refused({ buffers: [{} as never] }), "ERR_AFFUSE_PROGRAM");
  assert.is(await codeOf(() => addon.createProgram(null as never)), "ERR_AFFUSE_PROGRAM");
});

test("whether feeds are lent is true or false", async () => {
  const program = addon.createProgram({
    device: "cpu",
    arenaBytes: 128,
    buffers: [],
    values: [arenaValue([4], 0), arenaValue([4], 64)],
    instructions: [{ op: "scale", inputs: [0], outputs: [1], attributes: { factor: 2 } }],
    feeds: [0],
    fetches: [1],
    scalars: 0,
  });
  assert.is(await codeOf(() => program.run([new Float32Array(4)], [], "yes" as never)), "ERR_AFFUSE_USAGE");
  program.dispose();
});

test("feeds of a wrong type or size are refused", async () => {
  const { program } = product();
  for (const feeds of [[], [new Float32Array(7)], [new Int32Array(8)], [null as never]]) {
    assert.match(await codeOf(() => program.run(feeds, [])), /ERR_AFFUSE_(FEED|DTYPE)/);
  }
});

test("buffers: busy while a run is outstanding, ranges checked, disposable", async () => {
  const { weight, program } = chain(256, 256, 60);
  const run = program.run([new Float32Array(256 * 256)], []);
  assert.is(await codeOf(() => weight.read(0, new Float32Array(1))), "ERR_AFFUSE_BUSY");
  assert.is(await codeOf(() => weight.write(0, new Float32Array(1))), "ERR_AFFUSE_BUSY");
  await run;
  weight.read(0, new Float32Array(1));
  assert.is(await codeOf(() => weight.read(weight.bytes, new Float32Array(1))), "ERR_AFFUSE_RANGE");
  assert.is(await codeOf(() => weight.read(-4, new Float32Array(1))), "ERR_AFFUSE_RANGE");
  assert.is(await codeOf(() => addon.createBuffer(-1)), "ERR_AFFUSE_RANGE");
  assert.is(await codeOf(() => addon.createBuffer(8e15)), "ERR_AFFUSE_MEMORY");
  weight.dispose();
  weight.dispose();
  assert.is(await codeOf(() => weight.read(0, new Float32Array(1))), "ERR_AFFUSE_DISPOSED");
  assert.is((await first(program.run([new Float32Array(256 * 256).fill(2)], []))).length, 256 * 256, "the program keeps the memory");
  program.dispose();
  assert.is(await codeOf(() => program.run([new Float32Array(256 * 256)], [])), "ERR_AFFUSE_DISPOSED");
});

test("dispose() during a run lets it finish", async () => {
  const { program, weight } = chain(96, 96, 40);
  const run = program.run([new Float32Array(96 * 96).fill(3)], []);
  program.dispose();
  weight.dispose();
  assert.ok((await first(run)).every((value) => value === 3));
});

test("the reference device agrees and may keep float64 values", async () => {
  const { buffer, desc } = product();
  const weight = Float32Array.from({ length: 16 }, (_, i) => wave(i));
  buffer.write(0, weight);
  const x = f32([2, 4], wave);
  const rounded = addon.createProgram({ ...desc, device: "reference" });
  const W: HostTensor = { dtype: "f32", shape: [4, 4], data: weight };
  const exact = Array.from((addon.call("reference", "linear", [x, W], {}, [true])[0] as HostTensor).data);
  assert.equal(await first(rounded.run([x.data], [])), exact.map(Math.fround));
  const values = desc.values.map((value, i) => (i === 1 ? { ...value, dtype: "f64" as const } : value));
  const wide = addon.createProgram({ ...desc, device: "reference", values });
  assert.equal(await first(wide.run([x.data], [])), exact);
});

test("zero-sized values run", async () => {
  const program = addon.createProgram({
    device: "cpu",
    arenaBytes: 0,
    buffers: [],
    values: [arenaValue([0, 3], 0), arenaValue([0, 3], 0)],
    instructions: [{ op: "scale", inputs: [0], outputs: [1], attributes: {} }],
    feeds: [0],
    fetches: [1],
    scalars: 0,
  });
  assert.equal(await first(program.run([new Float32Array(0)], [])), []);
});

test.run();
