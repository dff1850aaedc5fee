// What the generic cases do not reach on a device: every way that rows and long sums are divided among threads, memory that
// allows no 16-byte accesses, the CPU's masks bit for bit, outputs in the place of inputs, and special values.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { Random } from "../../lib/data/random.ts";
import type { AttributeValue, HostTensor, TypedArray } from "../../lib/native/addon.ts";
import { type Call, type Inputs, integers, normal, sameBits, tensor } from "../operators/run.ts";
import { addon, operator } from "../operators/suite.ts";
import { check } from "./agree.ts";
import { device, deviceCall, ensureDevice } from "./device.ts";

ensureDevice();
const emulated = device === "emulated";
const random = new Random(17, "cuda/shapes");

/** Columns of rows: 8 and 32 lanes, blocks, rows in registers and rows that are read again; by fours and one by one. */
const COLUMNS = [20, 100, 500, 2000, 4100, 5, 31, 121, 1001, 1501];

test("rows of every length", () => {
  for (const C of COLUMNS) {
    const R = C > 600 ? 3 : C < 40 ? 70 : 11;
    check("softmax", { x: normal(random, [R, C], 3) }, {}, C);
    const scale = { gamma: normal(random, [C], 0.5, 1), beta: normal(random, [C]) };
    check("layer_norm", { x: normal(random, [R, C], 2, 1), ...scale }, {}, C);
    check("weighted_sum", { x: normal(random, [2, 3, C]), w: normal(random, [2, 3]) }, {}, C);
    const labels = integers([R], (i) => (i === 1 ? -1 : random.integer(C)));
    const classWeights = tensor([C], () => random.uniform(0.2, 3));
    check(
      "softmax_cross_entropy",
      { logits: normal(random, [R, C], 2), labels, classWeights },
      { labelSmoothing: 0.1 },
      C,
    );
  }
});

test("rows beyond float32's variance", () => {
  for (const C of [4, 31, 100, 1001]) {
    const x = tensor([9, C], (i) => random.normal() * (Math.floor(i / C) % 3 === 1 ? 1e25 : 1));
    check("layer_norm", { x, gamma: normal(random, [C]), beta: normal(random, [C]) }, {}, C);
    const far = tensor([9, C], (i) => random.normal() + (Math.floor(i / C) % 3 === 1 ? 1e4 : 1));
    check("layer_norm", { x: far, gamma: normal(random, [C]), beta: normal(random, [C]) }, {}, C);
  }
});

test("chunks of rows whose gradients meet", () => {
  for (const [R, C] of [
    [100, 4],
    [37, 40],
    [20, 300],
  ] as const)
    check(
      "layer_norm",
      { x: normal(random, [R, C]), gamma: normal(random, [C]), beta: normal(random, [C]) },
      {},
      R,
    );
});

test("sums over several chunks", () => {
  const N = 20003;
  check("grad_norm", { g: normal(random, [N]) }, {}, N);
  check("prelu", { x: normal(random, [N]), slope: normal(random, [1]) }, {}, N);
  const target = tensor([N], () => (random.bernoulli(0.3) ? Number.NaN : random.normal()));
  check("masked_mse", { prediction: normal(random, [N]), target }, {}, N);
  const labels = integers([N], () => random.integer(3) - 1);
  check("softmax_cross_entropy", { logits: normal(random, [N, 2]), labels }, {}, N);
});

test("sums over parts of several chunks", () => {
  const N = 2 * 8192 * 1024 + 5; // two chunks a part
  const data = new Float32Array(N).fill(1);
  data[N - 1] = 3;
  const [norm] = deviceCall("cpu", "grad_norm", [{ dtype: "f32", shape: [N], data }], {}, [true]);
  assert.is(norm?.data[0], Math.fround(Math.sqrt(N + 8)));
});

test("more elements than a grid takes at once", () => {
  const N = 70005;
  const made = (name: string, attributes = {}) => {
    const x: HostTensor = {
      dtype: "f32",
      shape: [N],
      data: Float32Array.from({ length: N }, (_, i) => Math.sin(i)),
    };
    const call = (on: Call) => on("cpu", name, [x], attributes, [true])[0]?.data as TypedArray;
    assert.ok(sameBits(call(addon.call), call(deviceCall)), name);
  };
  made("scale", { factor: 3 });
  made("dropout", { p: 0.3, seed: 5n });
  made("activation", { activation: "relu" });
});

test("transposed planes of several tiles", () => {
  for (const [shape, axis0, axis1] of [
    [[1, 130, 70], 1, 2],
    [[2, 66, 3, 67], 1, 3],
    [[70, 1, 65], 0, 1],
    [[3, 9, 2, 8], 1, 2],
  ] as const)
    check("transpose", { x: normal(random, [...shape]) }, { axis0, axis1 }, 1);
});

test("ratio attention in pieces", () => {
  const shapes = [
    [1, 3, 45],
    [1, 5, 101],
    [2, 3, 201],
    [1, 3, 301],
    [2, 6, 200],
    [2, 3, 300],
    [1, 4, 600],
    [1, 35, 1028],
    [2, 70, 20],
    [2, 200, 3],
    [1, 150, 4],
  ] as const;
  for (const [i, [B, T, D]] of shapes.entries()) {
    const lengths = integers([B], (b) => (b === 1 ? 0 : T - 1));
    const mask = integers([B, T], (t) => (t % 5 === 2 ? 0 : 1));
    const masked = i % 2 === 0;
    const valid = (b: number, t: number) =>
      t < (lengths.data[b] as number) && !(masked && mask.data[b * T + t] === 0);
    const x = tensor([B, T, D], (k) =>
      valid(Math.floor(k / (T * D)), Math.floor(k / D) % T) ? random.normal() : Number.NaN,
    );
    const inputs: Inputs = {
      x,
      lengths,
      q: normal(random, [D], 2 / Math.sqrt(D)),
      beta: normal(random, [1]),
    };
    if (masked) inputs.mask = mask;
    check(
      "ratio_attention",
      inputs,
      {},
      Math.max(D, B * T),
      (name, k) => name === "dalpha" && !valid(Math.floor(k / T), k % T),
    );
  }
});

test("the CPU's masks, bit for bit", () => {
  const settings: Record<string, AttributeValue>[] = [
    { p: 0.1, seed: 1n },
    { p: 0.5, seed: 0xfedcba9876543210n, step: 4294967295, instance: 17 },
    { p: 0.97, seed: 3n, step: 2, instance: 4294967295 },
    { p: 1 - 2 ** -40, seed: 3n },
  ];
  for (const attributes of settings)
    for (const n of [1, 3, 4, 5, 1027])
      for (const unaligned of ["0", "1"]) {
        process.env.AFFUSE_CUDA_UNALIGNED = unaligned;
        const x: HostTensor = {
          dtype: "f32",
          shape: [n],
          data: Float32Array.from({ length: n }, (_, i) => (i === 2 ? Number.NaN : i + 1)),
        };
        for (const [name, inputs] of [
          ["dropout", [x]],
          ["dropout.backward", [null, x]],
        ] as const) {
          const call = (on: Call) =>
            on("cpu", name, [...inputs], attributes, [true])[0]?.data as Float32Array;
          const bits = (values: Float32Array) => Array.from(values, (v) => (Number.isNaN(v) ? "NaN" : v));
          assert.equal(bits(call(deviceCall)), bits(call(addon.call)), `${name} p ${attributes.p} n ${n}`);
        }
      }
  process.env.AFFUSE_CUDA_UNALIGNED = "0";
});

test("outputs in the place of inputs", () => {
  const N = 1027;
  const filled = (seed: number) =>
    Float32Array.from({ length: N }, (_, i) => Math.abs(Math.sin(i * 1.3 + seed)));
  const f32 = (data: Float32Array): HostTensor => ({ dtype: "f32", shape: [data.length], data });
  for (const name of ["adam", "adamw"]) {
    const attributes = { step: 3, weightDecay: 0.1 };
    const [p, g, m, v] = [filled(1), filled(2), filled(3), filled(4)] as const;
    const apart = deviceCall("cpu", name, [f32(p), f32(g), f32(m), f32(v)], attributes, [true, true, true]);
    deviceCall("cpu", name, [f32(p), f32(g), f32(m), f32(v)], attributes, [p, m, v]);
    for (const [i, values] of [p, m, v].entries())
      assert.ok(sameBits(values, apart[i]?.data as TypedArray), `${name} output ${i}`);
  }
  const g = filled(5);
  const norm = deviceCall("cpu", "grad_norm", [f32(g)], {}, [true])[0]?.data as Float32Array;
  const apart = deviceCall("cpu", "clip_by_norm", [f32(g), f32(norm)], { maxNorm: 2 }, [true])[0]
    ?.data as TypedArray;
  deviceCall("cpu", "clip_by_norm", [f32(g), f32(norm)], { maxNorm: 2 }, [g]);
  assert.ok(sameBits(g, apart), "clip_by_norm");
  assert.ok(Math.abs(Math.hypot(...g) - 2) < 1e-5);
});

test("NaN and infinity where the CPU has them", () => {
  const special = [
    Number.NaN,
    Number.POSITIVE_INFINITY,
    Number.NEGATIVE_INFINITY,
    0,
    -0,
    1e-40,
    3e38,
    -3e38,
    1,
    -1,
  ];
  const f32 = (values: readonly number[], shape = [values.length]): HostTensor => ({
    dtype: "f32",
    shape,
    data: Float32Array.from(values),
  });
  const kind = (v: number) => (Number.isNaN(v) ? "NaN" : Number.isFinite(v) ? "finite" : String(v));
  const compare = (name: string, inputs: (HostTensor | null)[], attributes = {}) => {
    const outputs = operator(name).outputs.map(() => true);
    const kinds = (on: Call) =>
      on("cpu", name, inputs, attributes, outputs).map((made) => Array.from(made?.data ?? [], kind));
    assert.equal(kinds(deviceCall), kinds(addon.call), `${name} ${JSON.stringify(attributes)}`);
  };
  for (const activation of ["none", "relu", "gelu", "tanh", "sigmoid"])
    compare("activation", [f32(special)], { activation });
  compare("prelu", [f32(special), f32([0.5])]);
  compare("masked_mse", [f32([Number.NaN, 1, 2]), f32([Number.NaN, 1, Number.NaN])]);
  compare("masked_mse", [f32([Number.NaN, 1, 2]), f32([0, 1, Number.NaN])]);
  // Finite in the CPU's gradient, whatever alpha (operators/finite.test.ts).
  for (const layout of ["nchw", "nhwc"])
    for (const alpha of [0, 1e-4, 1, 1e6])
      for (const most of [1e19, 2e38, 3.4e38]) {
        const x = f32(
          [most, -most, 1, most, 0, -most, most, 1],
          layout === "nchw" ? [1, 8, 1, 1] : [1, 1, 1, 8],
        );
        const dy = { ...x, data: Float32Array.of(1, -2, 0.5, 1e-3, 3, 1, -1, 2) };
        compare("lrn.backward", [x, null, dy], { layout, alpha });
      }
  for (const norm of [Number.NaN, Number.POSITIVE_INFINITY, 0, 2])
    compare("clip_by_norm", [f32(special), f32([norm])]);
  for (const value of special) {
    const row = f32([value, 1, 2, 3, 1, 2, 3, 4, value, 0], [2, 5]);
    compare("softmax", [row]);
    compare("layer_norm", [row, f32([1, 1, 1, 1, 1]), f32([0, 0, 0, 0, 0])]);
    compare("softmax_cross_entropy", [row, { dtype: "i32", shape: [2], data: Int32Array.of(1, -1) }]);
  }
});

// On a GPU that is decided once for a process, and the GPU suite runs this one so too.
const denied = emulated || process.env.AFFUSE_CUDA_UNALIGNED === "1";
(denied ? test : test.skip)("memory that allows no 16-byte accesses", () => {
  process.env.AFFUSE_CUDA_UNALIGNED = "1";
  try {
    const x = normal(random, [15, 40]);
    const flat = {
      g: normal(random, [600]),
      m: normal(random, [600]),
      v: tensor([600], () => random.uniform(0.1, 1)),
    };
    for (const activation of ["none", "relu", "gelu", "tanh", "sigmoid"])
      check("activation", { x }, { activation }, 1);
    check("prelu", { x, slope: normal(random, [1]) }, {}, 600);
    check("masked_mse", { prediction: x, target: normal(random, [15, 40]) }, {}, 600);
    check("grad_norm", { g: x }, {}, 600);
    check("clip_by_norm", { g: x, norm: tensor([1], () => 4) }, {}, 1);
    for (const name of ["adam", "adamw"]) check(name, { p: normal(random, [600]), ...flat }, { step: 2 }, 4);
    check("concat", { x0: x, x1: normal(random, [15, 8]) }, { axis: 1 }, 1);
    check("transpose", { x: normal(random, [3, 25, 8]) }, { axis0: 0, axis1: 1 }, 1);
    check("softmax", { x }, {}, 40);
    check("layer_norm", { x, gamma: normal(random, [40]), beta: normal(random, [40]) }, {}, 40);
    check("weighted_sum", { x: normal(random, [2, 3, 40]), w: normal(random, [2, 3]) }, {}, 40);
    check(
      "ratio_attention",
      { x: normal(random, [2, 5, 40]), q: normal(random, [40], 0.2), beta: normal(random, [1]) },
      {},
      40,
    );
    check("add", { a: x, b: normal(random, [40]) }, {}, 600);
  } finally {
    process.env.AFFUSE_CUDA_UNALIGNED = "0";
  }
});

test.run();
