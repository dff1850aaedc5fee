// Runs queued one behind another, on a device that computes a while and gives nothing before it is waited for (stand_in.cc):
// what is under way when, what a run that fails does to the others, and memory for fewer runs than there are.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { device, ensureDevice } from "./device.ts";
import { type Environment, told } from "./stand-in.ts";

/** Three runs of a program that are given at once. */
const STEPS: [environment: Environment, what: string, between: string[]][] = [
  // Between two ends of a step: one computes, the next is fed and queued; a third when the first has ended.
  [
    { AFFUSE_STAND_IN_RUNS: "3" },
    "the next run is fed and queued while a run computes",
    ["computing fed fed queued queued", "computing fed queued", "computing", ""],
  ],
  [
    { AFFUSE_STAND_IN_BYTES: "512" },
    "without memory for two runs each waits for the one before",
    ["computing fed queued", "computing fed queued", "computing fed queued", ""],
  ],
];
for (const [environment, what, between] of STEPS) {
  test(what, () => {
    const { own, library } = told(
      `const program = addon.createProgram(desc("cuda"));
const runs = [1, 2, 3].map((factor) => program.run([x.data.map((v) => factor * v)], []));
console.log((await Promise.all(runs)).map(([y]) => y.join()).join(" "));`,
      { AFFUSE_STAND_IN: "slow", ...environment },
    );
    const parts = library.join(" ").split("computed");
    assert.equal(
      parts.map((part) => part.trim().split(" ").sort().join(" ")),
      between,
    );
    assert.equal(own, ["2,4,6 4,8,12 6,12,18"]);
  });
}

test("promises are settled in order, each with what its run has left in a buffer that the next one writes", () => {
  const { own, library } = told(
    `const buffer = addon.createBuffer(64);
const program = addon.createProgram({ ...desc("cuda"), buffers: [buffer],
  values: [{ ...value, offset: 0, feed: 0 }, { ...value, buffer: 0, offset: 0 }] });
const settled = [];
const runs = [1, 2, 3, 4].map(async (factor) => {
  const [y] = await program.run([x.data.map((v) => factor * v)], []);
  settled.push(y.join());
});
const state = new Float32Array(3);
for (const access of ["read", "write"]) console.log(await tried(() => buffer[access](0, state)));
program.dispose(); // they end all the same
await runs[1];
console.log(await tried(() => buffer.read(0, state)));
await Promise.all(runs);
console.log(settled.join(" "));
buffer.read(0, state);
console.log(state.join());`,
    // A busy machine's script comes late, but not by two steps.
    { AFFUSE_STAND_IN: "slow", AFFUSE_STAND_IN_MS: "1000", AFFUSE_STAND_IN_RUNS: "4" },
  );
  const busy = "ERR_AFFUSE_BUSY";
  assert.equal(own, [busy, busy, busy, "2,4,6 4,8,12 6,12,18 8,16,24", "8,16,24"]);
  const before = library.slice(0, library.indexOf("computed"));
  assert.is(before.filter((line) => line === "queued").length, 2);
});

test("programs of the device and of the CPU that share a buffer keep their order", () => {
  const { own } = told(
    `const buffer = addon.createBuffer(64);
const scaled = (i, factor) => ({ op: "scale", inputs: [i], outputs: [1 - i], attributes: { factor } });
const program = (device, ...instructions) => addon.createProgram({ ...desc(device), buffers: [buffer],
  values: [{ ...value, buffer: 0, offset: 0 }, { ...value, offset: 0 }], instructions, feeds: [], fetches: [0] });
const here = program("cpu", scaled(0, 3), scaled(1, 1));
const there = program("cuda", scaled(0, 2), scaled(1, 2));
buffer.write(0, x.data);
const runs = [here, there, there, here, there, here, here].map((program) => program.run([], []));
console.log((await Promise.all(runs)).map(([y]) => y[0]).join());`,
    { AFFUSE_STAND_IN: "slow" },
  );
  assert.equal(own, ["3,12,48,144,576,1728,5184"]);
});

test("programs of two devices, each with a buffer that is on the other's, do not wait for each other", () => {
  if (device !== "emulated") return;
  ensureDevice();
  const { own } = told(
    `const buffers = [addon.createBuffer(512), addon.createBuffer(512)];
const values = [{ ...value, buffer: 0, offset: 0 }, { ...value, offset: 0 }];
const programs = buffers.map((buffer) =>
  ["cuda", "emulated"].map((device) =>
    addon.createProgram({ ...desc(device), buffers: [buffer], values, feeds: [], fetches: [1] })));
for (const buffer of buffers) buffer.write(0, x.data);
setTimeout(() => process.kill(process.pid, "SIGKILL"), 120000).unref();
let right = 0;
for (let run = 0; run < 3000; run++) {
  const results = await Promise.all(programs.map((both, i) => both[(run + i) % 2].run([], [])));
  right += results.filter(([y]) => y.join() === "2,4,6").length;
}
console.log(right);`,
    {},
  );
  assert.equal(own, ["6000"]);
});

for (const [what, second, codes] of [
  // What cannot be queued fails alone.
  ["a run that cannot be queued", "-1", ["2", "ERR_AFFUSE_CUDA", "6", "8"]],
  // The third is queued when the second loses the device, the fourth finds it lost.
  ["a run that loses the device", "NaN", ["2", ...Array(3).fill("ERR_AFFUSE_DEVICE_LOST")]],
] as const) {
  test(`${what}: those before it are right, those after it say what became of them`, () => {
    const { own } = told(
      `const program = addon.createProgram(desc("cuda"));
for (const run of [5, 6]) await program.run([x.data], []); // recorded
const runs = [1, ${second}, 3, 4].map((first) => tried(async () => [(await program.run([x.data.fill(first)], []))[0][0]]));
console.log((await Promise.all(runs)).join());
console.log(await tried(() => addon.call("cpu", "scale", [x], { factor: 0.5 }, [true])[0].data));`,
      { AFFUSE_STAND_IN: "slow" },
    );
    assert.equal(own, [codes.join(), "2,2,2"]);
  });
}

test("what finds no memory waits for runs that will give theirs back, and no longer", () => {
  // Room for the runs of two programs, one of them twice as large: 512 and 1024 bytes.
  const { own, library } = told(
    `const small = addon.createProgram(desc("cuda"));
const large = addon.createProgram({ ...desc("cuda"), arenaBytes: 1024 });
const scaled = (program, factor) => program.run([x.data.map((v) => factor * v)], []);
const after = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const call = (length) => tried(() => {
  const ones = { dtype: "f32", shape: [length], data: new Float32Array(length).fill(1) };
  return [addon.call("cuda", "scale", [ones], { factor: 2 }, [true])[0].data.filter((v) => v === 2).length];
});
const two = [scaled(small, 1), scaled(small, 3)];
await after(50); // the first one computes, the second is queued
two.push(scaled(large, 5));
console.log((await Promise.all(two)).map(([y]) => y.join()).join(" "));
const more = [scaled(small, 7), scaled(small, 8)];
await after(50);
console.log(await call(128)); // as many bytes as a large run
const last = scaled(small, 9);
await after(50);
console.log(await call(192)); // all there is
console.log(await call(256)); // more
console.log((await Promise.all([...more, last])).map(([y]) => y.join()).join(" "));`,
    { AFFUSE_STAND_IN: "slow", AFFUSE_STAND_IN_BYTES: String(512 + 1024) },
  );
  assert.equal(own, [
    "2,4,6 6,12,18 10,20,30",
    "128",
    "192",
    "ERR_AFFUSE_DEVICE_MEMORY",
    "14,28,42 16,32,48 18,36,54",
  ]);
  assert.is(library.filter((line) => line === "fed").length, 6, "nothing is fed twice");
});

test("room for one run at a time, and thousands of them: none fails for lack of it", () => {
  // Programs that share a buffer run one after another; whatever is done ahead of a run's turn, one always fits.
  const { own } = told(
    `const buffer = addon.createBuffer(64);
const shared = (bytes) => addon.createProgram({ ...desc("cuda"), arenaBytes: bytes, buffers: [buffer] });
const programs = [512, 1024, 256 * 3].map(shared);
let wrong = 0;
for (let round = 0; round < 60; round++) {
  const runs = Array.from({ length: 50 }, async (_, i) => {
    const [y] = await programs[(i * i + round) % 3].run([x.data.map((v) => i * v)], []);
    if (y.join() !== [2 * i, 4 * i, 6 * i].join()) wrong++;
  });
  const results = await Promise.allSettled(runs);
  for (const { reason } of results) if (reason) throw reason;
}
console.log(wrong);`,
    { AFFUSE_STAND_IN_BYTES: String(256 + 1024) },
  );
  assert.equal(own, ["0"]);
});

test.run();
