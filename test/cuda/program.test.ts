// Programs on a device: the same results as on the CPU run after run, buffers that move between devices, errors that name the
// instruction, and runs that replay what was recorded.
import { readFileSync } from "node:fs";
import { test } from "uvu";
import * as assert from "uvu/assert";
import type { NativeBuffer, ProgramDesc } from "../../lib/native/addon.ts";
import { addon } from "../operators/suite.ts";
import { device, ensureDevice } from "./device.ts";

ensureDevice();

const N = 37;

/** state ← factor · state + x, twice x fetched; `factor` is a scalar. */
function desc(on: string, buffer: NativeBuffer): ProgramDesc {
  const value = (offset: number, where = -1) => ({ dtype: "f32" as const, shape: [N], buffer: where, offset });
  return {
    device: on,
    arenaBytes: 1024,
    buffers: [buffer],
    values: [{ ...value(0), feed: 0 }, value(0, 0), value(256), value(256, 0), value(512)],
    instructions: [
      { op: "scale", inputs: [1], outputs: [2], attributes: {}, scalars: { factor: 0 } },
      { op: "add", inputs: [2, 0], outputs: [3], attributes: {} },
      { op: "scale", inputs: [3], outputs: [1], attributes: { factor: 1 } },
      { op: "scale", inputs: [0], outputs: [4], attributes: { factor: 2 } },
    ],
    feeds: [0],
    fetches: [4],
    scalars: 1,
  };
}

const sequence = (run: number) => Float32Array.from({ length: N }, (_, i) => Math.fround(Math.sin(run * 7 + i)));

test("many runs with changing scalars give the CPU's bits", async () => {
  const states = await Promise.all(
    ["cpu", device].map(async (on) => {
      const buffer = addon.createBuffer(512);
      const program = addon.createProgram(desc(on, buffer));
      for (let run = 0; run < 6; run++) {
        const [doubled] = await program.run([sequence(run)], [0.5 + run / 8]);
        assert.equal(doubled, sequence(run).map((x) => 2 * x), `run ${run} on ${on}`);
      }
      const state = new Float32Array(N);
      buffer.read(0, state);
      program.dispose();
      buffer.dispose();
      return state;
    }),
  );
  assert.equal(states[0], states[1]);
});

test("scalars that would make other shapes, or are no number, fail their run and say where", async () => {
  const value = (shape: number[], offset: number) => ({ dtype: "f32" as const, shape, buffer: -1, offset });
  const program = addon.createProgram({
    device,
    arenaBytes: 128,
    buffers: [],
    values: [value([1, 1, 4, 4], 0), value([1, 1, 2, 2], 64)],
    instructions: [{ op: "max_pool2d", inputs: [0], outputs: [1, -1], attributes: {}, scalars: { stride: 0 } }],
    feeds: [0],
    fetches: [1],
    scalars: 1,
  });
  const x = Float32Array.from({ length: 16 }, (_, i) => i);
  const said = (stride: number) =>
    program.run([x], [stride]).then(
      ([y]) => Array.from(y as Float32Array).join(),
      ({ code, message }) => `${code} ${message.slice(0, 27)}`,
    );
  const where = "instruction 0 (max_pool2d):";
  // The first run launches, the others are recorded and replayed.
  for (const stride of [1000, 2, 1, 2, 2, 1000, Number.NaN, 2]) {
    const code = Number.isNaN(stride) ? "ERR_AFFUSE_ATTRIBUTE" : "ERR_AFFUSE_SCALAR";
    assert.is(await said(stride), stride === 2 ? "5,7,13,15" : `${code} ${where}`, `a stride of ${stride}`);
  }
});

test("scalars that need more scratch than a program was laid out for fail their run", async () => {
  const value = (shape: number[], offset: number) => ({ dtype: "f32" as const, shape, buffer: -1, offset });
  const program = addon.createProgram({
    device,
    arenaBytes: 512,
    buffers: [],
    values: [value([1, 1, 4, 4], 0), value([1, 1, 1, 1], 64), value([1, 1, 1, 1], 128)],
    instructions: [
      { op: "conv2d", inputs: [0, 1, -1, -1], outputs: [2, -1], attributes: { stride: 1000 }, scalars: { pad: 0 } },
    ],
    feeds: [0, 1],
    fetches: [2],
    scalars: 1,
  });
  const said = (pad: number) =>
    program.run([new Float32Array(16).fill(3), Float32Array.of(2)], [pad]).then(
      ([y]) => (y as Float32Array).join(),
      ({ code }) => code,
    );
  // With an edge laid around it the input needs a copy; the result has the same shape, and is the edge.
  assert.equal([await said(0), await said(400), await said(0)], ["6", "ERR_AFFUSE_SCALAR", "6"]);
});

test("a buffer moves to whoever uses it, and writes between runs are seen", async () => {
  const buffer = addon.createBuffer(512);
  const here = addon.createProgram(desc("cpu", buffer));
  const there = addon.createProgram(desc(device, buffer));
  const expected = new Float32Array(N);
  const step = (x: Float32Array, factor: number) => {
    for (let i = 0; i < N; i++)
      expected[i] = Math.fround(Math.fround(factor) * (expected[i] as number)) + (x[i] as number);
  };
  for (const [run, program] of [here, there, there, there, here, there, here].entries()) {
    await program.run([sequence(run)], [0.75]);
    step(sequence(run), 0.75);
    const state = new Float32Array(N);
    buffer.read(0, state);
    assert.ok(state.every((x, i) => Math.abs(x - (expected[i] as number)) < 1e-6), `run ${run}`);
    if (run !== 3) continue;
    buffer.write(0, new Float32Array(N).fill(1));
    expected.fill(1);
  }
});

test("two programs on one device at once", async () => {
  const buffers = [addon.createBuffer(512), addon.createBuffer(512)];
  const programs = buffers.map((buffer) => addon.createProgram(desc(device, buffer)));
  await Promise.all(
    Array.from({ length: 8 }, (_, run) => programs.map((program) => program.run([sequence(run)], [1]))).flat(),
  );
  const states = buffers.map((buffer) => {
    const state = new Float32Array(N);
    buffer.read(0, state);
    return state;
  });
  assert.equal(states[0], states[1]);
});

test("what a device cannot do is refused with its code", () => {
  const refused = (on: string) => {
    try {
      addon.createProgram(desc(on, addon.createBuffer(512)));
    } catch (error) {
      return (error as { code: string }).code;
    }
    return "none";
  };
  process.env.AFFUSE_DISABLE_CUDA = "1";
  assert.is(refused("cuda"), "ERR_AFFUSE_CUDA_UNAVAILABLE");
  delete process.env.AFFUSE_DISABLE_CUDA;
  assert.is(refused("cuda:x"), "ERR_AFFUSE_DEVICE");
});

/** The loss of two rows of three scores that are fed, with labels in a buffer. */
const labelled = (on: string, arenaBytes: number, buffer: NativeBuffer) =>
  addon.createProgram({
    device: on,
    arenaBytes,
    buffers: [buffer],
    values: [
      { dtype: "f32", shape: [2, 3], buffer: -1, offset: 0, feed: 0 },
      { dtype: "i32", shape: [2], buffer: 0, offset: 0 },
      { dtype: "f32", shape: [1], buffer: -1, offset: 64 },
    ],
    instructions: [{ op: "softmax_cross_entropy", inputs: [0, 1, -1], outputs: [2, -1, -1], attributes: {} }],
    feeds: [0],
    fetches: [2],
    scalars: 0,
  });

test("labels in a buffer are checked as fed ones are, whenever they are written", async () => {
  for (const on of ["cpu", device]) {
    const buffer = addon.createBuffer(64);
    const program = labelled(on, 256, buffer);
    const run = () => program.run([Float32Array.of(1, 2, 3, 3, 2, 1)], []);
    for (const [labels, good] of [
      [[0, 2], true],
      [[0, 7], false],
      [[2, 1], true],
      [[-9, 0], false],
    ] as const) {
      buffer.write(0, Int32Array.from(labels));
      const code = await run().then(
        () => null,
        (error) => error.code,
      );
      assert.is(code, good ? null : "ERR_AFFUSE_LABEL", `${labels} on ${on}`);
    }
    program.dispose();
    buffer.dispose();
  }
});

// In the emulator the device's memory is this process's; memory.test.ts asks for it to be kept.
(device === "emulated" ? test : test.skip)("runs that are refused leave their memory to the next", async () => {
  const MB = 1 << 20;
  const buffer = addon.createBuffer(64);
  const program = labelled(device, 512 * MB, buffer);
  buffer.write(0, Int32Array.of(0, 3));
  const mapped = () => Number(/^VmSize:\s*(\d+) kB$/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1]) / 1024;
  const refused = () =>
    program.run([new Float32Array(6)], []).then(
      () => assert.unreachable(),
      (error) => assert.is(error.code, "ERR_AFFUSE_LABEL"),
    );
  await refused();
  const before = mapped();
  for (let run = 0; run < 8; run++) await refused();
  const grown = mapped() - before;
  assert.ok(grown < 400, `${grown.toFixed()} MB more after runs of 512 MB each`); // threads map some of their own
  program.dispose();
  buffer.dispose();
});

test.run();
