// Kernels that the other suites' shapes do not lead to: sizes where tiles, windows and rows change their way. That nothing is
// left out is what sanitize.after.test.ts sees to.
import { test } from "uvu";
import * as assert from "uvu/assert";
import type { Attributes, HostTensor, TypedArray } from "../../lib/native/addon.ts";
import { Random } from "../../lib/data/random.ts";
import { type Inputs, integers, normal, sameBits, type Values } from "../operators/run.ts";
import { agree, agreeFbp, check, whole } from "./agree.ts";
import { device, deviceCall, ensureDevice } from "./device.ts";

ensureDevice();
const random = new Random(19, "cuda/reach");

const emulated = device === "emulated";
/** On a GPU that is decided once for a process, and the GPU suite runs this one so too. */
const denied = process.env.AFFUSE_CUDA_UNALIGNED === "1";
if (!emulated && !denied) console.log("skipped: memory that allows no 16-byte accesses");
/** Left out where the GPU suite is tried on the emulator: these run here anyway. */
const brief = emulated && process.env.AFFUSE_TEST_MOST !== undefined;
const longer = brief ? test.skip : test;
const there = (emulated && !brief) || denied ? test : test.skip;

const f32 = ({ shape, data }: Values): HostTensor => ({ dtype: "f32", shape, data: Float32Array.from(data) });

function unaligned(body: () => void) {
  process.env.AFFUSE_CUDA_UNALIGNED = "1";
  try {
    body();
  } finally {
    process.env.AFFUSE_CUDA_UNALIGNED = "0";
  }
}

longer("pools: windows of every size, channels by fours", () => {
  for (const layout of ["nchw", "nhwc"])
    for (const size of [2, 3, 4, 17])
      for (const C of [3, 4]) {
        const [H, W] = size < 17 ? [25, 27] : C === 4 && layout === "nhwc" ? [39, 41] : [19, 22];
        const shape = layout === "nchw" ? [2, C, H, W] : [2, H, W, C];
        const widths = integers([2], (b) => W - b);
        for (const name of ["max_pool2d", "avg_pool2d"])
          check(name, { x: normal(random, shape), widths }, { size, stride: 2, layout }, size * size, (input, i) => {
            const [b, w] = [Math.floor(i / (C * H * W)), layout === "nchw" ? i % W : Math.floor(i / C) % W];
            return input === "x" && w >= W - b;
          });
      }
});

there("pools without 16-byte accesses, on several blocks", () =>
  unaligned(() => {
    for (const layout of ["nchw", "nhwc"])
      for (const name of ["max_pool2d", "avg_pool2d"])
        for (const size of [4, 17]) {
          const x = normal(random, layout === "nchw" ? [1, 4, 26, 26] : [1, 26, 26, 4]);
          check(name, { x }, { size, stride: 1, layout }, size * size);
        }
  }),
);

test("response normalisation whose rims leave room for few channels", () => {
  for (const layout of ["nchw", "nhwc"]) {
    const C = 300;
    const x = normal(random, layout === "nchw" ? [1, C, 1, 2] : [1, 1, 2, C]);
    check("lrn", { x }, { size: 301, alpha: 0.3, beta: 0.75, k: 1, layout }, C);
  }
});

test("more queries than a block has room for", () => {
  const made = (T: number, D: number, A: number, J: number) => ({
    x: normal(random, [1, T, D]),
    W: normal(random, [A, D], 1 / Math.sqrt(D)),
    b: normal(random, [A]),
    q: normal(random, [1, J, A], 0.3),
  });
  check("afg", made(2, 6, 3, 600), {}, 600);
  // A clip in two tiles: the bits that its queries have alone.
  const [T, D, A, J] = [33, 4, 5, 130];
  const { x, W, b, q } = made(T, D, A, J);
  const gathered = (first: number, end: number) => {
    const part = { shape: [1, end - first, A], data: q.data.slice(first * A, end * A) };
    return deviceCall("cpu", "afg", [f32(x), null, f32(W), f32(b), null, f32(part), null], {}, [true, true, true]);
  };
  const all = gathered(0, J);
  for (const [first, end] of [[0, 3], [126, 130]] as const)
    gathered(first, end).forEach((output, i) => {
      const size = [D, T][i];
      const data = all[i]?.data as TypedArray;
      const expected = size ? data.slice(first * size, end * size) : data;
      assert.ok(sameBits(output?.data as TypedArray, expected), `output ${i}, queries ${first} to ${end - 1}`);
    });
});

test("response normalisation over a large window", () => {
  for (const beta of [0.5, 0.75, 0.6])
    for (const layout of ["nchw", "nhwc"]) {
      const x = normal(random, layout === "nchw" ? [2, 40, 3, 5] : [2, 3, 5, 40]);
      check("lrn", { x }, { size: 35, alpha: 0.3, beta, k: 1, layout }, 40);
    }
});

longer("ratio attention over rows of every length", () => {
  for (const [B, T, D] of [
    [1, 2, 1031],
    [1, 2, 4100],
    ...[45, 100, 101, 200, 201, 300, 301, 600, 1028].map((columns) => [9, 2, columns] as const), // a warp has a clip
  ]) {
    const inputs = { x: normal(random, [B, T, D]), q: normal(random, [D], 2 / Math.sqrt(D)), beta: normal(random, [1]) };
    check("ratio_attention", inputs, {}, D);
  }
});

longer("rows of several blocks", () => {
  for (const C of [201, 600, 1501, 2000, 4100])
    check("layer_norm", { x: normal(random, [9, C]), gamma: normal(random, [C]), beta: normal(random, [C]) }, {}, C);
  for (const C of [5, 20, 31, 100, 121, 500])
    check("weighted_sum", { x: normal(random, [2, 17, C]), w: normal(random, [2, 17]) }, {}, C);
  check("transpose", { x: normal(random, [5, 30, 2, 8]) }, { axis0: 1, axis1: 2 }, 1);
});

test("elements of several blocks", () => {
  for (const activation of ["none", "relu", "gelu", "tanh", "sigmoid"])
    check("activation", { x: normal(random, [1501]) }, { activation }, 1);
  const [a, b, dy] = [whole([0, 1100], 1), whole([1100], 1), whole([0, 1100], 1)];
  agree("no rows", "add.backward", [a, b, dy], {}, [true, true]);
});

longer("gathering with more than 128 hidden units, clips of several tiles", () => {
  const clips = (B: number, T: number, D: number, A: number, precision: string) =>
    check(
      "afg",
      { x: normal(random, [B, T, D]), W: normal(random, [A, D], 1 / Math.sqrt(D)), b: normal(random, [A]), u: normal(random, [A], 0.2) },
      { precision },
      Math.max(D, T),
    );
  for (const precision of ["f32", "bf16"])
    for (const D of [71, 72]) {
      clips(1, 130, D, 131, precision);
      for (const A of [12, 70]) clips(1, 40, D, A, precision);
    }
  for (const [D, A] of [
    [7, 5],
    [8, 12],
  ] as const)
    clips(1, 300, D, A, "f32"); // dW in pieces
});

test("fbp: a backward in chunks, of tiles and of less", () => {
  for (const [B, o, rows] of [
    [150, 33, 1],
    [150, 33, 3],
    [300, 3, 1],
  ] as const)
    agreeFbp([B, 5, 6, o, 4, rows], "f32", 0);
});

test("fbp: long scopes, and groups in slices by fours", () => {
  for (const o of [131, 520]) agreeFbp([70, 5, 6, o, 2, 70], "f32", 0); // one group is a chunk, on several blocks
  const [B, o, k] = [4, 520, 2];
  const inputs = {
    a: normal(random, [2, 3]),
    v: normal(random, [B, 4]),
    U: normal(random, [o * k, 3]),
    V: normal(random, [o * k, 4]),
  };
  check("fbp", inputs, { k, rowsPerGroup: 2, normalize: "power-l2", l2Scope: "group" }, 2 * o);
});

/** Rows of v, outputs, rows that share a norm: 8 and 32 lanes and blocks have a norm, in registers and read again; by fours or not. */
const NORMS = [
  [40, 20, 1],
  [40, 19, 1],
  [20, 50, 2],
  [51, 33, 3],
  [27, 100, 3],
  [27, 101, 3],
  [12, 200, 4],
  [9, 267, 3],
  [18, 456, 9],
  [18, 457, 9],
] as const;
const normed = ([B, o, rows]: readonly [number, number, number]): Inputs => ({
  a: normal(random, [B / rows, 2]),
  v: normal(random, [B, 2]),
  U: normal(random, [o, 2]),
  V: normal(random, [o, 2]),
  bu: normal(random, [o]),
});
const norming = (i: number, rowsPerGroup: number) => ({
  ...{ k: 1, rowsPerGroup, l2Scope: "group" },
  normalize: i % 4 < 2 ? "power-l2" : "l2",
});

longer("fbp: norms of every length", () => {
  for (const [i, size] of NORMS.entries()) check("fbp", normed(size), norming(i, size[2]), size[1] * size[2]);
  for (const normalize of ["none", "power"]) check("fbp", normed([3, 700, 1]), { k: 1, normalize }, 700);
});

there("fbp: roots without 16-byte accesses", () =>
  unaligned(() => {
    for (const normalize of ["none", "power"]) check("fbp", normed([3, 220, 1]), { k: 1, normalize }, 220);
  }),
);

(emulated && !brief ? test : test.skip)("fbp: the same bits, whatever accesses memory allows", () => {
  for (const [i, size] of NORMS.entries()) {
    const { a, v, U, V, bu } = normed(size);
    const inputs = [a, v, U, V, bu].map((values) => f32(values as Values));
    const attributes = norming(i, size[2]);
    const dz = whole([size[0], size[1]], 3);
    const made = () => {
      const forward = deviceCall("cpu", "fbp", [...inputs, null], attributes, [true, true, true, true]);
      const saved = [...inputs, null, null, forward[1] as HostTensor, null, null];
      const gradients = [null, dz].map((ds) =>
        deviceCall("cpu", "fbp.backward", [...saved, dz, ds], attributes, [true, true, true, true, true, false]),
      );
      return [forward, ...gradients].flat();
    };
    const wide = made();
    unaligned(() =>
      made().forEach((output, k) => {
        if (output) assert.ok(sameBits(output.data, wide[k]?.data as TypedArray), `${size}: output ${k}`);
      }),
    );
  }
});

test("fbp: more factors than fused kernels have, by fours", () => {
  for (const k of [12, 40]) agreeFbp([20, 5, 6, 20, k, 2], "f32", k === 40 ? 0.5 : 0);
});

there("without 16-byte accesses", () =>
  unaligned(() => {
    check("scale", { x: normal(random, [700]) }, { factor: 1.5 }, 1);
    check("dropout", { x: normal(random, [1400]) }, { p: 0.3, seed: 5n }, 1);
    const N = 9001; // two parts of a long sum
    check("grad_norm", { g: normal(random, [N]) }, {}, N);
    check("prelu", { x: normal(random, [N]), slope: normal(random, [1]) }, {}, N);
    check("masked_mse", { prediction: normal(random, [N]), target: normal(random, [N]) }, {}, N);
    const relu: Attributes = { activation: "relu" };
    const [x, W, b, dy] = [whole([70, 9], 4), whole([11, 9], 4), whole([11], 8), whole([70, 11], 4)];
    agree("70 x 9 to 11", "linear.backward", [x, W, b, null, null, dy], relu, [true, true, true]);
    const stride = { stride: 3, layout: "nhwc" };
    const [map, kernel, dmap] = [whole([1, 10, 10, 5], 4), whole([4, 5, 2, 2], 4), whole([1, 3, 3, 4], 4)];
    agree("stride over the kernel", "conv2d.backward", [map, kernel, null, null, null, dmap], stride, [true, true, false]);
  }),
);

test.run();
