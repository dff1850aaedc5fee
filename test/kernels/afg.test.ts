// Properties of AFG (spec 1.1) that hold whatever the numbers are, on the kernel and on the reference.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { Random } from "../../lib/data/random.ts";
import { type Inputs, integers, normal, sameBits, tensor, type Values } from "../operators/run.ts";
import { DEVICES, distance, padded, part, reordered, run } from "./gather.ts";

const TOLERANCE = 2e-5; // of the largest value: sums in another order

interface Size {
  B: number;
  T: number;
  D: number;
  A: number;
  J: number; // 0: a learned query
}

const SIZES: Size[] = [
  { B: 3, T: 5, D: 4, A: 3, J: 0 },
  { B: 4, T: 33, D: 17, A: 15, J: 1 },
  { B: 3, T: 100, D: 65, A: 48, J: 3 },
  { B: 2, T: 200, D: 64, A: 33, J: 0 }, // a sample longer than one block of rows
];

/** Lengths with a full, an empty and a one-frame sample among them. */
function lengthsOf(random: Random, B: number, T: number): number[] {
  return Array.from({ length: B }, (_, b) =>
    b === 0 ? T : b === 1 ? 0 : b === 2 ? 1 : random.integer(T + 1),
  );
}

function weights(random: Random, { B, D, A, J }: Size): Inputs {
  const inputs: Inputs = { W: normal(random, [A, D], 1 / Math.sqrt(D)), b: normal(random, [A], 0.2) };
  if (J === 0) inputs.u = normal(random, [A]);
  else inputs.q = normal(random, [B, J, A]);
  return inputs;
}

function gradients(random: Random, { B, T, D, J }: Size): Inputs {
  const queries = Math.max(1, J);
  return { dc: normal(random, [B, queries, D]), dalpha: normal(random, [B, queries, T]) };
}

const label = (s: Size) => `B ${s.B} T ${s.T} D ${s.D} A ${s.A} J ${s.J || "learned"}`;

for (const device of DEVICES) {
  for (const size of SIZES) {
    const { B, T, D, J } = size;
    const queries = Math.max(1, J);

    test(`${device}, ${label(size)}: padding does not change a bit, whatever it holds`, () => {
      const lengths = lengthsOf(new Random(1), B, T);
      const make = (junk: number) => {
        const random = new Random(7);
        const x = padded(random, B, T, D, lengths, junk);
        const inputs: Inputs = {
          x,
          lengths: integers([B], (b) => lengths[b] as number),
          ...weights(random, size),
        };
        const forward = run("afg", inputs, {}, { device });
        const backward = run("afg.backward", { ...inputs, ...gradients(random, size) }, {}, { device });
        return { ...forward, ...backward };
      };
      const zeros = make(0);
      for (const junk of [Number.NaN, Number.POSITIVE_INFINITY, 3e38]) {
        const other = make(junk);
        for (const [name, values] of Object.entries(zeros))
          assert.ok(
            sameBits((other[name] as Values).data, values.data),
            `${name} depends on ${junk} in the padding`,
          );
      }
      const dx = zeros.dx as Values;
      const alpha = zeros.alpha as Values;
      for (let b = 0; b < B; b++)
        for (let t = lengths[b] as number; t < T; t++) {
          for (let d = 0; d < D; d++)
            assert.is(dx.data[(b * T + t) * D + d], 0, `dx of padding, sample ${b} frame ${t}`);
          for (let j = 0; j < queries; j++)
            assert.is(alpha.data[(b * queries + j) * T + t], 0, "alpha of padding");
        }
    });

    test(`${device}, ${label(size)}: the weights of a sample sum to 1, and an empty sample gives zeros`, () => {
      const random = new Random(11);
      const lengths = lengthsOf(random, B, T);
      const x = padded(random, B, T, D, lengths, Number.NaN);
      const inputs: Inputs = {
        x,
        lengths: integers([B], (b) => lengths[b] as number),
        ...weights(random, size),
      };
      for (const masked of [true, false]) {
        const { c, alpha } = run("afg", inputs, { masked }, { device }) as { c: Values; alpha: Values };
        const backward = run(
          "afg.backward",
          { ...inputs, ...gradients(random, size) },
          { masked },
          { device },
        );
        for (let b = 0; b < B; b++) {
          for (let j = 0; j < queries; j++) {
            const from = (b * queries + j) * T;
            let total = 0;
            for (let t = 0; t < T; t++) total += alpha.data[from + t] as number;
            const expected = lengths[b] === 0 ? 0 : 1;
            assert.ok(
              Math.abs(total - expected) < 1e-5,
              `masked ${masked}, sample ${b}: weights sum to ${total}`,
            );
          }
          if (lengths[b] !== 0) continue;
          const empty = (values: Values) =>
            part({ shape: [1, ...values.shape], data: values.data }, b, 1).data;
          assert.ok(
            empty(c).every((v) => v === 0),
            "c of an empty sample",
          );
          assert.ok(
            empty(backward.dx as Values).every((v) => v === 0),
            "dx of an empty sample",
          );
          if (J > 0)
            assert.ok(
              empty(backward.dq as Values).every((v) => v === 0),
              "dq of an empty sample",
            );
        }
        for (const [name, values] of Object.entries(backward))
          assert.ok(values.data.every(Number.isFinite), `masked ${masked}: ${name} is finite`);
      }
    });

    test(`${device}, ${label(size)}: the order of the frames does not matter`, () => {
      const random = new Random(13);
      const inputs: Inputs = { x: normal(random, [B, T, D]), ...weights(random, size) };
      const order = random.permutation(T);
      const given = gradients(random, size);
      const straight = run("afg", inputs, {}, { device });
      const turned = run("afg", { ...inputs, x: reordered(inputs.x as Values, order) }, {}, { device });
      assert.ok(distance(turned.c as Values, straight.c as Values) < TOLERANCE, "c");
      const back = run("afg.backward", { ...inputs, dc: given.dc as Values }, {}, { device });
      const turnedBack = run(
        "afg.backward",
        { ...inputs, x: reordered(inputs.x as Values, order), dc: given.dc as Values },
        {},
        { device },
      );
      assert.ok(
        distance(turnedBack.dx as Values, reordered(back.dx as Values, order)) < TOLERANCE,
        "dx turns along",
      );
      assert.ok(distance(turnedBack.dW as Values, back.dW as Values) < TOLERANCE * 10, "dW stays");
    });

    test(`${device}, ${label(size)}: a mask is the same as leaving the frames out`, () => {
      const random = new Random(17);
      const inputs: Inputs = { x: normal(random, [B, T, D]), ...weights(random, size) };
      const kept = Array.from({ length: T }, (_, t) => t).filter((t) => t % 3 !== 1);
      const mask = integers([B, T], (i) => ((i % T) % 3 !== 1 ? 1 : 0));
      const left = reordered(inputs.x as Values, [
        ...kept,
        ...Array.from({ length: T - kept.length }, () => 0),
      ]);
      const masked = run("afg", { ...inputs, mask }, {}, { device });
      const shorter = run("afg", { ...inputs, x: part(left, 0, kept.length) }, {}, { device });
      assert.ok(distance(masked.c as Values, shorter.c as Values) < TOLERANCE, "c");
      const cut = run(
        "afg",
        { ...inputs, x: left, lengths: integers([B], () => kept.length) },
        {},
        { device },
      );
      assert.ok(distance(cut.c as Values, shorter.c as Values) < TOLERANCE, "lengths do the same");
    });

    test(`${device}, ${label(size)}: unmasked equals masked over frames filled with zeros`, () => {
      const random = new Random(19);
      const lengths = lengthsOf(random, B, T).map((n) => Math.max(n, 1)); // an empty sample is 0 by definition in both
      const common = weights(random, size);
      const x = padded(random, B, T, D, lengths, 0);
      const given = gradients(random, size);
      const counted = { x, lengths: integers([B], (b) => lengths[b] as number), ...common };
      const whole = { x, ...common };
      const compat = run("afg", counted, { masked: false }, { device, want: ["c", "alpha"] });
      const zeros = run("afg", whole, {}, { device, want: ["c", "alpha"] });
      for (const name of ["c", "alpha"])
        assert.ok(distance(compat[name] as Values, zeros[name] as Values) < TOLERANCE, name);
      const want = ["dW", "db", J === 0 ? "du" : "dq"];
      const compatBack = run("afg.backward", { ...counted, ...given }, { masked: false }, { device, want });
      const zerosBack = run("afg.backward", { ...whole, ...given }, {}, { device, want });
      for (const name of want)
        assert.ok(distance(compatBack[name] as Values, zerosBack[name] as Values) < TOLERANCE * 10, name);
    });
  }

  test(`${device}: J glimpses equal J separate calls`, () => {
    const random = new Random(23);
    const size = { B: 3, T: 70, D: 33, A: 20, J: 4 };
    const { B, T, D, A, J } = size;
    const lengths = integers([B], (b) => [70, 0, 41][b] as number);
    const inputs: Inputs = { x: normal(random, [B, T, D]), lengths, ...weights(random, size) };
    const given = gradients(random, size);
    const together = run("afg", inputs, {}, { device });
    const back = run("afg.backward", { ...inputs, ...given }, {}, { device });
    const dW = tensor([A, D], () => 0);
    const dx = tensor([B, T, D], () => 0);
    for (let j = 0; j < J; j++) {
      const one = { ...inputs, q: part(inputs.q as Values, j, 1) };
      const single = run("afg", one, {}, { device });
      assert.ok(
        sameBits((single.c as Values).data, part(together.c as Values, j, 1).data),
        `c of glimpse ${j}`,
      );
      assert.ok(
        sameBits((single.alpha as Values).data, part(together.alpha as Values, j, 1).data),
        `alpha of glimpse ${j}`,
      );
      const gradient = { dc: part(given.dc as Values, j, 1), dalpha: part(given.dalpha as Values, j, 1) };
      const singleBack = run("afg.backward", { ...one, ...gradient }, {}, { device });
      assert.ok(
        distance(singleBack.dq as Values, part(back.dq as Values, j, 1)) < TOLERANCE,
        `dq of glimpse ${j}`,
      );
      dW.data.forEach((v, i) => {
        dW.data[i] = v + ((singleBack.dW as Values).data[i] as number);
      });
      dx.data.forEach((v, i) => {
        dx.data[i] = v + ((singleBack.dx as Values).data[i] as number);
      });
    }
    assert.ok(distance(dW, back.dW as Values) < TOLERANCE * 10, "dW adds up");
    assert.ok(distance(dx, back.dx as Values) < TOLERANCE * 10, "dx adds up");
  });

  test(`${device}: the learned query is one query given to every sample`, () => {
    const random = new Random(29);
    const size = { B: 5, T: 40, D: 30, A: 18, J: 0 };
    const { B, A } = size;
    const inputs: Inputs = { x: normal(random, [B, 40, 30]), ...weights(random, size) };
    const { u, ...rest } = inputs;
    const given = gradients(random, size);
    const asQuery = { ...rest, q: tensor([B, 1, A], (i) => (u as Values).data[i % A] as number) };
    const learned = run("afg", inputs, {}, { device });
    const perSample = run("afg", asQuery, {}, { device });
    for (const name of ["c", "alpha", "k"])
      assert.ok(sameBits((perSample[name] as Values).data, (learned[name] as Values).data), name);
    const learnedBack = run("afg.backward", { ...inputs, ...given }, {}, { device });
    const perSampleBack = run("afg.backward", { ...asQuery, ...given }, {}, { device });
    for (const name of ["dx", "dW", "db"])
      assert.ok(sameBits((perSampleBack[name] as Values).data, (learnedBack[name] as Values).data), name);
    const du = tensor([A], (a) => {
      let total = 0;
      for (let b = 0; b < B; b++) total += (perSampleBack.dq as Values).data[b * A + a] as number;
      return total;
    });
    assert.ok(distance(learnedBack.du as Values, du) < TOLERANCE, "du is the sum of dq over samples");
    assert.not("dq" in learnedBack, "no dq without q");
    assert.not("du" in perSampleBack, "no du without u");
  });

  test(`${device}: saved outputs spare work and change nothing beyond rounding`, () => {
    const random = new Random(31);
    const size = { B: 3, T: 90, D: 50, A: 40, J: 2 };
    const lengths = integers([3], (b) => [90, 17, 0][b] as number);
    for (const masked of [true, false]) {
      const inputs: Inputs = { x: normal(random, [3, 90, 50]), lengths, ...weights(random, size) };
      const given = gradients(random, size);
      const { c, alpha, k } = run("afg", inputs, { masked }, { device }) as {
        c: Values;
        alpha: Values;
        k: Values;
      };
      const again = run("afg.backward", { ...inputs, ...given }, { masked }, { device });
      for (const saved of [{ alpha }, { k }, { c, alpha, k }] as Inputs[]) {
        const spared = run("afg.backward", { ...inputs, ...saved, ...given }, { masked }, { device });
        for (const [name, values] of Object.entries(again))
          assert.ok(
            distance(spared[name] as Values, values) < TOLERANCE,
            `${name} with ${Object.keys(saved)} saved`,
          );
      }
    }
  });
}

test("large scores neither overflow nor lose the largest frame", () => {
  const T = 100;
  const inputs: Inputs = {
    x: tensor([1, T, 2], (i) => (i % 2 === 0 ? (Math.floor(i / 2) === 90 ? 1 : -1) : Math.floor(i / 2))),
    W: tensor([1, 2], (i) => (i === 0 ? 50 : 0)),
    b: tensor([1], () => 0),
    u: tensor([1], () => 1e30),
  };
  const { c, alpha } = run("afg", inputs) as { c: Values; alpha: Values };
  assert.is(alpha.data[90], 1);
  assert.equal([...c.data], [1, 90]);
  const back = run("afg.backward", { ...inputs, dc: tensor([1, 1, 2], () => 1) });
  for (const [name, values] of Object.entries(back)) assert.ok(values.data.every(Number.isFinite), name);
});

test("NaN in a valid frame stays in its sample", () => {
  const random = new Random(37);
  const size = { B: 3, T: 100, D: 9, A: 7, J: 1 };
  const inputs: Inputs = { x: normal(random, [3, 100, 9]), ...weights(random, size) };
  (inputs.x as Values).data[(100 + 50) * 9 + 4] = Number.NaN;
  const { c } = run("afg", inputs) as { c: Values };
  assert.ok(
    c.data.slice(0, 9).every(Number.isFinite) && c.data.slice(18).every(Number.isFinite),
    "other samples are well",
  );
  assert.ok(c.data.slice(9, 18).every(Number.isNaN), "the sample itself says so");
});

test("wrong calls are refused with their code", () => {
  const random = new Random(41);
  const size = { B: 2, T: 3, D: 4, A: 5, J: 1 };
  const good: Inputs = { x: normal(random, [2, 3, 4]), ...weights(random, size) };
  const refused = (inputs: Inputs, code: string, name = "afg") => {
    try {
      run(name, inputs);
    } catch (error) {
      assert.is((error as { code?: string }).code, code, String(error));
      return;
    }
    assert.unreachable(`expected ${code}`);
  };
  const { q, ...noQuery } = good;
  refused(noQuery, "ERR_AFFUSE_MISSING");
  refused({ ...good, u: normal(random, [5]) }, "ERR_AFFUSE_MISSING");
  refused({ ...good, lengths: integers([2], (b) => [3, 4][b] as number) }, "ERR_AFFUSE_LENGTH");
  refused({ ...good, lengths: integers([2], (b) => [-1, 2][b] as number) }, "ERR_AFFUSE_LENGTH");
  refused({ ...good, W: normal(random, [5, 3]) }, "ERR_AFFUSE_SHAPE");
  refused({ ...good, q: normal(random, [2, 0, 5]) }, "ERR_AFFUSE_SHAPE");
  refused({ ...good, mask: integers([2, 4], () => 1) }, "ERR_AFFUSE_SHAPE");
  refused(good, "ERR_AFFUSE_MISSING", "afg.backward");
});

test.run();
