/**
 * What calls cost beside their work: a synchronous operator call from JavaScript, an operator in a program, and timing it.
 * Times are the medians of batches; the best of several rounds counts, because other processes only ever add.
 */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { addon, chain, f32, wave } from "./helpers.ts";

const median = (values: number[]) => values.sort((a, b) => a - b)[values.length >> 1] as number;

/** Microseconds per call of each body, batches in turn: medians over a round, of which the quickest counts. */
function microseconds(bodies: (() => unknown)[], calls = 2000, batches = 15, rounds = 5): number[] {
  const batch = (body: () => unknown) => {
    const start = process.hrtime.bigint();
    for (let i = 0; i < calls; i++) body();
    return Number(process.hrtime.bigint() - start) / 1e3 / calls;
  };
  for (let i = 0; i < 5; i++) bodies.forEach(batch); // the engine compiles the path
  const best = bodies.map(() => Number.POSITIVE_INFINITY);
  for (let round = 0; round < rounds; round++) {
    const times: number[][] = bodies.map(() => []);
    for (let i = 0; i < batches; i++) for (const [k, body] of bodies.entries()) times[k]?.push(batch(body));
    times.forEach((all, k) => {
      best[k] = Math.min(best[k] as number, median(all));
    });
  }
  return best;
}

/** Work of the engine alone, a quarter dearer than the smallest call: twice as slow where the processor is shared, as that is. */
function sixteenKeys() {
  const map = new Map<string, number>();
  for (let i = 0; i < 16; i++) map.set(`k${i}`, i);
  return map;
}

test("the smallest synchronous call: at most 1.5 microseconds, or on a busy processor 1.1 times a Map of sixteen strings", () => {
  const a = f32([1], wave);
  const b = f32([1], wave);
  const y = new Float32Array(1);
  const inputs = [a, b];
  const outputs = [y];
  const call = () => addon.call("cpu", "add", inputs, {}, outputs);
  const fresh = () => addon.call("cpu", "add", inputs, {}, [true]);
  const [cost, into, yardstick] = microseconds([call, fresh, sixteenKeys]) as [number, number, number];
  const shown = [cost, into, yardstick].map((time) => time.toFixed(2));
  console.log(`add of one element: ${shown[0]} us into a given array, ${shown[1]} us with a fresh one; a Map: ${shown[2]} us`);
  assert.is(y[0], (a.data[0] as number) * 2);
  assert.ok(cost <= Math.max(1.5, 1.1 * yardstick), `${cost} us, a Map ${yardstick} us`);
});

test("a second thread makes no small call slower", () => {
  for (const count of [1 << 10, 1 << 14, 20000, 1 << 15]) {
    const x = f32([count], wave);
    const y = new Float32Array(count);
    const call = (threads: number) => () => addon.call("cpu", "scale", [x], { factor: 2 }, [y], threads);
    const [one, two] = microseconds([call(1), call(2)], 200) as [number, number];
    console.log(`scale of ${count}: ${one.toFixed(2)} us on one thread, ${two.toFixed(2)} us on two`);
    assert.ok(two <= one * 1.25 + 0.5, `${count} elements: ${one} us, ${two} us`);
  }
});

test("an operator in a program, without and with a profile", async () => {
  const length = 2000;
  const { program } = chain(1, 1, length);
  const x = f32([1, 1], wave);
  const once = async () => {
    const start = process.hrtime.bigint();
    await program.run([x.data], []);
    return Number(process.hrtime.bigint() - start) / 1e3 / length;
  };
  const best = async (recording: boolean) => {
    const times: number[] = [];
    for (let i = 0; i < 40; i++) {
      if (recording) addon.startProfile();
      times.push(await once());
      if (recording) addon.stopProfile();
    }
    return Math.min(...times); // a millisecond's run that nothing else interrupted
  };
  await best(false);
  const off = Math.min(await best(false), await best(false));
  const on = Math.min(await best(true), await best(true));
  console.log(`an operator of a program: ${off.toFixed(3)} us, profiled ${on.toFixed(3)} us`);
  // 3 % of an operator of 50 us, and a training step's operators take that long and longer.
  assert.ok(on - off < 1.5, `${off} us, profiled ${on} us`);
});

test.run();
