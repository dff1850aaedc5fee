import { test } from "uvu";
import * as assert from "uvu/assert";
import { cos, exp, ln, pow2, sin, tanh } from "../../lib/data/portable.ts";
import { philox4x32, Random } from "../../lib/data/random.ts";

const hex = (words: Uint32Array) => [...words].map((w) => w.toString(16).padStart(8, "0")).join(" ");

test("Philox4x32-10 gives the published known answers", () => {
  const out = new Uint32Array(4);
  philox4x32(0, 0, 0, 0, 0, 0, out);
  assert.is(hex(out), "6627e8d5 e169c58d bc57ac4c 9b00dbd8");
  philox4x32(0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, out);
  assert.is(hex(out), "408f276d 41c83b0e a20bc7c6 6d5451fd");
  philox4x32(0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0, out);
  assert.is(hex(out), "d16cfe09 94fdcceb 5001e420 24126ea1");
});

test("a stream continues from its state, and differs by seed and label", () => {
  const a = new Random(7, "x");
  const first = Array.from({ length: 11 }, () => a.word());
  const state = a.state();
  const next = [a.uniform(), a.normal(), a.integer(10)];
  const b = Random.fromState(JSON.parse(JSON.stringify(state)));
  assert.equal([b.uniform(), b.normal(), b.integer(10)], next);
  assert.not.equal(
    Array.from(
      { length: 11 },
      (
        (r) => () =>
          r.word()
      )(new Random(7, "y")),
    ),
    first,
  );
  assert.not.equal(
    Array.from(
      { length: 11 },
      (
        (r) => () =>
          r.word()
      )(new Random(8, "x")),
    ),
    first,
  );
  assert.is(new Random(1).fork("a").word(), new Random(1).fork("a").word());
});

test("uniform and normal have the right moments", () => {
  const r = new Random(3);
  const n = 40000;
  let sum = 0;
  let square = 0;
  let fourth = 0;
  for (let i = 0; i < n; i++) {
    const z = r.normal();
    sum += z;
    square += z * z;
    fourth += z ** 4;
  }
  assert.ok(Math.abs(sum / n) < 0.02);
  assert.ok(Math.abs(square / n - 1) < 0.03);
  assert.ok(Math.abs(fourth / n - 3) < 0.2);
  let low = 0;
  for (let i = 0; i < n; i++) if (r.uniform(2, 4) < 3) low++;
  assert.ok(Math.abs(low / n - 0.5) < 0.02);
});

test("integer is unbiased over three values; weighted choice follows its weights", () => {
  const r = new Random(4);
  const n = 30000;
  const counts = new Float64Array(3);
  const drawn = new Float64Array(2);
  for (let i = 0; i < n; i++) {
    const k = r.integer(3);
    counts[k] = (counts[k] as number) + 1;
    const c = r.choice([0, 1], [1, 3]);
    drawn[c] = (drawn[c] as number) + 1;
  }
  for (const count of counts) assert.ok(Math.abs(count / n - 1 / 3) < 0.015);
  assert.ok(Math.abs((drawn[1] as number) / n - 0.75) < 0.015);
  assert.equal(
    [...r.permutation(50)].sort((a, b) => a - b),
    Array.from({ length: 50 }, (_, i) => i),
  );
});

test("portable functions agree with the engine's to 1e-15", () => {
  const r = new Random(5);
  const near = (a: number, b: number, what: string) =>
    assert.ok(Math.abs(a - b) <= 1e-15 * Math.max(1, Math.abs(b)), `${what}: ${a} against ${b}`);
  for (let i = 0; i < 5000; i++) {
    const x = r.uniform(-30, 30);
    near(sin(x), Math.sin(x), `sin ${x}`);
    near(cos(x), Math.cos(x), `cos ${x}`);
    near(exp(x) / Math.exp(x), 1, `exp ${x}`);
    near(tanh(x), Math.tanh(x), `tanh ${x}`);
    const p = pow2(r.integer(2000) - 1000) * r.uniform(1, 2);
    near(ln(p), Math.log(p), `ln ${p}`);
  }
  assert.is(ln(0), Number.NEGATIVE_INFINITY);
  assert.ok(Number.isNaN(ln(-1)));
  assert.is(ln(1), 0);
  assert.is(exp(0), 1);
  assert.is(exp(-1000), 0);
});

test("the same bits as on the machine this was written on", () => {
  const r = new Random(2024, "bits");
  const values = [r.normal(), r.normal(), r.uniform()];
  const bytes = Buffer.from(new Float64Array(values).buffer).toString("hex");
  assert.is(bytes, "8179880d1b62f33f0342bf7288380440584f3fd9f41adf3f");
});

test.run();
