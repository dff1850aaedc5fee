/** The thread pool under stress: results never depend on the number of threads or on who else calls. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { packageRoot } from "#root";
import { Random } from "../../lib/data/random.ts";
import type { HostTensor } from "../../lib/native/addon.ts";
import { addon, chain, codeOf, f32, wave } from "./helpers.ts";

const bits = (tensor: HostTensor | null) =>
  Buffer.from((tensor as HostTensor).data.buffer).toString("base64");
const gather = () => [
  f32([7, 33, 40], wave),
  { dtype: "i32" as const, shape: [7], data: new Int32Array([33, 1, 0, 12, 33, 7, 32]) },
  f32([24, 40], (i) => wave(i) / 6),
  f32([24], (i) => wave(i)),
  f32([24], (i) => wave(i + 5)),
];

test("bitwise equal results for 1 to 8 threads", () => {
  const results = [1, 2, 3, 8].map((threads) =>
    addon.call("cpu", "afg", gather(), {}, [true, true], threads).map((t) => t && bits(t)),
  );
  for (const result of results) assert.equal(result, results[0]);
});

test("hundreds of concurrent calls with mixed thread counts", async () => {
  const random = new Random(7, "pool");
  const x = f32([96, 128], wave);
  const W = f32([64, 128], (i) => wave(i * 3));
  const expected = bits(addon.call("cpu", "linear", [x, W], {}, [true], 1)[0] as HostTensor);
  for (let round = 0; round < 4; round++) {
    const calls = Array.from({ length: 100 }, () =>
      addon.callAsync("cpu", "linear", [x, W], {}, [true], 1 + random.integer(6)),
    );
    for (const result of await Promise.all(calls)) assert.is(bits(result[0] as HostTensor), expected);
  }
});

test("synchronous calls beside programs beside asynchronous calls", async () => {
  const { program } = chain(96, 64, 60);
  const x = f32([64, 96], wave);
  const gathered = addon.call("cpu", "afg", gather(), {}, [true, true], 1).map((t) => t && bits(t));
  for (let round = 0; round < 20; round++) {
    const run = program.run([x.data], []);
    const later = addon.callAsync("cpu", "afg", gather(), {}, [true, true]);
    assert.equal(
      addon.call("cpu", "afg", gather(), {}, [true, true], 2).map((t) => t && bits(t)),
      gathered,
    );
    assert.equal(
      (await later).map((t) => t && bits(t)),
      gathered,
    );
    assert.equal((await run)[0], x.data);
  }
});

test("two programs at once, and calls beside them: none waits for the other's end", async () => {
  const side = 192;
  const long = chain(side, side, 400).program;
  const short = chain(16, 16, 4).program;
  const x = f32([side, side], wave);
  const y = f32([16, 16], wave);
  const z = f32([64, 512], wave);
  await Promise.all([long.run([x.data], []), short.run([y.data], [])]);
  let running = true;
  const whole = long.run([x.data], []).then((result) => {
    running = false;
    return result;
  });
  let runs = 0;
  while (running && runs < 1000) {
    await short.run([y.data], []);
    addon.call("cpu", "softmax", [z], {}, [true], 4);
    if (running) runs++;
  }
  assert.ok(runs >= 3, `${runs} runs of the short program while the long one ran`);
  assert.equal((await whole)[0], x.data);
});

test("an idle pool takes no processor time", async () => {
  addon.call("cpu", "softmax", [f32([512, 512], wave)], {}, [true], 4);
  await new Promise((resolve) => setTimeout(resolve, 20));
  const before = process.cpuUsage();
  await new Promise((resolve) => setTimeout(resolve, 400));
  const { user, system } = process.cpuUsage(before);
  assert.ok(user + system < 40_000, `${(user + system) / 1000} ms of 400`);
});

test("thread counts that cannot be", async () => {
  const x = f32([4], wave);
  for (const threads of [0, -1, 1.5, 1e9, Number.NaN, "2"]) {
    assert.is(
      await codeOf(() => addon.call("cpu", "scale", [x], {}, [true], threads as number)),
      "ERR_AFFUSE_THREADS",
    );
    assert.is(await codeOf(() => addon.setThreads(threads as number)), "ERR_AFFUSE_THREADS");
  }
  assert.is(await codeOf(() => addon.setThreads(undefined as never)), "ERR_AFFUSE_THREADS");
});

test("setThreads is what calls without a count use", () => {
  const before = addon.cpu().threads;
  addon.setThreads(3);
  assert.is(addon.cpu().threads, 3);
  addon.setThreads(before);
});

test("helpers that are woken leave their caller's processor alone", async () => {
  if (process.platform !== "linux" || os.availableParallelism() < 2) return;
  const x = f32([512, 512], wave);
  for (let round = 0; round < 3; round++) {
    await sleep(20); // the helper of the last round sleeps
    addon.call("cpu", "linear", [x, x], {}, [true], 2);
  }
  const allowed = readdirSync("/proc/self/task").map((thread) => {
    const status = readFileSync(`/proc/self/task/${thread}/status`, "utf8");
    return /Cpus_allowed:\s*(\S+)/.exec(status)?.[1]?.replaceAll(",", "") ?? "";
  });
  const count = (mask: string) => [...BigInt(`0x${mask}`).toString(2)].filter((bit) => bit === "1").length;
  const all = Math.max(...allowed.map(count));
  assert.ok(
    allowed.some((mask) => count(mask) === all - 1),
    `processors allowed to this process's threads: ${allowed.join(" ")}`,
  );
  const own = readFileSync("/proc/self/status", "utf8");
  assert.is(
    count(/Cpus_allowed:\s*(\S+)/.exec(own)?.[1]?.replaceAll(",", "") ?? "0"),
    all,
    "the caller's own are as they were",
  );
});

test("a helper that calls for helpers does not hand on what it was left with itself", () => {
  if (process.platform !== "linux") return;
  const folder = mkdtempSync(path.join(os.tmpdir(), "affuse-placement-"));
  try {
    const program = path.join(folder, "placement");
    const sources = ["test/native/placement.cc", "native/runtime/pool.cc", "native/runtime/placement.cc"];
    const flags = ["-std=c++20", "-O1", "-I.", ...sources, "-o", program, "-pthread"];
    execFileSync(process.env.CXX ?? "c++", flags, { cwd: packageRoot });
    // Of four processors: 14 is all but 0, 13 all but 1, 3 is 0 and 1, of which 2 leaves out 0.
    assert.equal(execFileSync(program, { encoding: "utf8" }).trim().split("\n"), [
      "called from processor 0: 2 of 14",
      "by a helper, from processor 1: 1 of 13 1 of 14",
      "by a thread that may use 0 and 1, from processor 0: 2 of 2 1 of 3",
    ]);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test.run();
