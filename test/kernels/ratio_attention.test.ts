// Properties of ratio attention (spec 1.1) that hold whatever the numbers are, on the kernel and on the reference.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { Random } from "../../lib/data/random.ts";
import { type Inputs, integers, normal, sameBits, tensor, type Values } from "../operators/run.ts";
import { DEVICES, distance, padded, part, reordered, run } from "./gather.ts";

const TOLERANCE = 2e-5; // of the largest value: sums in another order
const SIZES = [
  { B: 3, T: 4, D: 3 },
  { B: 4, T: 17, D: 16 },
  { B: 3, T: 70, D: 131 },
];

function lengthsOf(random: Random, B: number, T: number): number[] {
  return Array.from({ length: B }, (_, b) =>
    b === 0 ? T : b === 1 ? 0 : b === 2 ? 1 : random.integer(T + 1),
  );
}

function gate(random: Random, D: number): Inputs {
  return { q: normal(random, [D], 1 / Math.sqrt(D)), beta: normal(random, [1]) };
}

for (const device of DEVICES) {
  for (const { B, T, D } of SIZES) {
    const label = `${device}, B ${B} T ${T} D ${D}`;

    test(`${label}: padding does not change a bit, whatever it holds`, () => {
      const lengths = lengthsOf(new Random(1), B, T);
      const make = (junk: number) => {
        const random = new Random(7);
        const x = padded(random, B, T, D, lengths, junk);
        const inputs: Inputs = { x, lengths: integers([B], (b) => lengths[b] as number), ...gate(random, D) };
        const given = { dc: normal(random, [B, D]), dalpha: normal(random, [B, T]) };
        return {
          ...run("ratio_attention", inputs, {}, { device }),
          ...run("ratio_attention.backward", { ...inputs, ...given }, {}, { device }),
        };
      };
      const zeros = make(0);
      for (const junk of [Number.NaN, Number.NEGATIVE_INFINITY]) {
        const other = make(junk);
        for (const [name, values] of Object.entries(zeros))
          assert.ok(
            sameBits((other[name] as Values).data, values.data),
            `${name} depends on ${junk} in the padding`,
          );
      }
      const [alpha, dx, c] = [zeros.alpha as Values, zeros.dx as Values, zeros.c as Values];
      for (let b = 0; b < B; b++)
        for (let t = lengths[b] as number; t < T; t++) {
          assert.is(alpha.data[b * T + t], 0, "alpha of padding");
          for (let d = 0; d < D; d++) assert.is(dx.data[(b * T + t) * D + d], 0, "dx of padding");
        }
      assert.ok(
        c.data.subarray(D, 2 * D).every((v) => v === 0),
        "c of an empty sample",
      );
    });

    test(`${label}: alpha is the gate, c the mean that it weights, and frames may change places`, () => {
      const random = new Random(13);
      const inputs: Inputs = { x: normal(random, [B, T, D]), ...gate(random, D) };
      const { c, alpha } = run("ratio_attention", inputs, {}, { device }) as { c: Values; alpha: Values };
      const [x, q] = [inputs.x as Values, inputs.q as Values];
      const expected = tensor([B, D], () => 0);
      for (let b = 0; b < B; b++) {
        let total = 0;
        for (let t = 0; t < T; t++) {
          let z = (inputs.beta as Values).data[0] as number;
          for (let d = 0; d < D; d++) z += (q.data[d] as number) * (x.data[(b * T + t) * D + d] as number);
          const gated = alpha.data[b * T + t] as number;
          assert.ok(Math.abs(gated - 1 / (1 + Math.exp(-z))) < 1e-5, "the gate is σ(q·x + β)");
          total += gated;
          for (let d = 0; d < D; d++)
            (expected.data[b * D + d] as number) += gated * (x.data[(b * T + t) * D + d] as number);
        }
        for (let d = 0; d < D; d++) (expected.data[b * D + d] as number) /= total;
      }
      assert.ok(distance(c, expected) < TOLERANCE, "Σ α x / Σ α");
      const order = random.permutation(T);
      const turned = run("ratio_attention", { ...inputs, x: reordered(x, order) }, {}, { device });
      assert.ok(distance(turned.c as Values, c) < TOLERANCE, "permutation");
    });

    test(`${label}: a mask is the same as leaving the frames out`, () => {
      const random = new Random(17);
      const inputs: Inputs = { x: normal(random, [B, T, D]), ...gate(random, D) };
      const kept = Array.from({ length: T }, (_, t) => t).filter((t) => t % 3 !== 1);
      const mask = integers([B, T], (i) => ((i % T) % 3 !== 1 ? 1 : 0));
      const left = reordered(inputs.x as Values, [
        ...kept,
        ...Array.from({ length: T - kept.length }, () => 0),
      ]);
      const masked = run("ratio_attention", { ...inputs, mask }, {}, { device });
      const shorter = run("ratio_attention", { ...inputs, x: part(left, 0, kept.length) }, {}, { device });
      assert.ok(distance(masked.c as Values, shorter.c as Values) < TOLERANCE);
    });
  }

  test(`${device}: gates that all underflow still give the weighted mean, and finite gradients`, () => {
    const T = 40;
    // z_t = -500 - t: every σ is 0 in float32; the ratio of neighbours is e, so c is the softmax of -t.
    const inputs: Inputs = {
      x: tensor([1, T, 2], (i) => (i % 2 === 0 ? Math.floor(i / 2) : 1)),
      q: tensor([2], (i) => (i === 0 ? -1 : -500)),
      beta: tensor([1], () => 0),
    };
    const { c, alpha } = run("ratio_attention", inputs, {}, { device }) as { c: Values; alpha: Values };
    let top = 0;
    let total = 0;
    for (let t = 0; t < T; t++) {
      top += t * Math.exp(-t);
      total += Math.exp(-t);
    }
    assert.ok(
      Math.abs((c.data[0] as number) - top / total) < 1e-5,
      `c is ${c.data[0]}, expected ${top / total}`,
    );
    assert.ok(Math.abs((c.data[1] as number) - 1) < 1e-6);
    assert.ok(alpha.data.every((a) => a >= 0 && a < 1e-200));
    const back = run(
      "ratio_attention.backward",
      { ...inputs, dc: tensor([1, 2], () => 1), dalpha: tensor([1, T], () => 1) },
      {},
      { device },
    );
    for (const [name, values] of Object.entries(back)) assert.ok(values.data.every(Number.isFinite), name);
  });

  test(`${device}: an open gate gives the mean`, () => {
    const random = new Random(43);
    const x = normal(random, [2, 30, 5]);
    const inputs: Inputs = { x, q: tensor([5], () => 0), beta: tensor([1], () => 100) };
    const { c, alpha } = run("ratio_attention", inputs, {}, { device }) as { c: Values; alpha: Values };
    assert.ok(alpha.data.every((a) => a === 1));
    const mean = tensor([2, 5], (i) => {
      let sum = 0;
      for (let t = 0; t < 30; t++) sum += x.data[(Math.floor(i / 5) * 30 + t) * 5 + (i % 5)] as number;
      return sum / 30;
    });
    assert.ok(distance(c, mean) < TOLERANCE);
  });
}

test.run();
