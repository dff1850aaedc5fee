/**
 * The machine's ceilings: positive, ordered as the memory hierarchy is, and refused with a code when asked
 * wrongly.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import * as assert from "uvu/assert";
import { suite } from "uvu";
import type { RoofKind } from "../../lib/native/addon.ts";
import { loadAddon } from "../../lib/native/load.ts";
import { codeOf } from "../native/helpers.ts";

const addon = loadAddon();
const { isa, levels, caches } = addon.cpu();
const test = suite("roofs");

/** The best of several short measurements of each, in turns: a busy machine may disturb any of them, for seconds at a time. */
function best(wanted: readonly (readonly [kind: RoofKind, level?: string])[]): number[] {
  const most = wanted.map(() => 0);
  for (let turn = 0; turn < 12; turn++)
    for (const [i, [kind, level]] of wanted.entries())
      most[i] = Math.max(most[i] as number, addon.roof(kind, 1, 0.005, level ?? isa));
  return most;
}

test("cache sizes are the ones a core can use, as the kernel tells them", () => {
  const folder = "/sys/devices/system/cpu/cpu0/cache";
  if (!existsSync(folder)) return;
  const read = (index: string, name: string) => readFileSync(`${folder}/${index}/${name}`, "utf8").trim();
  for (const index of readdirSync(folder).filter((name) => name.startsWith("index"))) {
    if (read(index, "type") === "Instruction") continue;
    const kilobytes = Number(/^(\d+)K$/.exec(read(index, "size"))?.[1]);
    const level = `l${read(index, "level")}` as keyof typeof caches;
    if (level in caches && kilobytes > 0) assert.is(caches[level], kilobytes * 1024, level);
  }
});

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
      "issue.f32",
    ] as const) {
      const value = addon.roof(kind, 1, 0, level);
      assert.ok(Number.isFinite(value) && value > 1e8, `${kind} on ${level}: ${value}`);
    }
    const bf16 = addon.roof("fma.bf16", 1, 0, level);
    assert.ok(level.includes("bf16") ? bf16 > 1e9 : bf16 === 0, `${level}: ${bf16}`);
  }
});

test("nearer memory is quicker, wider levels compute more", () => {
  const [l1, l2, dram] = best([["read.l1"], ["read.l2"], ["read.dram"]]) as [number, number, number];
  assert.ok(l1 > l2 && l2 > dram, `L1 ${l1}, L2 ${l2}, DRAM ${dram}`);
  const wide = levels.filter((level) => !level.includes("bf16"));
  const fma = best(wide.map((level) => ["fma.f32", level]));
  for (let i = 1; i < fma.length; i++)
    assert.ok((fma[i] as number) > 1.3 * (fma[i - 1] as number), `${levels}: ${fma}`);
});

test("bare loops do not pass the multiply-add roof", () => {
  // Work that was counted twice would: both are above half of it where memory is this machine's alone.
  const measured = best([["fma.f32"], ["tile.l1"], ["multiply16.dram"], ["issue.f32"]]);
  const [fma, ...others] = measured as [number, ...number[]];
  for (const other of others) assert.ok(other < 1.15 * fma, `${measured}`);
});

test("no measurement promises more than the widest machine could do", () => {
  // 64 FLOP a cycle and 128 bytes a cycle at 6 GHz, per thread.
  const [fma, read] = best([["fma.f32"], ["read.l1"]]) as [number, number];
  assert.ok(fma < 64 * 6e9);
  assert.ok(read < 128 * 6e9);
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
