import assert from "node:assert/strict";
import { test } from "uvu";
import { EncoderPool } from "../../lib/encoders/pool.ts";

test("the event loop goes on while clips are encoded", async () => {
  const pool = await EncoderPool.open(["logmel"], { workers: 1, threads: 1 });
  try {
    const samples = Float32Array.from({ length: 16000 * 120 }, (_, n) => Math.sin(n / 10));
    let busy = true;
    let ticks = 0;
    let longest = 0;
    let last = performance.now();
    const timer = setInterval(() => {
      const now = performance.now();
      longest = Math.max(longest, now - last - 5);
      last = now;
      ticks++;
    }, 5);
    const began = performance.now();
    await pool.encodeAudio(0, samples, 16000).finally(() => {
      busy = false;
    });
    const took = performance.now() - began;
    clearInterval(timer);
    assert.equal(busy, false);
    // A blocked loop would tick once and wait as long as the encoding takes.
    assert.ok(took > 50, `encoding took ${took} ms: too short to tell`);
    assert.ok(ticks > took / 40, `${ticks} ticks in ${took} ms`);
    assert.ok(longest < Math.max(60, took / 4), `the longest wait was ${longest} ms of ${took} ms`);
  } finally {
    await pool.close();
  }
});

test.run();
