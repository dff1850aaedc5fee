// Patience with neighbours on the cores.
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { Calm } from "../../bench/calm.ts";
import type { NativeAddon, RoofKind } from "../../lib/native/addon.ts";

const test = suite("bench calm");

/** A machine whose issue loop reaches these shares of the multiply-add roof, look after look; the last one stays. */
function machine(shares: readonly number[]): NativeAddon {
  let look = 0;
  const roof = (kind: RoofKind) =>
    kind === "issue.f32" ? 1e11 * (shares[Math.min(look++, shares.length - 1)] as number) : 1e11;
  return { roof } as unknown as NativeAddon;
}

const fma = [{ level: "x", threads: 1, roofs: { "fma.f32": 1e11 } }];

test("patience: what was measured on a shared core is measured again, whatever it gave", async () => {
  // Calm before, shared after; shared before; calm around.
  const calm = new Calm(machine([0.97, 0.5, 0.6, 0.97, 0.95]), fma, 60);
  let taken = 0;
  const { value, share } = await calm.around(1, () => ++taken);
  assert.equal([value, share], [2, 0.95]);
  assert.ok(calm.left < 59.9 && calm.left > 50, `${calm.left}`);
});

test("patience ends; without any, everything counts and says what it was beside", async () => {
  const begin = performance.now();
  const shared = new Calm(machine([0.5]), fma, 0.3);
  assert.equal(await shared.around(1, () => "x"), { value: "x", share: 0.5 });
  assert.ok(performance.now() - begin < 5000 && shared.left <= 0);
  assert.not.ok(shared.own(0.5, 1));
  const hasty = new Calm(machine([0.97, 0.5]), fma, 0);
  assert.is((await hasty.around(1, () => 0)).share, 0.5);
  assert.not.ok(hasty.own(0.5, 1));
  assert.ok(hasty.own(0.9, 1));
  // A core that never reaches more is not taken for a shared core.
  const slow = new Calm(machine([0.8]), fma, 0);
  assert.ok(slow.own((await slow.around(1, () => 0)).share, 1));
});

test("an interrupt ends patience, also between measurements that only compute", async () => {
  const restless = Array.from({ length: 100_000 }, (_, i) => (i % 2 === 0 ? 0.97 : 0.5));
  const busy = (): void => {
    for (const end = performance.now() + 5; performance.now() < end; );
  };
  for (const shares of [[0.5], restless]) {
    const controller = new AbortController();
    setTimeout(() => controller.abort(), 100);
    const calm = new Calm(machine(shares), fma, 5, controller.signal);
    assert.is((await calm.around(1, busy)).share, 0.5);
    assert.ok(calm.left > 3, `${calm.left} s left`);
  }
});

test.run();
