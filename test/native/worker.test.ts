/** Worker threads load the addon, run, and may be terminated at any moment. Two copies of the package live side by side. */
import { copyFileSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { Worker } from "node:worker_threads";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { requireFromRoot } from "#root";
import type { HostTensor, NativeAddon } from "../../lib/native/addon.ts";
import { tryLoadAddon } from "../../lib/native/load.ts";
import { addon, chain, f32, wave } from "./helpers.ts";

const file = tryLoadAddon().attempts.at(-1)?.file as string;

/** Plain JavaScript, so that the worker needs no loader. `addon`, `chain(n, rows, repeat)` and `post` are there. */
function worker(body: string): Worker {
  const source = `
    const { parentPort } = require("node:worker_threads");
    const addon = require(${JSON.stringify(file)});
    const post = (value) => parentPort.postMessage(value);
    function chain(n, rows, repeat) {
      const weight = addon.createBuffer(n * n * 4);
      const identity = new Float32Array(n * n);
      for (let i = 0; i < n; i++) identity[i * n + i] = 1;
      weight.write(0, identity);
      const bytes = Math.ceil(rows * n * 4 / 64) * 64;
      return addon.createProgram({
        device: "cpu", arenaBytes: 2 * bytes, buffers: [weight],
        values: [0, bytes].map((offset) => ({ dtype: "f32", shape: [rows, n], buffer: -1, offset }))
          .concat([{ dtype: "f32", shape: [n, n], buffer: 0, offset: 0 }]),
        instructions: Array.from({ length: repeat }, (_, i) => ({ op: "linear", inputs: [i % 2, 2], outputs: [1 - i % 2], attributes: {} })),
        feeds: [0], fetches: [repeat % 2], scalars: 0,
      });
    }
    (async () => { ${body} })();
  `;
  return new Worker(source, { eval: true });
}

const message = (from: Worker) =>
  new Promise((resolve, reject) => {
    from.once("message", resolve);
    from.once("error", reject);
    from.once("exit", (code) => reject(new Error(`the worker ended with ${code} first`)));
  });

test("a worker runs a program and a call", async () => {
  const w = worker(`
    const result = await chain(16, 2, 3).run([new Float32Array(32).fill(5)], []);
    const sum = addon.call("cpu", "add", [0, 1].map(() => ({ dtype: "f32", shape: [2], data: new Float32Array([1, 2]) })), {}, [true]);
    post([Array.from(result[0]), Array.from(sum[0].data)]);
  `);
  assert.equal(await message(w), [new Array(32).fill(5), [2, 4]]);
  await w.terminate();
});

test("a worker ends by itself while a run is outstanding that nobody awaits", async () => {
  const w = worker(`chain(64, 64, 200).run([new Float32Array(64 * 64)], []); setTimeout(() => process.exit(7), 5);`);
  assert.is(await new Promise((resolve) => w.once("exit", resolve)), 7);
});

test("workers terminated in the middle of runs leave everything else working", async () => {
  const { program } = chain(64, 64, 50);
  for (let round = 0; round < 12; round++) {
    const w = worker(`
      const program = chain(128, 128, 5000);
      const feed = new Float32Array(128 * 128);
      const again = () => program.run([feed], []).then(again);
      again(); again(); again();
      const calls = () => addon.callAsync("cpu", "scale", [{ dtype: "f32", shape: [128 * 128], data: feed }], {}, [true]).then(calls);
      calls();
      post("running");
    `);
    assert.is(await message(w), "running");
    const mine = program.run([new Float32Array(64 * 64).fill(round)], []);
    await new Promise((resolve) => setTimeout(resolve, (round * 7) % 30));
    const started = performance.now();
    await w.terminate();
    assert.ok(performance.now() - started < 5000, "termination waits for one instruction, not for the program");
    assert.ok((await mine)[0]?.every((value) => value === round));
  }
});

test("a worker terminated inside a synchronous call", async () => {
  const w = worker(`
    const n = 700, x = { dtype: "f32", shape: [n, n], data: new Float32Array(n * n) };
    post("running");
    for (;;) addon.call("cpu", "linear", [x, x], {}, [true]);
  `);
  assert.is(await message(w), "running");
  await new Promise((resolve) => setTimeout(resolve, 30));
  await w.terminate();
  assert.equal((addon.call("cpu", "add", [f32([2], wave), f32([2], wave)], {}, [true])[0] as HostTensor).shape, [2]);
});

test("many workers at once", async () => {
  const workers = Array.from({ length: 6 }, (_, i) =>
    worker(`const r = await chain(48, 48, 60).run([new Float32Array(48 * 48).fill(${i})], []); post(r[0][7]);`),
  );
  assert.equal(await Promise.all(workers.map(message)), [0, 1, 2, 3, 4, 5]);
  await Promise.all(workers.map((w) => w.terminate()));
});

test("two copies of the package in one process", async () => {
  const folder = mkdtempSync(path.join(tmpdir(), "affuse-copy-"));
  try {
    const copy = path.join(folder, "affuse.node");
    copyFileSync(file, copy);
    const other = requireFromRoot(copy) as NativeAddon;
    assert.is.not(other, addon);
    const x = f32([300], wave);
    const mine = addon.callAsync("cpu", "scale", [x], { factor: 3 }, [true]);
    const theirs = other.callAsync("cpu", "scale", [x], { factor: 3 }, [true]);
    assert.equal(await mine, await theirs);
    // A buffer of one copy means nothing to the other: refused, not misread.
    const { desc } = chain(16, 2, 1);
    assert.throws(() => other.createProgram(desc), (error: { code: string }) => error.code === "ERR_AFFUSE_PROGRAM");
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test.run();
