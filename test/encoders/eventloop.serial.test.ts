import assert from "node:assert/strict";
import { performance } from "node:perf_hooks";
import { test } from "uvu";
import { EncoderPool } from "../../lib/encoders/pool.ts";

/** How a piece of work treats the event loop: timer ticks, and the share of time that the loop itself was busy. */
async function watch(
  work: () => Promise<unknown>,
): Promise<{ took: number; ticks: number; longest: number; busy: number }> {
  let ticks = 0;
  let longest = 0;
  let last = performance.now();
  const timer = setInterval(() => {
    const now = performance.now();
    longest = Math.max(longest, now - last);
    last = now;
    ticks++;
  }, 5);
  const before = performance.eventLoopUtilization();
  const began = performance.now();
  await work();
  const took = performance.now() - began;
  const busy = performance.eventLoopUtilization(before).utilization;
  clearInterval(timer);
  return { took, ticks, longest: Math.max(longest, performance.now() - last), busy };
}

/** A loop that waits for a processor on a busy machine is idle all the same; one that computes is not. */
const free = ({ took, ticks, longest, busy }: Awaited<ReturnType<typeof watch>>): boolean =>
  busy < 0.5 && ticks >= 10 && longest < took / 3;

test("the event loop goes on while clips are encoded", async () => {
  const pool = await EncoderPool.open(["logmel"], { workers: 1, threads: 1 });
  try {
    const samples = Float32Array.from({ length: 44100 * 120 }, (_, n) => Math.sin(n / 10));
    // at 44.1 kHz: resampling, normalising and the session's run all have to happen elsewhere
    const seen = await watch(() => pool.encodeAudio(0, samples, 44100));
    assert.ok(seen.took > 200, `encoding took ${seen.took} ms: too short to tell`);
    assert.ok(free(seen), JSON.stringify(seen));
  } finally {
    await pool.close();
  }
});

test("a blocked loop would be noticed", async () => {
  const seen = await watch(async () => {
    await new Promise((resolve) => setTimeout(resolve, 20));
    const until = performance.now() + 300;
    while (performance.now() < until);
  });
  assert.equal(free(seen), false, JSON.stringify(seen));
});

test.run();
