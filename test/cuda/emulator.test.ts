// Positive controls of the emulator: kernels with one fault each (controls.cc) and the same without it. Whoever is to find a
// fault, the launch, the result, AddressSanitizer or ThreadSanitizer, must find it, and must find nothing where there is none.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { start } from "../helpers/process.ts";

const folder = mkdtempSync(path.join(tmpdir(), "emulator-"));
test.after(() => rmSync(folder, { recursive: true, force: true }));

/** Builds controls.cc; null when this compiler has no such sanitizer. */
async function build(kind: "plain" | "address" | "thread"): Promise<string | null> {
  const cxx = process.env.CXX ?? "c++";
  const flags = ["-std=c++20", "-O1", "-g", "-I."];
  const seen = kind === "plain" ? [] : [`-fsanitize=${kind}`];
  const unseen = kind === "plain" ? [] : [`-DAFFUSE_EMULATOR_${kind === "address" ? "ASAN" : "TSAN"}=1`];
  const emulator = path.join(folder, `emulator-${kind}.o`);
  const program = path.join(folder, `controls-${kind}`);
  const sources = ["kernels/common/status.cc", "test/cuda/controls.cc"];
  for (const args of [
    [...flags, ...unseen, "-c", "kernels/common/cuda/emulator.cc", "-o", emulator],
    [...flags, ...seen, ...sources, emulator, "-o", program],
  ]) {
    const { code, output } = await start(cxx, args);
    if (code !== 0 && /cannot find -l[at]san/.test(output)) return null;
    assert.is(code, 0, output);
  }
  return program;
}

const SEEDS = ["0", "5"];

/** Whoever finds the fault: a pattern of the program's output. */
const FAULTS: [control: string, finder: "plain" | "address" | "thread", pattern: RegExp][] = [
  ["missing_barrier", "plain", /\| wrong \|/],
  ["missing_barrier", "thread", /data race/],
  ["divergent_barrier", "plain", /ERR_AFFUSE_EMULATOR.*some threads never reach.*threads 0-31 at a block barrier \(.*controls\.cc:\d+\)/],
  ["barriers_apart", "plain", /ERR_AFFUSE_EMULATOR.*different block barriers.*controls\.cc:\d+.*controls\.cc:\d+/],
  ["collective_without_all", "plain", /ERR_AFFUSE_EMULATOR.*lane that is not there.*threads 0-15 at a warp collective \(.*controls\.cc:\d+\)/],
  ["deadlock", "plain", /ERR_AFFUSE_EMULATOR.*deadlock; threads 0-15 at a block barrier \(.*controls\.cc:\d+\); threads 16-31 at a warp collective \(.*controls\.cc:\d+\)/],
  ["partial_mask", "plain", /ERR_AFFUSE_EMULATOR.*mask 0000ffff leaves out the lane that calls it.*controls\.cc:\d+/],
  ["masks_apart", "plain", /ERR_AFFUSE_EMULATOR.*lane that is not there.*warp barrier \(.*controls\.cc:\d+\)/],
  ["shared_overrun", "address", /heap-buffer-overflow/],
  ["global_overrun", "address", /heap-buffer-overflow/],
  ["shuffle_as_fence", "thread", /data race/],
  ["missing_wait", "plain", /\| wrong \|/],
  ["wait_without_barrier", "thread", /data race/],
  ["misaligned", "plain", /ERR_AFFUSE_EMULATOR.*16 bytes at an address.*controls\.cc:\d+/],
  ["misaligned_load2", "plain", /ERR_AFFUSE_EMULATOR.*8 bytes at an address.*controls\.cc:\d+/],
  ["misaligned_store4", "plain", /ERR_AFFUSE_EMULATOR.*16 bytes at an address.*controls\.cc:\d+/],
  ["misaligned_copy", "plain", /ERR_AFFUSE_EMULATOR.*16 bytes at an address.*controls\.cc:\d+/],
  ["misaligned_load_matrix", "plain", /ERR_AFFUSE_EMULATOR.*16 bytes at an address.*controls\.cc:\d+/],
  ["added_by_all", "thread", /data race/],
  ["blocks_share", "thread", /data race/],
  ["blocks_share_later", "thread", /data race/],
  ["unwritten", "plain", /\| wrong \|/],
  ["more_than_asked", "plain", /ERR_AFFUSE_EMULATOR.*256 bytes of shared memory, of which the launch asked for 128/],
  ["more_than_a_device_has", "plain", /ERR_AFFUSE_SIZE.*more_than_a_device_has.*at most 101376 bytes.*got 101377 \(.*controls\.cc:\d+\)/],
];
const SOUND = ["mma_bf16", "mma_tf32"];

for (const kind of ["plain", "address", "thread"] as const) {
  test(`${kind}: every fault is found, and nothing where there is none`, async () => {
    const program = await build(kind);
    if (!program) return console.log(`skipped: the compiler has no -fsanitize=${kind}`);
    const found = (control: string, state: string, seed: string) =>
      start(program, [control, state], { AFFUSE_EMULATOR_SEED: seed, ASAN_OPTIONS: "detect_leaks=0" });
    for (const seed of SEEDS) {
      for (const [control, finder, pattern] of FAULTS) {
        if (finder === kind) assert.match((await found(control, "faulty", seed)).output, pattern, `${control}, seed ${seed}`);
      }
      for (const control of [...new Set(FAULTS.map(([name]) => name)), ...SOUND]) {
        const { code, output } = await found(control, "sound", seed);
        assert.match(output, /^ok \| right \| \n$/, `${control}, seed ${seed}`);
        assert.is(code, 0, control);
      }
    }
  });
}

test.run();
