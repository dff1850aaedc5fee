// Training and inference with bf16 operands: near float32, the same bits for any number of threads.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { Random } from "../../lib/data/random.ts";
import { type Batch, createModel } from "../../lib/models/index.ts";
import { loadAddon } from "../../lib/native/index.ts";
import { classes, distance, streams, tinyConfig, toyBatch } from "./helpers.ts";

const STEPS = 60;

async function trained(structure: "concat" | "gfbp", precision: "f32" | "bf16") {
  const random = new Random(71, structure);
  const model = createModel(tinyConfig(structure), streams, classes, { precision });
  const batches = Array.from({ length: 4 }, () => toyBatch(random, 16));
  const losses: number[] = [];
  for (let step = 1; step <= STEPS; step++) {
    const { ce } = await model.trainStep(batches[step % 4] as Batch, { lr: 1e-2, step });
    losses.push(ce);
  }
  const state = model.state();
  model.dispose();
  const mean = (list: number[]) => list.reduce((sum, x) => sum + x, 0) / list.length;
  return { first: mean(losses.slice(0, 4)), last: mean(losses.slice(-4)), state };
}

for (const structure of ["concat", "gfbp"] as const) {
  test(`${structure}: bf16 operands learn as float32 does`, async () => {
    const exact = await trained(structure, "f32");
    const reduced = await trained(structure, "bf16");
    assert.ok(exact.last < 0.6 * exact.first, `float32: ${exact.first} to ${exact.last}`);
    assert.ok(reduced.last < 0.6 * reduced.first, `bf16: ${reduced.first} to ${reduced.last}`);
    assert.ok(Math.abs(reduced.last - exact.last) < 0.1 * exact.first, `${exact.last} and ${reduced.last}`);

    // The same weights with either precision: what rounding does to predictions, without what training made of it.
    const clips = toyBatch(new Random(72), 64);
    const [a, b] = await Promise.all(
      (["f32", "bf16"] as const).map(async (precision) => {
        const model = createModel(tinyConfig(structure), streams, classes, { precision });
        model.load(exact.state);
        const { posteriors } = await model.infer(clips);
        model.dispose();
        return posteriors;
      }),
    );
    const most = Math.max(...(a ?? []).map((p, i) => Math.abs(p - (b?.[i] as number))));
    assert.ok(most > 0, "bf16 changed nothing");
    assert.ok(most < 0.03, `posteriors of new clips differ by up to ${most}`);
  });
}

test("the same bits with 1, 2 and 3 threads", async () => {
  const addon = loadAddon();
  const before = addon.cpu().threads;
  try {
    const results = [];
    for (const threads of [1, 2, 3]) {
      addon.setThreads(threads);
      results.push((await trained("gfbp", "bf16")).state.parameters);
    }
    const [first, ...others] = results;
    for (const other of others)
      for (const [name, tensor] of Object.entries(first ?? {}))
        assert.is(distance(tensor.data, other[name]?.data ?? []), 0, name);
  } finally {
    addon.setThreads(before);
  }
});

test.run();
