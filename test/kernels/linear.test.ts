// The linear layer (spec 1.6) on numbers that float32 holds exactly, on known values, and on properties of its gradients.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { Random } from "../../lib/data/random.ts";
import { linear } from "../../lib/kernels/index.ts";
import { elements, type Inputs, normal, sameBits, tensor, type Values } from "../operators/run.ts";
import { type Made, run } from "./gather.ts";

// Rows, width and outputs around the edges of register tiles, vectors and panels.
const SIZES = [
  [0, 3, 5],
  [1, 1, 1],
  [2, 17, 15],
  [13, 16, 16],
  [14, 15, 17],
  [15, 33, 31],
  [85, 5, 33],
  [3, 130, 65],
  [170, 40, 70],
] as const;
// K cut into pieces, and too many rows for panels in the cache.
const LARGE = [
  [3, 2100, 9],
  [1400, 6, 20],
  [300, 40, 70],
] as const;

const whole = (random: Random, shape: number[]): Values => tensor(shape, () => random.integer(7) - 3);

/** The three gradients and the output in whole numbers: exact in any order of summation. */
function expected(x: Values, W: Values, b: Values, dy: Values, relu: boolean): Record<string, Float64Array> {
  const [O, D] = W.shape as [number, number];
  const R = elements(x.shape) / D;
  const y = new Float64Array(R * O);
  const dx = new Float64Array(R * D);
  const dW = new Float64Array(O * D);
  const db = new Float64Array(O);
  const at = (v: Values, i: number) => v.data[i] as number;
  for (let r = 0; r < R; r++)
    for (let o = 0; o < O; o++) {
      let z = at(b, o);
      for (let d = 0; d < D; d++) z += at(x, r * D + d) * at(W, o * D + d);
      y[r * O + o] = relu ? Math.max(z, 0) : z;
      const g = relu && z <= 0 ? 0 : at(dy, r * O + o);
      db[o] = (db[o] as number) + g;
      for (let d = 0; d < D; d++) {
        dx[r * D + d] = (dx[r * D + d] as number) + g * at(W, o * D + d);
        dW[o * D + d] = (dW[o * D + d] as number) + g * at(x, r * D + d);
      }
    }
  return { y, dx, dW, db };
}

for (const [R, D, O] of [...SIZES, ...LARGE]) {
  for (const activation of ["none", "relu"]) {
    test(`whole numbers, [${R},${D}] to ${O}, ${activation}: every bit`, () => {
      const random = new Random(1, `${R} ${D} ${O}`);
      const [x, W, b, dy] = [
        whole(random, [R, D]),
        whole(random, [O, D]),
        whole(random, [O]),
        whole(random, [R, O]),
      ];
      const want = expected(x, W, b, dy, activation === "relu");
      const made = {
        ...run("linear", { x, W, b }, { activation }),
        ...run("linear.backward", { x, W, b, dy }, { activation }),
      };
      for (const [name, values] of Object.entries(want))
        assert.equal(
          Array.from((made[name] as Values).data, (v) => v + 0),
          Array.from(values, (v) => v + 0),
          name,
        );
    });
  }
}

test("gelu is the exact one, and keeps its relative precision in the left tail", () => {
  const points = [0, 1, -1, 2, -3, -6, -10];
  const values = [
    0, 0.8413447460685429, -0.15865525393145707, 1.9544997361036416, -0.00404969409489031, -5.919525870226e-9,
    -7.61985302416e-23,
  ];
  const y = linear(
    {
      x: { data: Float32Array.from(points), shape: [points.length, 1] },
      W: { data: new Float32Array([1]), shape: [1, 1] },
    },
    { activation: "gelu" },
  ).y.data;
  values.forEach((value, i) => {
    assert.ok(
      Math.abs((y[i] as number) - value) <= 8e-6 * Math.abs(value),
      `gelu(${points[i]}): expected ${value}, got ${y[i]}`,
    );
  });
});

test("leading dimensions are rows, a vector is one row", () => {
  const random = new Random(2);
  const [x, W, b] = [normal(random, [2, 3, 4, 10]), normal(random, [7, 10]), normal(random, [7])];
  const { y } = run("linear", { x, W, b }) as Made & { y: Values };
  assert.equal(y.shape, [2, 3, 4, 7]);
  const flat = run("linear", { x: { ...x, shape: [24, 10] }, W, b }).y as Values;
  assert.ok(sameBits(flat.data, y.data));
  const row = run("linear", { x: { shape: [10], data: x.data.slice(0, 10) }, W, b }).y as Values;
  assert.equal(row.shape, [7]);
  assert.ok(sameBits(row.data, y.data.slice(0, 7)), "a row alone has the bits it has in a batch");
});

for (const activation of ["none", "relu", "gelu", "tanh", "sigmoid"]) {
  test(`${activation}: saved tensors and wanted outputs do not change a bit`, () => {
    const random = new Random(3, activation);
    const inputs: Inputs = {
      x: normal(random, [45, 37]),
      W: normal(random, [50, 37], 0.3),
      b: normal(random, [50]),
    };
    const saved = run("linear", inputs, { activation }, { want: ["y", "pre"] });
    const dy = normal(random, [45, 50]);
    const alone = run("linear.backward", { ...inputs, dy }, { activation });
    const given = run("linear.backward", { ...inputs, ...saved, dy }, { activation });
    for (const name of ["dx", "dW", "db"]) {
      const values = alone[name] as Values;
      assert.ok(sameBits((given[name] as Values).data, values.data), `${name} with y and pre saved`);
      const one = run("linear.backward", { ...inputs, ...saved, dy }, { activation }, { want: [name] });
      assert.equal(Object.keys(one), [name]);
      assert.ok(sameBits((one[name] as Values).data, values.data), `${name} on its own`);
    }
  });
}

test("NaN and infinities stay in their row of the output", () => {
  const random = new Random(4);
  const [x, W] = [normal(random, [40, 33]), normal(random, [20, 33])];
  const clean = run("linear", { x, W }).y as Values;
  x.data[5 * 33 + 7] = Number.NaN;
  x.data[6 * 33 + 32] = Number.POSITIVE_INFINITY;
  const dirty = run("linear", { x, W }).y as Values;
  for (let r = 0; r < 40; r++)
    for (let o = 0; o < 20; o++) {
      const value = dirty.data[r * 20 + o] as number;
      if (r === 5) assert.ok(Number.isNaN(value));
      else if (r === 6) assert.not.ok(Number.isFinite(value));
      else assert.is(value, clean.data[r * 20 + o]);
    }
});

test.run();
