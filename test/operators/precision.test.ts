/**
 * The attribute `precision`: bf16 is the float32 kernel on operands that were rounded beforehand, bit for bit
 * where pairs are expanded to float32, within the parity bounds (test/operators/suite.ts) everywhere.
 */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { Random } from "../../lib/data/random.ts";
import type { Attributes, HostTensor } from "../../lib/native/addon.ts";
import { bf16 } from "./model.ts";
import { addon } from "./suite.ts";

const random = new Random(3, "precision");
const normal = (n: number) => Float32Array.from({ length: n }, () => random.normal());
const whole = (n: number) => Float32Array.from({ length: n }, () => random.integer(17) - 8);
const tensor = (shape: number[], data: Float32Array): HostTensor => ({ dtype: "f32", shape, data });

function run(op: string, inputs: (HostTensor | null)[], attributes: Attributes, want: boolean[]) {
  return addon
    .call("cpu", op, inputs, attributes, want)
    .map((out) => (out ? (out.data as Float32Array) : null))
    .filter((data) => data !== null);
}

const rounded = (x: HostTensor | null): HostTensor | null =>
  x && tensor([...x.shape], (x.data as Float32Array).map(bf16));

function same(got: readonly Float32Array[], wanted: readonly Float32Array[], label: string) {
  got.forEach((data, k) => {
    const other = wanted[k] as Float32Array;
    const at = data.findIndex((x, i) => !Object.is(x, other[i]));
    assert.is(at, -1, `${label}, output ${k}: element ${at} is ${data[at]}, expected ${other[at]}`);
  });
}

// vdpbf16ps adds the products of a pair in an order of its own.
const expands = addon.cpu().isa !== "avx512bf16";

const LINEAR = [
  [1, 1, 1],
  [3, 5, 7],
  [17, 33, 65],
  [1, 1501, 9],
  [70, 301, 200],
  [100, 2049, 64],
  [400, 77, 50],
] as const;

function linear(values: (n: number) => Float32Array, check: (f32: boolean) => boolean) {
  for (const [R, D, O] of LINEAR) {
    const inputs = [tensor([R, D], values(R * D)), tensor([O, D], values(O * D))];
    const dy = tensor([R, O], values(R * O));
    const forward = (round: boolean, precision: string) =>
      run("linear", [...(round ? inputs.map(rounded) : inputs), null], { precision }, [true]);
    const backward = (round: boolean, precision: string) => {
      const all = [...inputs, null, null, null, dy];
      return run("linear.backward", round ? all.map(rounded) : all, { precision }, [true, true]);
    };
    for (const compute of [forward, backward])
      same(compute(false, "bf16"), compute(check(true), "f32"), `${R} x ${D} to ${O}`);
  }
}

if (expands) test("linear and its gradients: float32 on rounded operands, bit for bit", () => linear(normal, () => true));
else test.skip("linear: float32 on rounded operands (this level multiplies pairs)", () => {});

test("linear and its gradients: whole numbers are exact, whatever multiplies", () => linear(whole, () => false));

const FBP = [
  [1, 1, 1, 1, 1, 1],
  [3, 5, 7, 4, 2, 1],
  [66, 131, 101, 40, 4, 1],
  [200, 129, 65, 64, 5, 1],
  [120, 33, 257, 17, 3, 60],
  [6, 1501, 77, 9, 8, 2],
  [400, 31, 33, 20, 2, 200],
] as const;

function fbp(values: (n: number) => Float32Array, round: boolean) {
  for (const [B, m, n, o, k, rowsPerGroup] of FBP) {
    const P = o * k;
    const shapes = [
      [B / rowsPerGroup, m],
      [B, n],
      [P, m],
      [P, n],
    ];
    const inputs = shapes.map((shape) => tensor(shape, values((shape[0] as number) * (shape[1] as number))));
    const compute = (given: (HostTensor | null)[], precision: string) =>
      run("fbp", [...given, null, null], { k, rowsPerGroup, precision }, [true, true]);
    const label = `B ${B} m ${m} n ${n} o ${o} k ${k} groups of ${rowsPerGroup}`;
    same(compute(inputs, "bf16"), compute(round ? inputs.map(rounded) : inputs, "f32"), label);
  }
}

if (expands) test("fbp: float32 on rounded operands, bit for bit", () => fbp(normal, true));
else test.skip("fbp: float32 on rounded operands (this level multiplies pairs)", () => {});

test("fbp: whole numbers are exact, whatever multiplies", () => fbp(whole, false));

const CONV = [
  [1, 1, 1, 1, 1, 1, 1, 1, 0],
  [2, 3, 5, 7, 5, 3, 3, 1, 1],
  [1, 17, 9, 12, 33, 3, 3, 2, 1],
  [2, 33, 11, 13, 40, 5, 5, 1, 2],
  [1, 129, 6, 8, 64, 3, 3, 1, 1],
  [3, 9, 4, 301, 17, 5, 3, 1, 3], // positions in several pieces, rows of the kernel beside the map
] as const;

// db is summed from gradients as they are, so it is not compared.
function conv2d(values: (n: number) => Float32Array, round: boolean) {
  for (const [B, C, H, W, O, kh, kw, stride, pad] of CONV) {
    const size = (n: number, k: number) => Math.floor((n + 2 * pad - k) / stride) + 1;
    const shape = [B, O, size(H, kh), size(W, kw)];
    const inputs = [
      tensor([B, C, H, W], values(B * C * H * W)),
      tensor([O, C, kh, kw], values(O * C * kh * kw)),
      null,
      null,
      null,
      tensor(shape, values(shape.reduce((a, b) => a * b, 1))),
    ];
    const label = `[${[B, C, H, W]}] to ${O} by ${kh}x${kw}`;
    const given = round ? inputs.map(rounded) : inputs;
    for (const [op, count, want] of [
      ["conv2d", 4, [true, false]],
      ["conv2d.backward", 6, [true, true, false]],
    ] as const) {
      const compute = (from: (HostTensor | null)[], precision: string) =>
        run(op, from.slice(0, count), { stride, pad, precision }, [...want]);
      same(compute(inputs, "bf16"), compute(given, "f32"), `${op} ${label}`);
    }
  }
}

if (expands)
  test("conv2d and its gradients: float32 on rounded operands, bit for bit", () => conv2d(normal, true));
else test.skip("conv2d: float32 on rounded operands (this level multiplies pairs)", () => {});

test("conv2d and its gradients: whole numbers are exact, whatever multiplies", () => conv2d(whole, false));

const AFG = [
  [1, 1, 1, 1],
  [2, 9, 5, 7],
  [1, 40, 1301, 33],
  [3, 70, 65, 40],
] as const;

// The keys and, with exact keys, all that follows from them: the weighted sum takes x as it is.
function afg(values: (n: number) => Float32Array, round: boolean) {
  for (const [B, T, D, A] of AFG) {
    const u = tensor([A], normal(A));
    const inputs = [
      tensor([B, T, D], values(B * T * D)),
      null,
      tensor([A, D], values(A * D).map((w) => w / 64)),
    ];
    const compute = (from: (HostTensor | null)[], precision: string, want: boolean[]) =>
      run("afg", [...from, tensor([A], new Float32Array(A)), u, null, null], { precision }, want);
    const want = round ? [false, true, true] : [true, true, true];
    const given = round ? inputs.map(rounded) : inputs;
    same(compute(inputs, "bf16", want), compute(given, "f32", want), `B ${B} T ${T} D ${D} A ${A}`);
  }
}

if (expands) test("afg: keys and weights of float32 on rounded operands, bit for bit", () => afg(normal, true));
else test.skip("afg: float32 on rounded operands (this level multiplies pairs)", () => {});

test("afg: whole numbers are exact, whatever multiplies", () => afg(whole, false));

test("afg: the weighted sum takes x as it is", () => {
  const x = tensor([1, 1, 3], Float32Array.of(1 + 2 ** -12, -1 / 3, 1e-3));
  const W = tensor([1, 3], Float32Array.of(1, 1, 1));
  const one = tensor([1], Float32Array.of(1));
  const [c] = run("afg", [x, null, W, one, one, null, null], { precision: "bf16" }, [true, false, false]);
  assert.equal([...(c ?? [])], [...(x.data as Float32Array)]);
});

test("bf16 is not float32 under another name", () => {
  const inputs = [tensor([4, 64], normal(256)), tensor([3, 64], normal(192)), null];
  const [a] = run("linear", inputs, { precision: "bf16" }, [true]);
  const [b] = run("linear", inputs, { precision: "f32" }, [true]);
  assert.ok(a?.some((x, i) => x !== b?.[i]));
});

test("rounding: ties to even, NaN stays NaN, overflow to infinity as IEEE has it", () => {
  const one = Float32Array.of(1);
  for (const [x, y] of [
    [1 + 2 ** -8, 1], // halfway: to the even one below
    [1 + 3 * 2 ** -8, 1 + 2 ** -6], // halfway: to the even one above
    [1 + 2 ** -8 + 2 ** -20, 1 + 2 ** -7],
    [-1 - 3 * 2 ** -8, -1 - 2 ** -6],
    [3.3895313892515355e38, 3.3895313892515355e38], // the largest bf16
    [3.4028234663852886e38, Number.POSITIVE_INFINITY],
    [-3.4028234663852886e38, Number.NEGATIVE_INFINITY],
    [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY],
    [Number.NaN, Number.NaN],
  ] as const) {
    const got = run("linear", [tensor([1, 1], Float32Array.of(x)), tensor([1, 1], one), null], { precision: "bf16" }, [
      true,
    ])[0]?.[0];
    assert.ok(Object.is(got, Math.fround(y)), `bf16(${x}): expected ${y}, got ${got}`);
    const weight = run("linear", [tensor([1, 1], one), tensor([1, 1], Float32Array.of(x)), null], { precision: "bf16" }, [
      true,
    ])[0]?.[0];
    assert.ok(Object.is(weight, Math.fround(y)), `bf16(${x}) as a weight: expected ${y}, got ${weight}`);
  }
});

test("a NaN whose payload lies in the lower half stays NaN, in either operand and within products", () => {
  const hidden = new Float32Array(Uint32Array.of(0x7f800001, 0xff800001).buffer);
  const two = tensor([1, 2], Float32Array.of(1, 2));
  for (const at of [0, 1]) {
    const odd = tensor([1, 2], Float32Array.of(3, 4));
    (odd.data as Float32Array).set(hidden.subarray(at, at + 1), at);
    for (const inputs of [
      [odd, two, null],
      [two, odd, null],
    ])
      assert.ok(Number.isNaN(run("linear", inputs, { precision: "bf16" }, [true])[0]?.[0]));
  }
});

test("an unknown precision is refused", () => {
  const inputs = [tensor([1, 1], Float32Array.of(1)), tensor([1, 1], Float32Array.of(1)), null];
  assert.throws(() => run("linear", inputs, { precision: "fp8" }, [true]), /f32.*bf16|ERR_AFFUSE_ATTRIBUTE/);
});

test.run();
