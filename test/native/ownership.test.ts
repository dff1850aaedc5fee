/** The table in docs/memory.md, row by row. */
import { constants } from "node:buffer";
import { test } from "uvu";
import * as assert from "uvu/assert";
import type { HostTensor, TypedArray } from "../../lib/native/addon.ts";
import { addon, codeOf, f32, wave } from "./helpers.ts";

const expected = () => Array.from((addon.call("cpu", "scale", [f32([6], wave)], { factor: 2 }, [true])[0] as HostTensor).data);
const over = (data: TypedArray): HostTensor => ({ dtype: "f32", shape: [data.length], data });
const fill = (data: TypedArray) => {
  for (let i = 0; i < data.length; i++) data[i] = wave(i);
  return data;
};
const scale = (x: HostTensor, out: TypedArray | boolean) => addon.call("cpu", "scale", [x], { factor: 2 }, [out])[0] as HostTensor;

test("a synchronous call writes into the caller's array and returns it", () => {
  const target = new Float32Array(6);
  const result = scale(f32([6], wave), target);
  assert.is(result.data, target);
  assert.equal(Array.from(target), expected());
});

test("odd offsets: arrays aligned to 4 bytes only, on both sides", () => {
  const input = fill(new Float32Array(new ArrayBuffer(64), 4, 6));
  const target = new Float32Array(new ArrayBuffer(64), 12, 6);
  scale(over(input), target);
  assert.equal(Array.from(target), expected());
});

test("zero length: legal, also over an empty buffer", () => {
  const result = scale({ dtype: "f32", shape: [0, 3], data: new Float32Array(0) }, true);
  assert.equal([result.shape, result.data.length], [[0, 3], 0]);
  assert.is(scale({ dtype: "f32", shape: [0], data: new Float32Array(0) }, new Float32Array(0)).data.length, 0);
});

test("no elements: the other dimensions cost neither time nor memory", () => {
  const empty = (shape: number[]): HostTensor => ({ dtype: "f32", shape, data: new Float32Array(0) });
  const devices = addon.backends().flatMap(({ name, available }) => (available && name !== "cuda" ? [name] : []));
  for (const device of devices) {
    const start = performance.now();
    const [swapped] = addon.call(device, "transpose", [empty([2147483647, 0])], {}, [true]);
    assert.equal(swapped?.shape, [0, 2147483647]);
    const [normal] = addon.call(device, "lrn", [empty([0, 1e9, 5, 3])], { size: 1 }, [true], 64);
    assert.equal(normal?.shape, [0, 1e9, 5, 3]);
    assert.ok(performance.now() - start < 2000, `${device}: ${performance.now() - start} ms`);
  }
});

test("more than an array of this Node can hold is an error, not a crash", async () => {
  const elements = 1.1 * 2 ** 30;
  if (constants.MAX_LENGTH >= 4 * elements) return;
  // The pages are never touched, so that they cost nothing.
  assert.is(await codeOf(() => addon.allocate(elements | 0)), "ERR_AFFUSE_MEMORY");
  const inputs: HostTensor[] = [[1, 0, elements | 0], [1, 0]].map((shape) => ({
    dtype: "f32",
    shape,
    data: new Float32Array(0),
  }));
  assert.is(await codeOf(() => addon.call("cpu", "weighted_sum", inputs, {}, [true])), "ERR_AFFUSE_MEMORY");
});

test("detached memory is refused on both sides, sync and async", async () => {
  const gone = new Float32Array(6);
  structuredClone(gone.buffer, { transfer: [gone.buffer] });
  const input: HostTensor = { dtype: "f32", shape: [6], data: gone };
  assert.is(await codeOf(() => scale(input, true)), "ERR_AFFUSE_DETACHED");
  assert.is(await codeOf(() => addon.callAsync("cpu", "scale", [input], {}, [true])), "ERR_AFFUSE_DETACHED");
  assert.is(await codeOf(() => scale(f32([6], wave), gone)), "ERR_AFFUSE_DETACHED");
});

test("memory that a getter detaches while the call is read is noticed", async () => {
  const first = new Float32Array(6);
  const second = {
    dtype: "f32" as const,
    shape: [6],
    get data() {
      structuredClone(first.buffer, { transfer: [first.buffer] });
      return new Float32Array(6);
    },
  };
  const inputs = [{ dtype: "f32" as const, shape: [6], data: first }, second];
  assert.is(await codeOf(() => addon.call("cpu", "add", inputs, {}, [true])), "ERR_AFFUSE_DETACHED");
});

test("a resizable buffer is taken at its present size; one that shrank is refused", async () => {
  const buffer = new (ArrayBuffer as unknown as new (n: number, o: object) => ArrayBuffer & { resize(n: number): void })(24, {
    maxByteLength: 64,
  });
  const tracking = fill(new Float32Array(buffer));
  const fixed = new Float32Array(buffer, 0, 6);
  assert.equal(Array.from(scale({ dtype: "f32", shape: [6], data: tracking }, true).data), expected());
  buffer.resize(12);
  assert.is(tracking.length, 3);
  assert.is(await codeOf(() => scale({ dtype: "f32", shape: [6], data: tracking }, true)), "ERR_AFFUSE_SHAPE");
  assert.is(await codeOf(() => scale({ dtype: "f32", shape: [6], data: fixed }, true)), "ERR_AFFUSE_SHAPE");
  assert.is(await codeOf(() => scale(f32([6], wave), fixed)), "ERR_AFFUSE_SHAPE");
});

test("shared memory: read, never written", async () => {
  const shared = fill(new Float32Array(new SharedArrayBuffer(24)));
  assert.equal(Array.from(scale(over(shared), true).data), expected());
  const later = await addon.callAsync("cpu", "scale", [over(shared)], { factor: 2 }, [true]);
  assert.equal(Array.from((later[0] as HostTensor).data), expected());
  assert.is(await codeOf(() => scale(f32([6], wave), shared)), "ERR_AFFUSE_SHARED");
});

test("shared int32 inputs work, through a copy", () => {
  const lengths = new Int32Array(new SharedArrayBuffer(8));
  lengths.set([2, 1]);
  const x = f32([2, 2, 3], wave);
  const inputs = (data: Int32Array) => [x, { dtype: "i32" as const, shape: [2], data }, f32([3], wave), f32([1], wave)];
  const shared = addon.call("cpu", "ratio_attention", inputs(lengths), {}, [true, true]);
  const plain = addon.call("cpu", "ratio_attention", inputs(new Int32Array([2, 1])), {}, [true, true]);
  assert.equal(shared, plain);
});

test("outputs that overlap an input or each other are refused", async () => {
  const memory = fill(new Float32Array(16));
  const input = over(memory.subarray(0, 6));
  assert.is(await codeOf(() => scale(input, memory.subarray(3, 9))), "ERR_AFFUSE_OVERLAP");
  assert.is(await codeOf(() => scale(input, input.data)), "ERR_AFFUSE_OVERLAP");
  const backward = () =>
    addon.call("cpu", "add.backward", [input, input, input], {}, [memory.subarray(6, 12), memory.subarray(8, 14)]);
  assert.is(await codeOf(backward), "ERR_AFFUSE_OVERLAP");
});

test("an optimiser may write onto the inputs of the same name, and only exactly onto them", async () => {
  const make = () => [f32([8], wave), f32([8], (i) => wave(i + 3)), f32([8], () => 0), f32([8], () => 0)];
  const fresh = addon.call("cpu", "adamw", make(), { step: 1 }, [true, true, true]).map((t) => Array.from((t as HostTensor).data));
  const inputs = make() as [HostTensor, HostTensor, HostTensor, HostTensor];
  const [p, , m, v] = inputs;
  addon.call("cpu", "adamw", inputs, { step: 1 }, [p.data, m.data, v.data]);
  assert.equal([p, m, v].map(({ data }) => Array.from(data)), fresh);
  const crossed = make() as [HostTensor, HostTensor, HostTensor, HostTensor];
  const call = () => addon.call("cpu", "adamw", crossed, { step: 1 }, [crossed[2].data, true, true]);
  assert.is(await codeOf(call), "ERR_AFFUSE_OVERLAP");
});

test("an asynchronous call has copied its inputs when it returns", async () => {
  const x = f32([6], wave);
  const promise = addon.callAsync("cpu", "scale", [x], { factor: 2 }, [true]);
  x.data.fill(Number.NaN);
  structuredClone(x.data.buffer, { transfer: [x.data.buffer as ArrayBuffer] });
  assert.equal(Array.from(((await promise)[0] as HostTensor).data), expected());
});

test("an asynchronous call refuses targets", async () => {
  const call = () => addon.callAsync("cpu", "scale", [f32([6], wave)], {}, [new Float32Array(6) as never]);
  assert.is(await codeOf(call), "ERR_AFFUSE_OUTPUT");
});

test("wrong classes, types, lengths and sizes of memory", async () => {
  const x = f32([6], wave);
  assert.is(await codeOf(() => scale(x, new Float64Array(6))), "ERR_AFFUSE_DTYPE");
  assert.is(await codeOf(() => scale(x, new Float32Array(5))), "ERR_AFFUSE_SHAPE");
  assert.is(await codeOf(() => scale({ ...x, data: new Uint8Array(6) as never }, true)), "ERR_AFFUSE_DTYPE");
  assert.is(await codeOf(() => scale({ ...x, data: [1, 2] as never }, true)), "ERR_AFFUSE_DTYPE");
  assert.is(await codeOf(() => scale({ ...x, shape: [7] }, true)), "ERR_AFFUSE_SHAPE");
  assert.is(await codeOf(() => scale({ ...x, shape: [-6] }, true)), "ERR_AFFUSE_SHAPE");
  assert.is(await codeOf(() => scale({ ...x, shape: [2 ** 40, 2 ** 40] }, true)), "ERR_AFFUSE_SHAPE");
  assert.is(await codeOf(() => scale({ ...x, shape: [1.5, 4] }, true)), "ERR_AFFUSE_SHAPE");
  assert.is(await codeOf(() => scale({ ...x, shape: [1, 1, 1, 1, 1, 6] }, true)), "ERR_AFFUSE_RANK");
  assert.is(await codeOf(() => scale({ dtype: "f64", shape: [6], data: new Float64Array(6) }, true)), "ERR_AFFUSE_DTYPE");
});

test("a getter that throws ends the call with its own error", () => {
  const bad = { dtype: "f32", shape: [1], get data(): never { throw new RangeError("mine"); } };
  assert.throws(() => addon.call("cpu", "scale", [bad as never], {}, [true]), /mine/);
});

test.run();
