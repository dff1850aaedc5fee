// Golden values of the specification (section 4) and facts that do not come from this project's own code.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { philox4x32, Random } from "../../lib/data/random.ts";
import {
  type Inputs,
  inferred,
  integers,
  normal,
  runKernel,
  runReference,
  tensor,
  type Values,
} from "./run.ts";
import { addon, operator } from "./suite.ts";

const vector = (...values: number[]): Values => ({ shape: [values.length], data: Float64Array.from(values) });
const matrix = (rows: number, ...values: number[]): Values => ({
  shape: [rows, values.length / rows],
  data: Float64Array.from(values),
});

/** Runs reference and kernel and hands both to `check`, with the tolerance of each. */
function both(
  name: string,
  inputs: Inputs,
  attributes: Record<string, string | number | bigint | boolean>,
  check: (out: Record<string, number[]>, tolerance: number) => void,
): void {
  const info = operator(name);
  const shapes = inferred(addon, info, inputs, attributes);
  const list = (outputs: Record<string, Values | null>) =>
    Object.fromEntries(Object.entries(outputs).map(([k, v]) => [k, Array.from(v?.data ?? [])]));
  check(list(runReference(addon.call, info, inputs, attributes, shapes)), 2e-8);
  check(list(runKernel(addon.call, info, inputs, attributes, shapes).outputs), 2e-6);
}

function near(got: number[] | undefined, expected: number[], tolerance: number): void {
  assert.is(got?.length, expected.length);
  expected.forEach((value, i) => {
    assert.ok(
      Math.abs((got?.[i] as number) - value) <= tolerance * Math.max(1, Math.abs(value)),
      `element ${i}: expected ${value}, got ${got?.[i]}`,
    );
  });
}

for (const [form, value] of [
  ["kendall", 1.6652212113],
  ["half", 1.1927706286],
  ["log1p", 2.6101411256],
  ["sum", 2.7],
] as const) {
  test(`uncertainty loss, ${form}`, () => {
    const inputs = { ce: vector(0.7), mse: vector(2), s_e: vector(-0.3), s_v: vector(0.4) };
    both("uncertainty_loss", inputs, { form }, (out, tolerance) =>
      near(out.loss, [value], Math.max(tolerance, 1e-10)),
    );
  });
}

test("uncertainty loss: a task without labels contributes nothing and leaves its s alone", () => {
  const inputs = {
    ce: vector(0.7),
    mse: vector(Number.NaN),
    s_e: vector(-0.3),
    s_v: vector(0.4),
    countE: integers([1], () => 5),
    countV: integers([1], () => 0),
  };
  both("uncertainty_loss", inputs, {}, (out, tolerance) =>
    near(out.loss, [Math.exp(0.3) * 0.7 - 0.15], tolerance),
  );
  both("uncertainty_loss.backward", { ...inputs, dloss: vector(1) }, {}, (out, tolerance) => {
    near(out.dmse, [0], 0);
    near(out.ds_v, [0], 0);
    near(out.ds_e, [0.5 - Math.exp(0.3) * 0.7], tolerance);
  });
});

test("uncertainty loss: finite for every finite input", () => {
  for (const form of ["kendall", "half", "log1p", "sum"])
    for (const s of [-3e38, -1000, -100, 100, 1000, 3e38])
      for (const L of [0, 1e-30, 1, 3e38]) {
        const inputs = {
          ce: tensor([1], () => L),
          mse: vector(1),
          s_e: tensor([1], () => s),
          s_v: vector(0),
        };
        both("uncertainty_loss", inputs, { form }, (out) =>
          assert.ok(out.loss?.every(Number.isFinite), `${form} ${s} ${L}`),
        );
        both("uncertainty_loss.backward", { ...inputs, dloss: vector(1) }, { form }, (out) => {
          for (const [name, d] of Object.entries(out))
            assert.ok(d.every(Number.isFinite), `${form} ${s} ${L}: ${name} ${d}`);
        });
      }
});

const fbpInputs = {
  a: matrix(1, 1, 2),
  v: matrix(1, 3, -1),
  U: matrix(4, 1, 0, 0, 1, 1, 1, 1, -1),
  V: matrix(4, 1, 1, 1, -1, 0, 1, 2, 0),
};

test("FBP without biases", () => {
  both("fbp", fbpInputs, { k: 2, dropout: 0 }, (out, tolerance) => {
    near(out.s, [10, -9], tolerance);
    near(out.z, [0.72547625, -0.6882472], tolerance);
  });
  both("fbp", fbpInputs, { k: 2, dropout: 0, normalize: "power" }, (out, tolerance) =>
    near(out.z, [3.16227766, -3], tolerance),
  );
  both("fbp", fbpInputs, { k: 1, dropout: 0, normalize: "none" }, (out, tolerance) =>
    near(out.z, [2, 8, -3, -6], tolerance),
  );
});

test("FBP's gradients for L = z1 + 2 z2", () => {
  both("fbp.backward", { ...fbpInputs, dz: matrix(1, 1, 2) }, { k: 2, dropout: 0 }, (out, tolerance) => {
    near(out.da, [0.40351101, -0.20175551], tolerance);
    near(out.dv, [0.0415379, 0.12461369], tolerance);
  });
  // dL/ds, seen through U: dU_row = ds_i (V v)_row a.
  both("fbp.backward", { ...fbpInputs, dz: matrix(1, 1, 2) }, { k: 2, dropout: 0 }, (out, tolerance) => {
    const factors = [2, 4, -1, 6].flatMap((Vv) => [Vv * 1, Vv * 2]);
    const ds = (out.dU ?? []).map((d, i) => d / (factors[i] as number));
    near(ds, [...Array(4).fill(0.05340587), ...Array(4).fill(0.05933985)], tolerance);
  });
});

test("FBP's gradients are finite at s = 0 and at all-zero inputs", () => {
  const zero = { a: matrix(1, 0, 0), v: matrix(1, 0, 0), U: matrix(2, 0, 0, 0, 0), V: matrix(2, 0, 0, 0, 0) };
  // s = 1·1 − 1·1 = 0 with nothing else 0.
  const cancelling = {
    a: matrix(1, 1, 1),
    v: matrix(1, 1, 1),
    U: matrix(2, 1, 0, 0, 1),
    V: matrix(2, 1, 0, 0, -1),
  };
  for (const inputs of [zero, cancelling])
    for (const normalize of ["none", "l2", "power", "power-l2"]) {
      both("fbp.backward", { ...inputs, dz: matrix(1, 1) }, { k: 2, dropout: 0, normalize }, (out) => {
        for (const [name, d] of Object.entries(out))
          assert.ok(d.every(Number.isFinite), `${normalize}: ${name} ${d}`);
      });
    }
});

test("dropout's mask as anyone can compute it", () => {
  // Philox known answer (Random123's kat_vectors), so that the generator below is not this project's word
  // alone.
  const out = new Uint32Array(4);
  philox4x32(0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0, out);
  assert.equal(Array.from(out), [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1]);
  const [seed, step, instance, p] = [0xfedcba9876543210n, 4000000000, 17, 0.3];
  const x = tensor([3, 67], (i) => i + 1);
  both("dropout", { x }, { p, seed, step, instance }, ({ y }, tolerance) => {
    const threshold = Math.round(p * 2 ** 32);
    x.data.forEach((value, e) => {
      philox4x32(e >> 2, 0, step, instance, Number(seed & 0xffffffffn), Number(seed >> 32n), out);
      near([y?.[e] as number], [(out[e & 3] as number) < threshold ? 0 : value / (1 - p)], tolerance);
    });
  });
});

test("dropout with p = 0 is the identity", () => {
  const x = tensor([101], (i) => Math.sin(i));
  both("dropout", { x }, { p: 0, seed: 9n }, ({ y }) => assert.equal(y, Array.from(x.data)));
});

const TORCH_GRADIENT = [
  0.062356772763958325, 0.1742918278086782, -0.2366486005726366, 0, 0, 0, -0.07436180101568889,
  0.09897153231764444, -0.02460973130195555,
];
const TORCH_GELU = [-0.00404969409489031, -0.15865525393145702, 0.34573123063700656, 1.9544997361036416];
const TORCH_STEPS = {
  adam: [0.9873751971761289, -1.9814525953153677, 0.48064450623449995],
  adamw: [0.9916720360378488, -1.9806266250641875, 0.479688703720801],
};

test("cross-entropy, label smoothing and class weights as PyTorch has them", () => {
  // torch.nn.CrossEntropyLoss(weight=[0.5,1,2], ignore_index=-1, label_smoothing=0.1), PyTorch 1.13, float64.
  const inputs = {
    logits: matrix(3, 1, 2, 3, 0.5, -1, 0.25, 2, 2, -2),
    labels: integers([3], (i) => [2, -1, 0][i] as number),
    classWeights: vector(0.5, 1, 2),
  };
  both("softmax_cross_entropy", inputs, { labelSmoothing: 0.1 }, (out, tolerance) => {
    near(out.loss, [0.6050109256002199], tolerance);
    near(out.count, [2], 0);
  });
  both(
    "softmax_cross_entropy.backward",
    { ...inputs, dloss: vector(1) },
    { labelSmoothing: 0.1 },
    (out, tolerance) => near(out.dlogits, TORCH_GRADIENT, tolerance),
  );
});

test("gelu is the exact one", () => {
  // torch.nn.functional.gelu, float64.
  both("activation", { x: vector(-3, -1, 0.5, 2) }, { activation: "gelu" }, ({ y }, tolerance) =>
    near(y, TORCH_GELU, tolerance),
  );
});

test("two steps of Adam and AdamW as PyTorch takes them", () => {
  for (const name of ["adam", "adamw"] as const) {
    let state: Inputs = { p: vector(1, -2, 0.5), m: vector(0, 0, 0), v: vector(0, 0, 0) };
    let rough: Inputs = state;
    const info = operator(name);
    for (const [i, g] of [vector(0.1, -0.3, 2), vector(-0.2, 0.05, 1)].entries()) {
      const attributes = { lr: 0.01, weightDecay: 0.1, step: i + 1 };
      const shapes = inferred(addon, info, { ...state, g }, attributes);
      state = runReference(addon.call, info, { ...state, g }, attributes, shapes) as Inputs;
      rough = runKernel(addon.call, info, { ...rough, g }, attributes, shapes).outputs as Inputs;
    }
    near(Array.from(state.p?.data ?? []), TORCH_STEPS[name], 1e-12);
    near(Array.from(rough.p?.data ?? []), TORCH_STEPS[name], 1e-6);
  }
});

const map = (shape: number[], ...values: number[]): Values => ({ shape, data: Float64Array.from(values) });

test("max pooling: the first of equal elements takes the gradient, NaN wins, -inf is an element", () => {
  const x = map([1, 1, 2, 4], 1, 2, 2, 2, 2, 0, 2, 1);
  for (const layout of ["nchw", "nhwc"]) {
    const shape = (n: number) => (layout === "nchw" ? [1, 1, 2, n] : [1, 2, n, 1]);
    const attributes = { size: 2, stride: 1, layout };
    const dy = map(layout === "nchw" ? [1, 1, 1, 3] : [1, 1, 3, 1], 1, 10, 100);
    both("max_pool2d.backward", { x: { ...x, shape: shape(4) }, dy }, attributes, (out, tolerance) =>
      near(out.dx, [0, 11, 100, 0, 0, 0, 0, 0], tolerance),
    );
    const strange = { shape: shape(3), data: Float64Array.of(-Infinity, Number.NaN, 5, -Infinity, 3, 1) };
    const info = operator("max_pool2d");
    const low = { shape: shape(3), data: new Float64Array(6).fill(-Infinity) };
    for (const [inputs, expected] of [
      [{ x: strange }, [Number.NaN, Number.NaN]],
      [{ x: low }, [-Infinity, -Infinity]],
    ] as [Inputs, number[]][]) {
      const shapes = inferred(addon, info, inputs, attributes);
      for (const outputs of [
        runReference(addon.call, info, inputs, attributes, shapes),
        runKernel(addon.call, info, inputs, attributes, shapes).outputs,
      ])
        assert.equal(Array.from(outputs.y?.data ?? []), expected);
    }
  }
});

test("NaN reaches exactly the windows that hold it", () => {
  const nan = (shape: number[], at: number): Values => ({
    shape,
    data: Float64Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) =>
      i === at ? Number.NaN : 1,
    ),
  });
  for (const [name, inputs, attributes, expected] of [
    ["conv2d", { x: nan([1, 1, 3, 3], 0), W: nan([1, 1, 3, 3], -1) }, { pad: 1 }, [0, 1, 3, 4]],
    ["avg_pool2d", { x: nan([1, 1, 3, 3], 1) }, { size: 2, stride: 1 }, [0, 1]],
    ["lrn", { x: nan([1, 6, 1, 1], 0) }, { size: 3 }, [0, 1]],
  ] as [string, Inputs, Record<string, number>, number[]][]) {
    const info = operator(name);
    const { y } = runKernel(
      addon.call,
      info,
      inputs,
      attributes,
      inferred(addon, info, inputs, attributes),
    ).outputs;
    const found = Array.from(y?.data ?? []).flatMap((v, i) => (Number.isNaN(v) ? [i] : []));
    assert.equal(found, expected, name);
  }
});

test("LRN: NaN and squares beyond float32 reach exactly their windows, at every place of rows", () => {
  const info = operator("lrn");
  for (const layout of ["nhwc", "nchw"])
    for (const C of [5, 32, 40, 64, 96])
      for (const [rows, beta, alpha] of [
        [1, 0.75, 1e-4],
        [2, 0.5, 3],
        [3, 0.75, 0],
        [3, 0.6, 1],
      ] as const) {
        const shape = layout === "nhwc" ? [1, 1, rows, C] : [1, C, 1, rows];
        const base = normal(new Random(C, rows), shape);
        const shapes = { y: shape };
        const run = (data: Values["data"]) =>
          (
            runKernel(addon.call, info, { x: { shape, data } }, { layout, beta, alpha }, shapes).outputs
              .y as Values
          ).data;
        const before = run(base.data);
        for (let at = 0; at < C * rows; at++)
          for (const value of [Number.NaN, Math.fround(3e38), Math.fround(-2e19)]) {
            const after = run(base.data.with(at, value));
            const place = (i: number) =>
              layout === "nhwc" ? [Math.floor(i / C), i % C] : [i % rows, Math.floor(i / rows)];
            const [row, channel] = place(at) as [number, number];
            for (let i = 0; i < after.length; i++) {
              const [r, c] = place(i) as [number, number];
              const y = after[i] as number;
              const where = `${layout} C ${C} rows ${rows} beta ${beta} alpha ${alpha}: ${value} at ${at} gives ${y} at ${i}`;
              // Beside a large sum powers may be computed in another way: within twice the stated error.
              const same = Math.abs(y - (before[i] as number)) <= 1.26e-6 * Math.abs(before[i] as number);
              if (r !== row) assert.ok(Object.is(y, before[i]), where);
              else if (Math.abs(c - channel) > 2) assert.ok(same, where);
              else if (Number.isNaN(value)) assert.ok(Number.isNaN(y), where);
              else assert.ok(Number.isFinite(y) && (alpha > 0 || i === at || same), where);
            }
          }
      }
});

test("LRN: positions of a large map are what they are in small ones, bit for bit, forward and backward", () => {
  const random = new Random(7, "lrn rows");
  for (const [layout, C, positions] of [
    ["nhwc", 32, 2100],
    ["nhwc", 96, 1500],
    ["nhwc", 160, 700],
    ["nhwc", 40, 900],
    ["nhwc", 96, 21900], // tasks of large maps are larger
    ["nchw", 5, 2100],
    ["nchw", 33, 1111],
  ] as const) {
    const at = (c: number, p: number, of: number) => (layout === "nhwc" ? p * C + c : c * of + p);
    const values = (large: number) => {
      const data = new Float64Array(C * positions);
      // A position in eight has large sums.
      for (let p = 0; p < positions; p++)
        for (let c = 0; c < C; c++) data[at(c, p, positions)] = random.normal() * (p % 8 ? 3 : large);
      return data;
    };
    const x = values(40);
    const dy = values(1);
    const run = (from: number, to: number) => {
      const n = to - from;
      const shape = layout === "nhwc" ? [1, 1, n, C] : [1, C, 1, n];
      const part = (data: Float64Array) => {
        const own = new Float64Array(C * n);
        for (let p = 0; p < n; p++)
          for (let c = 0; c < C; c++) own[at(c, p, n)] = data[at(c, from + p, positions)] as number;
        return { shape, data: own };
      };
      const given = { x: part(x) };
      const forward = runKernel(addon.call, operator("lrn"), given, { layout }, { y: shape }).outputs.y;
      const both = { ...given, dy: part(dy) };
      const backward = runKernel(addon.call, operator("lrn.backward"), both, { layout }, { dx: shape })
        .outputs.dx;
      return { y: (forward as Values).data, dx: (backward as Values).data };
    };
    const whole = run(0, positions);
    const step = Math.max(100, Math.ceil(positions / 20));
    for (let from = 0; from < positions; from += step) {
      const to = Math.min(positions, from + step);
      const own = run(from, to);
      for (const name of ["y", "dx"] as const)
        for (let p = from; p < to; p++)
          for (let c = 0; c < C; c++) {
            const same = Object.is(own[name][at(c, p - from, to - from)], whole[name][at(c, p, positions)]);
            if (!same) assert.unreachable(`${name} of ${layout}, C ${C}, position ${p}, channel ${c}`);
          }
    }
  }
});

test("convolution, pooling and LRN: PyTorch 1.13's results", () => {
  // torch.nn.functional.conv2d(arange(9).reshape(1,1,3,3), [[1,2],[3,4]], [0.5], stride=2, padding=1)
  const nine = map([1, 1, 3, 3], 0, 1, 2, 3, 4, 5, 6, 7, 8);
  both(
    "conv2d",
    { x: nine, W: map([1, 1, 2, 2], 1, 2, 3, 4), b: vector(0.5) },
    { stride: 2, pad: 1 },
    (out, tolerance) => near(out.y, [0.5, 11.5, 30.5, 67.5], tolerance),
  );
  both("avg_pool2d", { x: nine }, { size: 2, stride: 1 }, (out, tolerance) =>
    near(out.y, [2, 3, 5, 6], tolerance),
  );
  // torch.nn.functional.local_response_norm([1,2,3,4], 3, alpha=0.3, beta=0.75, k=2)
  both(
    "lrn",
    { x: map([1, 4, 1, 1], 1, 2, 3, 4) },
    { size: 3, alpha: 0.3, alphaOverN: true },
    (out, tolerance) =>
      near(out.y, [0.502973371873, 0.798768275716, 0.910907325544, 1.294644724553], tolerance),
  );
});

test.run();
