/**
 * The library for 64-bit Arm: cross-compiled, then recorded runs of every operator replayed under qemu-user on the neon
 * level and on baseline, and the vector functions against their stated errors. All small runs, and some of the large ones:
 * qemu computes floating point in software, and the largest twentieth of the runs takes nine tenths of its time.
 * AFFUSE_TEST_ALL=1 replays all. Needs aarch64-linux-gnu-g++, cmake and qemu-aarch64; without them it skips and says which is
 * missing.
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import path from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { packageRoot } from "#root";
import { start } from "../helpers/process.ts";
import { record, someOfTheLarge } from "../operators/record.ts";

const COMPILER = "aarch64-linux-gnu-g++";
const QEMU = "qemu-aarch64";
const SYSROOT = "/usr/aarch64-linux-gnu";
const missing = [COMPILER, QEMU, "cmake"].filter(
  (tool) => spawnSync(tool, ["--version"], { stdio: "ignore" }).status !== 0,
);
if (missing.length > 0) console.log(`skipped: no ${missing.join(", no ")} on this machine`);
const run = missing.length > 0 ? test.skip : test;

// Kept between runs: only what changed is compiled again.
const build = path.join(packageRoot, "build/aarch64");
const folder = mkdtempSync(path.join(tmpdir(), "affuse-aarch64-"));
const recording = path.join(folder, "runs.bin");
const replay = path.join(folder, "replay");
test.after(() => rmSync(folder, { recursive: true, force: true }));

async function must(command: string, args: string[]): Promise<void> {
  const { code, output } = await start(command, args);
  assert.is(code, 0, output);
}

const emulated = (level: string, program: string, args: string[] = []) =>
  start(QEMU, ["-L", SYSROOT, program, ...args], { AFFUSE_CPU: level });

let recorded = { runs: 0, operators: 0 };

run("builds without Node, with the toolchain file", async () => {
  const toolchain = path.join(packageRoot, "cmake/toolchains/aarch64-linux-gnu.cmake");
  await must("cmake", [
    ...["-S", packageRoot, "-B", build],
    `-DCMAKE_TOOLCHAIN_FILE=${toolchain}`,
    "-DAFFUSE_ADDON=OFF",
  ]);
  const jobs = String(Math.min(2, availableParallelism()));
  await must("cmake", ["--build", build, "--target", "affuse", "--parallel", jobs]);
  await must(COMPILER, [
    ...["-std=c++20", "-O2", "-Wall", "-Wextra", "-Werror"],
    `-I${path.join(packageRoot, "native/include")}`,
    path.join(packageRoot, "test/native/replay.cc"),
    path.join(build, "libaffuse.a"),
    ...["-pthread", "-o", replay],
  ]);
  recorded = record(recording, someOfTheLarge());
});

for (const [level, threads] of [
  ["neon", "1,3"],
  ["baseline", "1"],
] as const) {
  run(`${level}: every operator within its bounds, ${threads} threads`, async () => {
    const { code, output } = await emulated(level, replay, [recording, "--threads", threads]);
    assert.is(code, 0, output.slice(-4000));
    const { runs, operators } = recorded;
    assert.match(output, `${level}: ${runs} runs of ${operators} operators, 0 failed`);
  });
}

run("neon is what runs when nobody asks, and a level of another architecture is refused", async () => {
  const chosen = await emulated("", replay, [recording, "--only", "scale", "--threads", "1"]);
  assert.match(chosen.output, /^neon: /m);
  const refused = await emulated("avx2", replay, [recording, "--only", "scale", "--threads", "1"]);
  assert.is(refused.code, 1);
  assert.match(refused.output, /ERR_AFFUSE_CPU: .*baseline, neon.*avx2/);
});

run("control: results moved beyond their bounds are found", async () => {
  const { code, output } = await emulated("neon", replay, [recording, "--only", "linear", "--sabotage"]);
  assert.is(code, 1);
  const failed = Number(output.match(/, (\d+) failed$/m)?.[1]);
  const moved = Number(output.match(/^(\d+) moved$/m)?.[1]);
  assert.ok(moved > 50 && failed === moved, output.slice(-400));
});

for (const level of ["neon", "baseline"]) {
  run(`${level}: vector functions within their stated errors`, async () => {
    const program = path.join(folder, `math-${level}`);
    await must(COMPILER, [
      ...["-std=c++20", "-O2", "-ffp-contract=fast", "-fno-math-errno"],
      ...[`-DAFFUSE_ISA=${level}`, `-DAFFUSE_ISA_${level.toUpperCase()}=1`, `-I${packageRoot}`],
      ...["-DAFFUSE_MATH_STEP=10007", path.join(packageRoot, "test/native/math.cc"), "-o", program],
    ]);
    const { code, output } = await emulated(level, program);
    assert.is(code, 0, output);
  });
}

test.run();
