// `precision` tf32 where a device rounds: products large enough for the tiles of 128 x 128, and afg's scores. The model rounds
// all operands, so that a forward within float32's bounds shows both: that they were rounded, and nothing else was.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { Random } from "../../lib/data/random.ts";
import { tf32 } from "../operators/model.ts";
import { type Inputs, integers, normal as anyNormal, sameBits, type Values } from "../operators/run.ts";
import { addon, checkRun, operator, type Run, runsOf } from "../operators/suite.ts";
import { check } from "./agree.ts";
import { device, deviceCall, ensureDevice } from "./device.ts";

ensureDevice();
const random = new Random(23, "cuda/tf32");
const precision = "tf32";
/** Left out where the GPU suite is tried on the emulator: these run here anyway. */
const longer = device === "emulated" && process.env.AFFUSE_TEST_MOST !== undefined ? test.skip : test;

/**
 * On a GPU, which has so many multiprocessors that products of these sizes may be exact, numbers that tf32 holds: then a
 * forward has float32's bounds either way.
 */
function normal(random: Random, shape: number[], sd = 1): Values {
  const values = anyNormal(random, shape, sd);
  return device === "emulated" ? values : { shape, data: Float64Array.from(values.data, tf32) };
}

/** Sizes at multiples of 16 bytes, and odd ones. */
const LINEAR = [
  [140, 36, 132],
  [141, 35, 133],
] as const;

test("linear", () => {
  for (const [R, D, O] of LINEAR) {
    const inputs = { x: normal(random, [R, D]), W: normal(random, [O, D], 1 / Math.sqrt(D)), b: normal(random, [O]) };
    check("linear", inputs, { precision, activation: R % 2 ? "none" : "tanh" }, Math.max(R, D, O));
  }
});

test("operands that are not rounded would show", () => {
  const [R, D, O] = LINEAR[0];
  const inputs = { x: anyNormal(random, [R, D]), W: anyNormal(random, [O, D], 0.2), b: anyNormal(random, [O]) };
  const c = { label: "not rounded", inputs, attributes: { precision }, terms: D };
  const [run] = runsOf(addon.call, operator("linear"), c);
  assert.match(checkRun(addon.call, run as Run).join("\n"), /linear \(not rounded\): y/);
});

longer("fbp of two products", () => {
  for (const [B, m, n, o, rowsPerGroup] of [
    [140, 20, 36, 12, 1],
    [136, 19, 35, 13, 2],
  ] as const) {
    const k = 11; // more than fused kernels have
    const inputs = {
      a: normal(random, [B / rowsPerGroup, m]),
      v: normal(random, [B, n]),
      U: normal(random, [o * k, m], 1 / Math.sqrt(m)),
      V: normal(random, [o * k, n], 1 / Math.sqrt(n)),
    };
    check("fbp", inputs, { precision, k, rowsPerGroup, normalize: "none" }, Math.max(B, n, o * k));
  }
});

longer("afg: scores of any size, weights and frames of large ones", () => {
  for (const [B, T, D, A] of [
    [2, 20, 24, 12],
    [2, 37, 20, 70],
    [1, 40, 20, 129],
    [1, 131, 68, 12],
    [2, 20, 132, 66],
  ] as const) {
    const inputs: Inputs = {
      x: normal(random, [B, T, D]),
      lengths: integers([B], (b) => T - 3 * b),
      W: normal(random, [A, D], 1 / Math.sqrt(D)),
      b: normal(random, [A]),
      u: normal(random, [A], 0.3),
    };
    const beyond = (name: string, i: number) => name === "x" && Math.floor(i / D) % T >= T - 3 * Math.floor(i / D / T);
    check("afg", inputs, { precision }, Math.max(D, A, B * T), beyond);
  }
});

longer("conv2d", () => {
  for (const [[B, C, H, W], O, layout] of [
    [[1, 20, 10, 14], 132, "nhwc"],
    [[1, 17, 9, 13], 66, "nchw"],
  ] as const) {
    const shape = layout === "nhwc" ? [B, H, W, C] : [B, C, H, W];
    const inputs = { x: normal(random, shape), W: normal(random, [O, C, 2, 2], 0.5 / Math.sqrt(C)), b: normal(random, [O]) };
    check("conv2d", inputs, { precision, layout, stride: 1, pad: 1 }, Math.max(4 * C, B * H * W));
  }
});

longer("the bits do not depend on the order of blocks and threads, nor on the run", () => {
  if (device !== "emulated") console.log("skipped: the order, the emulator only");
  const [R, D, O] = LINEAR[1];
  const f32 = (shape: number[]) => ({ dtype: "f32" as const, shape, data: Float32Array.from(normal(random, shape).data) });
  const [x, W, dy] = [f32([R, D]), f32([O, D]), f32([R, O])];
  const made = ["0", "1", "29"].map((seed) => {
    process.env.AFFUSE_EMULATOR_SEED = seed;
    return [
      ...deviceCall("cpu", "linear", [x, W, null], { precision }, [true, false]),
      ...deviceCall("cpu", "linear.backward", [x, W, null, null, null, dy], { precision }, [true, true, false]),
    ].flatMap((out) => (out ? [out.data] : []));
  });
  process.env.AFFUSE_EMULATOR_SEED = "0";
  assert.is(made[0]?.length, 3);
  for (const other of made.slice(1))
    for (const [i, data] of other.entries())
      assert.ok(sameBits(data, made[0]?.[i] as Float32Array), `output ${i}`);
});

test("the CPU computes it as float32", () => {
  const x = { dtype: "f32" as const, shape: [1, 1], data: Float32Array.of(1 + 2 ** -20) };
  const one = { ...x, data: Float32Array.of(1) };
  const made = addon.call("cpu", "linear", [x, one, null], { precision }, [true, false])[0]?.data[0];
  assert.is(made, 1 + 2 ** -20);
});

test.run();
