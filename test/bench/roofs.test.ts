/**
 * The machine's ceilings: positive, ordered as the memory hierarchy is, and refused with a code when asked
 * wrongly.
 */
import * as assert from "uvu/assert";
import { suite } from "uvu";
import type { RoofKind } from "../../lib/native/addon.ts";
import { loadAddon } from "../../lib/native/load.ts";
import { codeOf } from "../native/helpers.ts";

const addon = loadAddon();
const { isa, levels, caches } = addon.cpu();
const test = suite("roofs");

/** The best of a few short measurements: a busy machine may disturb any one of them. */
const best = (kind: RoofKind, threads = 1, level = isa) =>
  Math.max(...Array.from({ length: 3 }, () => addon.roof(kind, threads, 0.01, level)));

test("every roof of every level is positive; bf16 is zero where there is no such instruction", () => {
  for (const level of levels) {
    for (const kind of [
      "fma.f32",
      "read.l1",
      "read.l2",
      "read.dram",
      "copy.dram",
      "copy-nt.dram",
      "update.dram",
      "tile.l1",
      "multiply16.dram",
    ] as const) {
      const value = addon.roof(kind, 1, 0, level);
      assert.ok(Number.isFinite(value) && value > 1e8, `${kind} on ${level}: ${value}`);
    }
    const bf16 = addon.roof("fma.bf16", 1, 0, level);
    assert.ok(level.includes("bf16") ? bf16 > 1e9 : bf16 === 0, `${level}: ${bf16}`);
  }
});

test("nearer memory is quicker, wider levels compute more", () => {
  const [l1, l2, dram] = (["read.l1", "read.l2", "read.dram"] as const).map((kind) => best(kind)) as [
    number,
    number,
    number,
  ];
  assert.ok(l1 > l2 && l2 > dram, `L1 ${l1}, L2 ${l2}, DRAM ${dram}`);
  const fma = levels.filter((level) => !level.includes("bf16")).map((level) => best("fma.f32", 1, level));
  for (let i = 1; i < fma.length; i++)
    assert.ok((fma[i] as number) > 1.3 * (fma[i - 1] as number), `${levels}: ${fma}`);
});

test("bare loops do not pass the roofs that they consist of", () => {
  // In turns, the best of each, with room for a memory that others use too: what is caught is work that is counted twice.
  const most = { "fma.f32": 0, "read.dram": 0, "tile.l1": 0, "multiply16.dram": 0 };
  const kinds = Object.keys(most) as (keyof typeof most)[];
  for (let turn = 0; turn < 12; turn++)
    for (const kind of kinds) most[kind] = Math.max(most[kind], addon.roof(kind, 1, 0.005));
  const said = JSON.stringify(most);
  assert.ok(most["tile.l1"] < 1.5 * most["fma.f32"], said);
  assert.ok(most["multiply16.dram"] < 1.5 * Math.min(most["fma.f32"], 8 * most["read.dram"]), said);
});

test("no measurement promises more than the widest machine could do", () => {
  // 64 FLOP a cycle and 128 bytes a cycle at 6 GHz, per thread.
  assert.ok(best("fma.f32") < 64 * 6e9);
  assert.ok(best("read.l1") < 128 * 6e9);
  if (caches.l3 === 0) assert.is(addon.roof("read.l3", 1, 0), 0);
});

test("bad arguments are refused with a code", async () => {
  assert.is(await codeOf(() => addon.roof("nonsense" as RoofKind)), "ERR_AFFUSE_ROOF");
  assert.is(await codeOf(() => addon.roof(undefined as unknown as RoofKind)), "ERR_AFFUSE_ROOF");
  assert.is(await codeOf(() => addon.roof("fma.f32", 0)), "ERR_AFFUSE_THREADS");
  assert.is(await codeOf(() => addon.roof("fma.f32", 1, Number.NaN)), "ERR_AFFUSE_ROOF");
  assert.is(await codeOf(() => addon.roof("fma.f32", 1, 1e9)), "ERR_AFFUSE_ROOF");
  assert.is(await codeOf(() => addon.roof("fma.f32", 1, 0, "mmx")), "ERR_AFFUSE_CPU");
});

test.run();
