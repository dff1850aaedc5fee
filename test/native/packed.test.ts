// A product with its weight packed by a program, on every instruction set that this CPU has: exact where float32 is, and the same
// bits as the call that packs nothing, for any number of threads.
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { test } from "uvu";
import * as assert from "uvu/assert";
import type { HostTensor } from "../../lib/native/addon.ts";
import { addon, arenaValue, f32, wave } from "./helpers.ts";

// [rows, K, columns]: whichever way the matrix core takes (kernels/gemm/gemm.h), with edges of tiles, blocks and panels.
const SHAPES = [
  [1, 40, 1],
  [1, 1000, 333], // one row: panels four at a time, those left, one that is narrow
  [1, 1300, 150], // … K cut
  [1, 4100, 130],
  [2, 900, 70],
  [15, 70, 33], // rows as they lie, the last panel of one column
  [170, 33, 144], // … several tasks
  [90, 17, 47],
  [29, 512, 33], // rows whose lines meet in one set: packed
  [31, 1024, 6], // … and nothing but a panel of few columns
  [86, 70, 145], // rows packed, the last panel of one column
  [300, 40, 164], // … of four, rows kept between tasks
  [200, 1300, 150], // K cut
  [85, 1300, 165],
  [30, 4100, 130], // … and too long to be kept
] as const;

// [B, m, n, outputs, factors]: one to three row tiles, whole turns of a panel (kernels/gemm/core.h) and parts, K cut.
const PAIRS = [
  [9, 300, 131, 70, 3],
  [1, 1000, 131, 170, 4], // one row
  [1, 1300, 2060, 61, 5], // … K cut
  [4, 600, 700, 40, 2], // one tile of several rows
  [16, 131, 517, 33, 5],
  [28, 1300, 129, 40, 2],
  [37, 256, 257, 17, 1],
] as const;

const ALL_LEVELS = ["baseline", "avx2", "avx512", "neon"];
const level = process.env.AFFUSE_CPU;
if (level === undefined) {
  const levels = addon.cpu().levels;
  for (const name of ALL_LEVELS) {
    const run = levels.includes(name) ? test : test.skip;
    run(name, () => {
      const child = spawnSync(process.execPath, ["--import", "tsx", fileURLToPath(import.meta.url)], {
        env: { ...process.env, AFFUSE_CPU: name },
        encoding: "utf8",
      });
      assert.is(child.status, 0, `${child.stdout}${child.stderr}`);
    });
  }
} else {
  for (const shape of SHAPES) test(`${level}, [${shape.join(", ")}]`, () => check(shape));
  for (const shape of PAIRS) test(`${level}, fbp [${shape.join(", ")}]`, () => checkFbp(shape));
}

async function check([R, K, O]: readonly [number, number, number]): Promise<void> {
  const buffer = addon.createBuffer(4 * O * K);
  const bytes = Math.ceil((4 * R * K) / 64) * 64;
  const program = addon.createProgram({
    device: "cpu",
    arenaBytes: bytes + Math.ceil((4 * R * O) / 64) * 64,
    buffers: [buffer],
    values: [
      arenaValue([R, K], 0),
      { dtype: "f32", shape: [O, K], buffer: 0, offset: 0 },
      arenaValue([R, O], bytes),
    ],
    instructions: [{ op: "linear", inputs: [0, 1], outputs: [2], attributes: {} }],
    feeds: [0],
    fetches: [2],
    scalars: 0,
  });
  const product = async (x: HostTensor, W: HostTensor, threads: number) => {
    buffer.write(0, W.data);
    addon.setThreads(threads);
    return Float32Array.from((await program.run([x.data], []))[0] as Float32Array);
  };
  const whole = (i: number) => ((i * 7919) % 11) - 5;
  const x = f32([R, K], whole);
  const W = f32([O, K], (i) => whole(i + 3));
  const y = await product(x, W, 1);
  for (let r = 0; r < R; r++)
    for (let o = 0; o < O; o++) {
      let sum = 0;
      for (let k = 0; k < K; k++) sum += (x.data[r * K + k] as number) * (W.data[o * K + k] as number);
      assert.is(y[r * O + o], sum, `[${r}, ${o}]`);
    }
  const odd = f32([R, K], wave);
  const weight = f32([O, K], (i) => wave(i + 5));
  const called = (addon.call("cpu", "linear", [odd, weight], {}, [true], 1)[0] as HostTensor).data;
  for (const threads of [1, 2, 3]) {
    const packed = await product(odd, weight, threads);
    for (let i = 0; i < packed.length; i++)
      assert.ok(Object.is(packed[i], called[i]), `${threads} threads, ${i}`);
  }
}

/** Both weights packed by a program: the same bits as the call, for any number of threads. */
async function checkFbp([B, m, n, o, k]: (typeof PAIRS)[number]): Promise<void> {
  const tensors = [f32([B, m], wave), f32([B, n], (i) => wave(i + 1))];
  const weights = [f32([o * k, m], (i) => wave(i + 2)), f32([o * k, n], (i) => wave(i + 3))];
  const attributes = { k, normalize: "power-l2" };
  const called = addon.call("cpu", "fbp", [...tensors, ...weights], attributes, [true], 1)[0] as HostTensor;
  let bytes = 0;
  const place = (shape: number[]) => {
    const value = arenaValue(shape, bytes);
    bytes += Math.ceil((4 * shape.reduce((a, b) => a * b, 1)) / 64) * 64;
    return value;
  };
  const values = [place([B, m]), place([B, n])];
  const buffers = weights.map(({ data }, buffer) => {
    const made = addon.createBuffer(data.byteLength);
    made.write(0, data);
    values.push({ dtype: "f32", shape: weights[buffer]?.shape ?? [], buffer, offset: 0 });
    return made;
  });
  values.push(place([B, o]));
  const program = addon.createProgram({
    device: "cpu",
    arenaBytes: bytes,
    buffers,
    values,
    instructions: [{ op: "fbp", inputs: [0, 1, 2, 3], outputs: [4], attributes }],
    feeds: [0, 1],
    fetches: [4],
    scalars: 0,
  });
  for (const threads of [1, 2, 3]) {
    addon.setThreads(threads);
    const z = (
      await program.run(
        tensors.map(({ data }) => data),
        [],
      )
    )[0] as Float32Array;
    for (let i = 0; i < z.length; i++)
      assert.ok(Object.is(z[i], called.data[i]), `${threads} threads, ${i}: ${z[i]} ${called.data[i]}`);
  }
}

test.run();
