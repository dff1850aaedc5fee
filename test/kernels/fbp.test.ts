// Factorized bilinear pooling (spec 1.2): golden values, whole numbers bit for bit, invariances, groups, dropout, zeros.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { philox4x32, Random } from "../../lib/data/random.ts";
import { fbp, op } from "../../lib/kernels/index.ts";
import type { Attributes } from "../../lib/native/addon.ts";
import { loadAddon } from "../../lib/native/index.ts";
import { type Inputs, normal, sameBits, tensor, type Values } from "../operators/run.ts";
import { DEVICES, distance, type Made, run } from "./gather.ts";

const matrix = (rows: number, ...values: number[]) => ({
  data: Float32Array.from(values),
  shape: [rows, values.length / rows],
});
const golden = {
  a: matrix(1, 1, 2),
  v: matrix(1, 3, -1),
  U: matrix(4, 1, 0, 0, 1, 1, 1, 1, -1),
  V: matrix(4, 1, 1, 1, -1, 0, 1, 2, 0),
};
const near = (got: ArrayLike<number> | undefined, want: number[]) =>
  want.forEach((value, i) => {
    const value32 = got?.[i] as number;
    assert.ok(
      Math.abs(value32 - value) <= 3e-7 * Math.max(1, Math.abs(value)),
      `expected ${value}, got ${value32}`,
    );
  });

test("golden values of the specification", () => {
  const { z, s } = fbp(golden, { k: 2 });
  assert.equal(Array.from(s.data), [10, -9]);
  near(z.data, [0.72547625, -0.6882472]);
  near(fbp(golden, { k: 2, normalize: "power" }).z.data, [3.16227766, -3]);
  const { da, dv } = op("fbp.backward", { ...golden, dz: matrix(1, 1, 2) }, { k: 2 });
  near(da?.data, [0.40351101, -0.2017555]);
  near(dv?.data, [0.0415379, 0.12461369]);
});

// --- whole numbers -------------------------------------------------------------------------------------------------------

interface Sizes {
  B: number;
  m: number;
  n: number;
  o: number;
  k: number;
  group: number;
}
const whole = (random: Random, shape: number[]): Values => tensor(shape, () => random.integer(5) - 2);

function inputsOf(make: (shape: number[]) => Values, { B, m, n, o, k, group }: Sizes): Inputs {
  const P = o * k;
  return {
    a: make([B / group, m]),
    v: make([B, n]),
    U: make([P, m]),
    V: make([P, n]),
    bu: make([P]),
    bv: make([P]),
  };
}

/** What hu and hv may take together and still be offered, in bytes (kernels/fbp/plan.h). */
const BUDGET = 64 * 2 ** 20;

/** Both projections with their biases, not activated. */
function projections(inputs: Inputs, { B, m, n, o, k, group }: Sizes): { hu: Values; hv: Values } {
  const P = o * k;
  const data = (name: string) => (inputs[name] as Values).data;
  type Numbers = ArrayLike<number>;
  const project = (x: Numbers, W: Numbers, b: Numbers, rows: number, width: number) =>
    tensor([rows, P], (e) => {
      const [i, j] = [Math.floor(e / P), e % P];
      let sum = b[j] as number;
      for (let d = 0; d < width; d++) sum += (x[i * width + d] as number) * (W[j * width + d] as number);
      return sum;
    });
  return {
    hu: project(data("a"), data("U"), data("bu"), B / group, m),
    hv: project(data("v"), data("V"), data("bv"), B, n),
  };
}

/** s and, from ds, all gradients, as the formula reads; `keep` is the dropout factor of an element of [B,P]. */
function plain(inputs: Inputs, ds: Values, sizes: Sizes, keep: (e: number) => number) {
  const { B, m, n, o, k, group } = sizes;
  const P = o * k;
  const A = B / group;
  const get = (name: string, i: number) => (inputs[name] as Values).data[i] as number;
  const projected = projections(inputs, sizes);
  const [hu, hv] = [projected.hu.data, projected.hv.data];
  const out = {
    s: new Float64Array(B * o),
    da: new Float64Array(A * m),
    dv: new Float64Array(B * n),
    dU: new Float64Array(P * m),
    dV: new Float64Array(P * n),
    dbu: new Float64Array(P),
    dbv: new Float64Array(P),
  };
  const add = (t: Float64Array, i: number, value: number) => {
    t[i] = (t[i] as number) + value;
  };
  for (let i = 0; i < B; i++)
    for (let j = 0; j < P; j++) {
      const r = Math.floor(i / group);
      const [u, w] = [hu[r * P + j] as number, hv[i * P + j] as number];
      const at = i * o + Math.floor(j / k);
      const factor = keep(i * P + j);
      add(out.s, at, factor * u * w);
      const g = (ds.data[at] as number) * factor;
      add(out.dbu, j, g * w);
      add(out.dbv, j, g * u);
      for (let d = 0; d < m; d++) {
        add(out.da, r * m + d, g * w * get("U", j * m + d));
        add(out.dU, j * m + d, g * w * get("a", r * m + d));
      }
      for (let d = 0; d < n; d++) {
        add(out.dv, i * n + d, g * u * get("V", j * n + d));
        add(out.dV, j * n + d, g * u * get("v", i * n + d));
      }
    }
  return out;
}

function compare(made: Made, want: Record<string, Float64Array>): void {
  for (const [name, values] of Object.entries(want))
    assert.equal(
      Array.from((made[name] as Values).data, (v) => v + 0),
      Array.from(values, (v) => v + 0),
      name,
    );
}

const shapes: Sizes[] = [
  { B: 0, m: 3, n: 2, o: 5, k: 2, group: 1 },
  { B: 1, m: 1, n: 1, o: 1, k: 1, group: 1 },
  { B: 13, m: 15, n: 4, o: 16, k: 4, group: 1 },
  { B: 15, m: 4, n: 17, o: 33, k: 5, group: 1 },
  { B: 12, m: 5, n: 6, o: 31, k: 3, group: 4 },
  { B: 350, m: 3, n: 4, o: 17, k: 2, group: 2 }, // two strips of rows
  { B: 700, m: 3, n: 4, o: 7, k: 2, group: 350 }, // groups longer than a strip
  { B: 200, m: 900, n: 5, o: 37, k: 3, group: 1 }, // a tall strip, K in pieces
  { B: 330, m: 35, n: 70, o: 350, k: 2, group: 1 }, // da and dv: columns copied piece by piece
  { B: 1400, m: 3, n: 2, o: 5, k: 2, group: 1 }, // many strips
  { B: 3, m: 2060, n: 3, o: 3, k: 2, group: 1 }, // K in pieces
  { B: 2600, m: 1, n: 2, o: 1700, k: 2, group: 1 }, // gradients at the projections in two chunks
  { B: 2800, m: 2, n: 1, o: 1700, k: 2, group: 350 },
];
for (let k = 1; k <= 9; k++) shapes.push({ B: 6, m: 3, n: 5, o: 18, k, group: 3 });

for (const sizes of shapes) {
  const { B, m, n, o, k, group } = sizes;
  test(`whole numbers, B ${B} m ${m} n ${n} o ${o} k ${k} rowsPerGroup ${group}: every bit`, () => {
    const random = new Random(1, JSON.stringify(sizes));
    const inputs = inputsOf((shape) => whole(random, shape), sizes);
    const ds = whole(random, [B, o]);
    const attributes = { k, normalize: "none", rowsPerGroup: group };
    const want = plain(inputs, ds, sizes, () => 1);
    const { s, z, hu, hv } = run("fbp", inputs, attributes);
    compare({ s: s as Values, ...run("fbp.backward", { ...inputs, ds }, attributes) }, want);
    assert.ok(sameBits((z as Values).data, (s as Values).data), "z is s without normalisation");
    const fits = (B / group + B) * o * k * 4 <= BUDGET;
    assert.equal([hu !== undefined, hv !== undefined], [fits, fits], "hu and hv are offered");
    // Given, they are used, offered or not.
    const { hu: u, hv: v } = projections(inputs, sizes);
    if (hu && hv) compare({ hu, hv }, { hu: u.data as Float64Array, hv: v.data as Float64Array });
    const { s: _, ...gradients } = want;
    compare(run("fbp.backward", { ...inputs, s: s as Values, hu: u, hv: v, ds }, attributes), gradients);
  });
}

for (const sizes of [
  { B: 14, m: 3, n: 4, o: 19, k: 4, group: 1 },
  { B: 90, m: 3, n: 4, o: 17, k: 3, group: 2 },
]) {
  test(`dropout follows Philox, k ${sizes.k} rowsPerGroup ${sizes.group}: every bit`, () => {
    const { B, o, k, group } = sizes;
    const random = new Random(2);
    const inputs = inputsOf((shape) => whole(random, shape), sizes);
    const ds = whole(random, [B, o]);
    const [seed, instance, step] = [0x1234_5678_9abc_def0n, 5, 77];
    const words = new Uint32Array(4);
    const keep = (e: number) => {
      const q = Math.floor(e / 4);
      philox4x32(q >>> 0, 0, step, instance, Number(seed & 0xffff_ffffn), Number(seed >> 32n), words);
      return (words[e % 4] as number) < 2 ** 31 ? 0 : 2;
    };
    const attributes = { k, normalize: "none", rowsPerGroup: group, dropout: 0.5, seed, instance, step };
    const want = plain(inputs, ds, sizes, keep);
    const { s, hu, hv } = run("fbp", inputs, attributes) as Record<"s" | "hu" | "hv", Values>;
    compare({ s, ...run("fbp.backward", { ...inputs, ds }, attributes) }, want);
    compare({ s, ...run("fbp.backward", { ...inputs, s, hu, hv, ds }, attributes) }, want);
  });
}

// --- properties ------------------------------------------------------------------------------------------------------------

const SIZES: Sizes = { B: 12, m: 40, n: 33, o: 37, k: 4, group: 1 };
const some = (seed: number, sizes = SIZES): Inputs => {
  const random = new Random(seed);
  return inputsOf((shape) => normal(random, shape, 1 / Math.sqrt(shape.at(-1) as number)), sizes);
};
const scaled = (t: Values, factor: number): Values => ({
  shape: t.shape,
  data: t.data.map((x) => x * factor),
});

for (const device of DEVICES) {
  test(`${device}: without biases the output does not change when a or v is scaled`, () => {
    const { a, v, U, V } = some(3) as Record<"a" | "v" | "U" | "V", Values>;
    const z = run("fbp", { a, v, U, V }, {}, { device }).z as Values;
    for (const [p, q] of [
      [4, 1],
      [1, 8],
      [1.75, 3.5],
    ] as const) {
      const other = run("fbp", { a: scaled(a, p), v: scaled(v, q), U, V }, {}, { device }).z as Values;
      other.data.forEach((x, i) => {
        const y = z.data[i] as number;
        // eps moves z by eps/(2|s|) of itself: compare z|z|, which is s over the sum of |s|
        assert.ok(
          Math.abs(x * Math.abs(x) - y * Math.abs(y)) <= 1e-6,
          `a times ${p}, v times ${q}: ${x}, ${y}`,
        );
      });
    }
  });

  test(`${device}: z squared is the share of |s|, with the sign of s`, () => {
    const { z, s } = run("fbp", some(4), {}, { device }) as Record<"z" | "s", Values>;
    const { B, o } = SIZES;
    for (let i = 0; i < B; i++) {
      const row = s.data.subarray(i * o, (i + 1) * o);
      const sum = (row as Float64Array).reduce((total, x) => total + Math.abs(x), 0);
      row.forEach((x, q) => {
        const y = z.data[i * o + q] as number;
        assert.ok(Math.abs(y * Math.abs(y) - x / sum) <= 1e-6);
      });
    }
  });

  for (const normalize of ["none", "l2", "power", "power-l2"])
    for (const activation of ["none", "relu", "tanh"]) {
      test(`${device}: gradients are finite at zero, ${normalize}, ${activation}`, () => {
        const inputs = some(5);
        const dz = normal(new Random(6), [SIZES.B, SIZES.o]);
        const nothing = (names: string[]) =>
          Object.fromEntries(
            Object.entries(inputs).map(([name, t]) => [name, names.includes(name) ? scaled(t, 0) : t]),
          );
        for (const zeros of [["a", "bu"], ["v", "bv"], Object.keys(inputs)]) {
          const made = run("fbp.backward", { ...nothing(zeros), dz }, { normalize, activation }, { device });
          for (const [name, t] of Object.entries(made))
            assert.ok(
              (t.data as Float64Array).every(Number.isFinite),
              `${name} with ${zeros.join(", ")} at zero`,
            );
        }
      });
    }

  test(`${device}: a group's row of a counts as if it were repeated`, () => {
    const sizes = { ...SIZES, B: 100, group: 5 };
    const inputs = some(7, sizes);
    const a = inputs.a as Values;
    const rows = tensor(
      [100, sizes.m],
      (i) => a.data[Math.floor(i / sizes.m / 5) * sizes.m + (i % sizes.m)] as number,
    );
    const dz = normal(new Random(8), [100, sizes.o]);
    const grouped = { rowsPerGroup: 5 };
    const one = {
      ...run("fbp", inputs, grouped, { device }),
      ...run("fbp.backward", { ...inputs, dz }, grouped, { device }),
    };
    const repeated = { ...inputs, a: rows };
    const all = {
      ...run("fbp", repeated, {}, { device }),
      ...run("fbp.backward", { ...repeated, dz }, {}, { device }),
    };
    for (const name of ["s", "z", "dv", "dbv"])
      assert.ok(sameBits((one[name] as Values).data, (all[name] as Values).data), name);
    (one.da as Values).data.forEach((x, i) => {
      const [g, d] = [Math.floor(i / sizes.m), i % sizes.m];
      let sum = 0;
      let size = 0;
      for (let r = g * 5; r < g * 5 + 5; r++) {
        const part = (all.da as Values).data[r * sizes.m + d] as number;
        sum += part;
        size += Math.abs(part);
      }
      assert.ok(Math.abs(x - sum) <= 1e-5 * (size + 1), `da ${i}: ${x}, ${sum}`);
    });
  });

  test(`${device}: l2Scope group gives every group the length 1`, () => {
    const sizes = { ...SIZES, B: 12, group: 4 };
    const attributes: Attributes = { rowsPerGroup: 4, l2Scope: "group" };
    const z = run("fbp", some(9, sizes), attributes, { device }).z as Values;
    for (let g = 0; g < 3; g++) {
      const part = z.data.slice(g * 4 * sizes.o, (g + 1) * 4 * sizes.o) as Float64Array;
      assert.ok(Math.abs(part.reduce((sum, x) => sum + x * x, 0) - 1) <= 1e-6);
    }
  });
}

test("a saved s and the choice of outputs do not change a bit", () => {
  for (const sizes of [SIZES, { ...SIZES, B: 700, group: 350 }]) {
    const inputs = some(10, sizes);
    const random = new Random(11);
    const given = { dz: normal(random, [sizes.B, sizes.o]), ds: normal(random, [sizes.B, sizes.o]) };
    const attributes = { rowsPerGroup: sizes.group, dropout: 0.1, seed: 3, activation: "tanh" };
    const { s } = run("fbp", inputs, attributes);
    const all = run("fbp.backward", { ...inputs, ...given }, attributes);
    const saved = run("fbp.backward", { ...inputs, s: s as Values, ...given }, attributes);
    for (const [name, values] of Object.entries(all)) {
      assert.ok(sameBits((saved[name] as Values).data, values.data), `${name} from a saved s`);
      const one = run("fbp.backward", { ...inputs, s: s as Values, ...given }, attributes, { want: [name] });
      assert.ok(sameBits((one[name] as Values).data, values.data), `${name} on its own`);
    }
  }
});

for (const activation of ["none", "relu", "tanh"])
  test(`kept and recomputed projections give the same gradients, on two threads the same bits, ${activation}`, () => {
    for (const sizes of [
      { B: 256, m: 70, n: 90, o: 131, k: 5, group: 1 },
      { B: 700, m: 40, n: 33, o: 37, k: 4, group: 350 }, // groups longer than a strip
      { B: 60, m: 40, n: 33, o: 150, k: 17, group: 3 }, // more factors than are brought into order in registers
      { B: 4, m: 20, n: 30, o: 3, k: 1000, group: 2 }, // factors of one output in two pieces of columns
    ]) {
      const inputs = some(13, sizes);
      const dz = normal(new Random(14), [sizes.B, sizes.o]);
      const { k, group } = sizes;
      const attributes = { k, rowsPerGroup: group, dropout: 0.1, seed: 3, activation, normalize: "l2" };
      const made = run("fbp", inputs, attributes) as Record<"z" | "s" | "hu" | "hv", Values>;
      const { s, hu, hv } = made;
      const alone = run("fbp", inputs, attributes, { want: ["s"] }).s as Values;
      assert.ok(sameBits(alone.data, s.data), "s without hu, hv");
      for (const [name, values] of Object.entries(run("fbp", inputs, attributes, { threads: 2 })))
        assert.ok(sameBits(values.data, made[name as "z"].data), `${name} of two threads`);
      const again = run("fbp.backward", { ...inputs, s, dz }, attributes);
      const kept = run("fbp.backward", { ...inputs, s, hu, hv, dz }, attributes);
      const two = run("fbp.backward", { ...inputs, s, hu, hv, dz }, attributes, { threads: 2 });
      for (const [name, values] of Object.entries(again)) {
        assert.ok(distance(kept[name] as Values, values) <= 1e-5, `${name} from kept projections`);
        assert.ok(sameBits((two[name] as Values).data, (kept[name] as Values).data), `${name} of two threads`);
        const one = run("fbp.backward", { ...inputs, s, hu, hv, dz }, attributes, { want: [name] });
        assert.ok(sameBits((one[name] as Values).data, (kept[name] as Values).data), `${name} on its own`);
      }
      const parts: Inputs[] = [{ s, hu }, { s, hv }, { hu, hv }];
      for (const part of parts) {
        const given: Inputs = { ...inputs, dz, ...part };
        for (const [name, values] of Object.entries(run("fbp.backward", given, attributes)))
          assert.ok(sameBits(values.data, (again[name] as Values).data), `${name} without all of s, hu and hv`);
      }
    }
  });

test("hu and hv are offered up to 64 MiB together", () => {
  const addon = loadAddon();
  const offered = (B: number) =>
    addon
      .infer(
        "fbp",
        [[B, 1], [B, 1], [1024, 1], [1024, 1], null, null].map((shape) => shape && { dtype: "f32", shape }),
        { k: 4 },
      )
      .map((desc) => desc?.shape.join());
  assert.equal(offered(8192), ["8192,256", "8192,256", "8192,1024", "8192,1024"]);
  assert.equal(offered(8193), ["8193,256", "8193,256", undefined, undefined]);
});

test("NaN stays in its row", () => {
  const inputs = some(12);
  const clean = run("fbp", inputs).z as Values;
  const v = inputs.v as Values;
  v.data[3 * SIZES.n + 2] = Number.NaN;
  const dirty = run("fbp", inputs).z as Values;
  dirty.data.forEach((x, i) => {
    if (Math.floor(i / SIZES.o) === 3) assert.ok(Number.isNaN(x));
    else assert.is(x, clean.data[i]);
  });
});

test.run();
