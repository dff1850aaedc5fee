import { test } from "uvu";
import * as assert from "uvu/assert";
import { Random } from "../../lib/data/random.ts";
import { aligned } from "../../lib/graph/arena.ts";
import { compile, plan } from "../../lib/graph/compile.ts";
import { interpret } from "../../lib/graph/interpret.ts";
import { appendGradients } from "../../lib/graph/optimizer.ts";
import type { Value } from "../../lib/graph/value.ts";
import type { Batch } from "../../lib/models/types.ts";
import {
  distance,
  fixture,
  type Fixture,
  makeBatch,
  reference,
  storedFrom,
  structures,
  tinyConfig,
} from "./helpers.ts";
import { loadAddon } from "../../lib/native/index.ts";

const addon = loadAddon();
const scalars = { step: 3, lr: 1e-3 };

const absent = (b: number, { name, modality }: { name: string; modality: string }) =>
  (b === 1 && modality === "visual") ||
  (b === 2 && name === "voice") ||
  (b === 3 && modality === "audio") ||
  b === 4;

/** Only the scalars and feeds that a program has. */
function runOptions(model: Fixture, program: { feedNames: string[]; plan: { scalars: string[] } }) {
  const pick = <T>(from: Record<string, T>, names: readonly string[]) =>
    Object.fromEntries(names.map((name) => [name, from[name] as T]));
  return {
    feeds: pick(model.feeds, program.feedNames),
    scalars: pick<number>(scalars, program.plan.scalars),
  };
}

/**
 * How much float32 may differ from float64: the float64 result's own change when every feed and parameter moves by half a
 * unit in the last place, at random, three times (the conditioning of the whole graph), times 64 for the operators' own
 * roundings, plus 32 units of the largest value.
 */
function tolerance(model: Fixture, wanted: Value, exact: Float64Array): number {
  const random = new Random(77, "tolerance");
  const jitter = (data: ArrayLike<number>) =>
    Float64Array.from(data, (x) => x * (1 + random.uniform(-1, 1) * 2 ** -24));
  let change = 0;
  for (let round = 0; round < 3; round++) {
    const replaced: Record<string, Float64Array> = {};
    for (const { name } of model.store.parameters()) replaced[name] = jitter(model.store.get(name).data);
    const moved = reference(addon, model, [wanted], replaced, scalars)[0] as Float64Array;
    change = Math.max(change, distance(moved, exact));
  }
  const largest = exact.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
  return 64 * change + 32 * 2 ** -24 * largest;
}

for (const structure of structures) {
  test(`${structure}: compiled inference equals the float64 interpretation, absent streams included`, async () => {
    const batch = makeBatch(new Random(31, structure), 6, { voice: 9, prosody: 12, face: 17 }, absent);
    const model = fixture(addon, tinyConfig(structure), batch, "infer");
    const program = compile(addon, model.graph, { fetches: model.fetches });
    const results = await program.run(runOptions(model, program));
    for (const [name, value] of Object.entries(model.fetches)) {
      const exact = reference(addon, model, [value])[0] as Float64Array;
      assert.ok(exact.every(Number.isFinite), name);
      const bound = tolerance(model, value, exact);
      const error = distance(results[name] as Float32Array, exact);
      assert.ok(error <= bound, `${name}: ${error} > ${bound}`);
    }
    program.dispose();
    model.store.dispose();
  });

  test(`${structure}: compiled gradients equal the float64 interpretation`, async () => {
    const batch = makeBatch(new Random(32, structure), 6, { voice: 9, prosody: 12, face: 17 }, absent);
    const model = fixture(addon, tinyConfig(structure), batch, "loss");
    appendGradients(model.graph, model.fetches.loss as Value, model.store, model.builder.parameters);
    const made = [...model.graph.writes].map(([id, { place }]) => ({
      value: model.graph.values[id] as Value,
      place,
    }));
    const program = compile(addon, model.graph, { fetches: { loss: model.fetches.loss as Value } });
    await program.run(runOptions(model, program));
    for (const { value, place } of made) {
      const { name } = place as { offset: number; name: string };
      const exact = reference(addon, model, [value])[0] as Float64Array;
      const error = distance(model.store.get(name, "gradients").data, exact);
      const bound = tolerance(model, value, exact);
      assert.ok(error <= bound, `${name}: ${error} > ${bound}`);
    }
    assert.is(made.length, model.store.parameters().length);
    program.dispose();
    model.store.dispose();
  });

  test(`${structure}: a program gives the bits of its operators called one by one, with 1 and 2 threads`, async () => {
    const batch = makeBatch(new Random(33, structure), 5, { voice: 40, prosody: 33, face: 65 }, absent);
    const model = fixture(addon, tinyConfig(structure), batch, "train");
    const wanted = ["loss", "ce", "mse"].map((name) => model.fetches[name] as Value);
    const stored = storedFrom(model.store);
    const single = interpret(addon, model.graph, wanted, {
      feeds: model.feeds,
      scalars,
      stored,
      device: "cpu",
      threads: 1,
    });
    const initial = new Map(model.store.parameters().map(({ name }) => [name, model.store.get(name)]));
    const after: Float32Array[][] = [];
    const program = compile(addon, model.graph, { fetches: model.fetches });
    for (const threads of [1, 2]) {
      addon.setThreads(threads);
      for (const [name, tensor] of initial) model.store.set(name, tensor);
      model.store.clear("m");
      model.store.clear("v");
      const results = await program.run(runOptions(model, program));
      ["loss", "ce", "mse"].forEach((name, i) => {
        assert.equal(results[name], single[i], `${name} with ${threads} threads`);
      });
      after.push(model.store.parameters().map(({ name }) => model.store.get(name).data));
    }
    assert.equal(after[0], after[1], "parameters after the step");
    assert.ok(
      model.store
        .parameters()
        .every(({ name }, i) => distance(after[0]?.[i] ?? [], initial.get(name)?.data ?? []) > 0),
    );
    program.dispose();
    model.store.dispose();
  });
}

test("positive control: results off by 0.01 % are beyond the tolerance", () => {
  for (const structure of structures) {
    const batch = makeBatch(new Random(31, structure), 6, { voice: 9, prosody: 12, face: 17 }, absent);
    const model = fixture(addon, tinyConfig(structure), batch, "infer");
    for (const name of ["logits", "valence", "embedding"]) {
      const value = model.fetches[name] as Value;
      const exact = reference(addon, model, [value])[0] as Float64Array;
      const spoiled = exact.map((x) => x * 1.0001);
      assert.ok(distance(spoiled, exact) > tolerance(model, value, exact), `${structure} ${name}`);
    }
    model.store.dispose();
  }
});

test("no two live values of a training program overlap in the arena", () => {
  for (const structure of structures) {
    const batch = makeBatch(new Random(34, structure), 4, { voice: 9, prosody: 12, face: 17 });
    const model = fixture(addon, tinyConfig(structure), batch, "train");
    const { nodes, blocks, arenaBytes } = plan(model.graph, model.fetches);
    // Lifetimes are taken again, from the instructions alone.
    const place = new Map(blocks.map((block) => [block.value.id, block]));
    const owner = (value: Value): number =>
      value.source.kind === "alias" ? owner(value.source.of) : value.id;
    const live = new Map<number, [number, number]>();
    const see = (value: Value | null, at: number) => {
      if (!value || !place.has(owner(value))) return;
      const span = live.get(owner(value)) ?? [value.source.kind === "input" ? -1 : at, at];
      live.set(owner(value), [Math.min(span[0], at), Math.max(span[1], at)]);
    };
    for (const block of blocks) if (block.value.source.kind === "input") live.set(block.value.id, [-1, -1]);
    nodes.forEach((node, at) => {
      for (const value of [...node.inputs, ...node.outputs]) see(value, at);
    });
    for (const value of Object.values(model.fetches)) see(value, nodes.length);
    const spans = [...live];
    for (const [i, [first, a]] of spans.entries()) {
      for (const [second, b] of spans.slice(i + 1)) {
        if (a[0] > b[1] || b[0] > a[1]) continue;
        const [x, y] = [place.get(first), place.get(second)];
        if (!x || !y || x.bytes === 0 || y.bytes === 0) continue;
        assert.ok(
          x.offset + x.bytes <= y.offset || y.offset + y.bytes <= x.offset,
          `${structure}: ${first} and ${second}`,
        );
      }
    }
    const total = blocks.reduce((sum, block) => sum + aligned(block.bytes), 0);
    assert.ok(arenaBytes < total, `memory is reused: ${arenaBytes} of ${total}`);
    model.store.dispose();
  }
});

/** The clips `pick` of a batch, with every stream padded to its own new T. */
function repack(
  batch: Batch,
  pick: readonly number[],
  frames: Record<string, number>,
  dims: Record<string, number>,
): Batch {
  const streams: Batch["streams"] = Object.fromEntries(
    Object.entries(batch.streams).map(([name, stream]) => {
      const [T, D] = [frames[name] as number, dims[name] as number];
      const data = new Float32Array(pick.length * T * D).fill(Number.NaN);
      pick.forEach((from, to) => {
        const length = stream.lengths[from] as number;
        const start = from * stream.T * D;
        data.set(stream.data.subarray(start, start + length * D), to * T * D);
      });
      const lengths = Int32Array.from(pick, (b) => stream.lengths[b] as number);
      const presence = Float32Array.from(pick, (b) => stream.presence[b] as number);
      return [name, { data, lengths, T, presence }];
    }),
  );
  return { size: pick.length, streams };
}

test("predictions do not depend on padding, bucket or the other clips of the batch", async () => {
  const dims = { voice: 5, prosody: 3, face: 4 };
  for (const structure of structures) {
    const whole = makeBatch(new Random(35, structure), 5, { voice: 9, prosody: 12, face: 17 }, absent);
    const run = async (batch: Batch) => {
      const model = fixture(addon, tinyConfig(structure), batch, "infer");
      const program = compile(addon, model.graph, { fetches: model.fetches });
      const results = await program.run(runOptions(model, program));
      program.dispose();
      model.store.dispose();
      return results;
    };
    const expected = await run(whole);
    const arrangements = [[0, 1, 2, 3, 4], [4, 2, 0], [3], [1, 1]];
    for (const pick of arrangements) {
      const results = await run(repack(whole, pick, { voice: 24, prosody: 40, face: 32 }, dims));
      for (const name of ["logits", "valence", "embedding"]) {
        const rows = expected[name] as Float32Array;
        const width = rows.length / 5;
        pick.forEach((from, to) => {
          const a = rows.subarray(from * width, (from + 1) * width);
          const b = (results[name] as Float32Array).subarray(to * width, (to + 1) * width);
          // Another batch size or bucket may be tiled differently: the same sums in another order, float32.
          const scale = a.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
          assert.ok(
            distance(a, b) <= 16 * 2 ** -24 * (1 + scale),
            `${structure} ${name} clip ${from}: ${distance(a, b)}`,
          );
        });
      }
    }
  }
});

test.run();
