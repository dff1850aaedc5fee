/**
 * The AVX-512 kernels on a processor that only exists in the emulator Bochs: recorded runs of every operator on level avx512
 * and, where Bochs knows a processor with AVX-512-BF16 (3.0 and later), those with bf16 operands through the real vdpbf16ps;
 * the vector functions against their stated errors. All in one start of the machine, some minutes long, so it runs only when
 * AFFUSE_TEST_BOCHS=1 asks for it; docs/architecture.md says what it needs. AFFUSE_TEST_ALL=1: all runs, on several threads.
 */
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { packageRoot } from "#root";
import { sh } from "../helpers/process.ts";
import { record, someOfTheLarge } from "../operators/record.ts";
import type { Run } from "../operators/suite.ts";
import { type Command, emulate, missing, models, type Ran } from "./bochs/pc.ts";

const library = path.join(packageRoot, "build-cmake/libaffuse.a");
const all = process.env.AFFUSE_TEST_ALL === "1";
function reason(): string | null {
  if (process.env.AFFUSE_TEST_BOCHS !== "1") return "AFFUSE_TEST_BOCHS=1 runs it, some minutes in Bochs";
  if (process.arch !== "x64") return "this is not x86-64";
  return existsSync(library) ? missing() : `there is no ${library}`;
}
const why = reason();
if (why) console.log(`skipped: ${why}`);
const run = why ? test.skip : test;
const BF16 = "sapphire_rapids";
const bf16 = !why && models().includes(BF16);
if (!why && !bf16) console.log(`skipped: AVX-512-BF16, for this Bochs does not know the processor ${BF16}`);

const folder = mkdtempSync(path.join(tmpdir(), "affuse-avx512-"));
test.after(() => rmSync(folder, { recursive: true, force: true }));
const at = (name: string) => path.join(folder, name);
// Less than what test/run.mjs gives a file.
const SECONDS = Number(process.env.AFFUSE_TEST_TIMEOUT ?? 900) - 60;

const LEVEL = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mbmi2"];
function compile(name: string, args: string[]): void {
  const { code, output } = sh(process.env.CXX ?? "c++", ["-std=c++20", "-O2", "-static", ...args, "-o", at(name)]);
  assert.is(code, 0, output);
}

/**
 * Left out: lrn where divisors are exactly its k = 2, for nothing is added or only the square of an x near 0. Bochs (2.7 and
 * 3.0) takes 2^n for the inverse root of odd powers of two as well: its vrsqrt14ps(2) is 1.
 */
const exact = ({ info, case: { attributes } }: Run) =>
  info.name.startsWith("lrn") && (attributes.alpha === 0 || attributes.size === 1);

const ran = new Map<string, Ran>();
let recorded = { runs: 0, operators: 0 };
let rounded = recorded;

run("a PC with AVX-512 starts, and every program ends", async () => {
  compile("replay", [
    ...["-Wall", "-Wextra", `-I${path.join(packageRoot, "native/include")}`],
    ...[path.join(packageRoot, "test/native/replay.cc"), library, "-pthread"],
  ]);
  compile("math", [
    ...["-ffp-contract=fast", "-fno-math-errno", ...LEVEL, "-DAFFUSE_ISA=avx512", "-DAFFUSE_ISA_AVX512=1"],
    ...[`-I${packageRoot}`, "-DAFFUSE_MATH_STEP=100003", path.join(packageRoot, "test/native/math.cc")],
  ]);
  const some = someOfTheLarge();
  recorded = record(at("runs"), (one) => !exact(one) && some(one));
  const files: Record<string, string> = { replay: at("replay"), math: at("math"), runs: at("runs") };
  const threads = ["--threads", all ? "1,3" : "1"];
  const level = (name: string) => ({ AFFUSE_CPU: name });
  const commands: Record<string, Command> = {
    chosen: { args: ["/replay", "/runs", "--only", "scale", "--threads", "1"] },
    control: { args: ["/replay", "/runs", "--only", "linear", "--sabotage"], env: level("avx512") },
    math: { args: ["/math"] },
    avx512: { args: ["/replay", "/runs", ...threads], env: level("avx512") },
  };
  if (bf16) {
    compile("instruction", ["-ffp-contract=off", ...LEVEL, "-mavx512bf16", path.join(packageRoot, "test/native/bf16_instruction.cc")]);
    rounded = record(at("rounded"), ({ case: { attributes } }) => attributes.precision === "bf16");
    Object.assign(files, { instruction: at("instruction"), rounded: at("rounded") });
    Object.assign(commands, {
      instruction: { args: ["/instruction"] },
      bf16: { args: ["/replay", "/rounded", ...threads], env: level("avx512bf16") },
      "bf16 control": { args: ["/replay", "/rounded", "--only", "linear", "--sabotage"], env: level("avx512bf16") },
    });
  }
  const results = await emulate(bf16 ? BF16 : "corei7_skylake_x", files, Object.values(commands), SECONDS);
  Object.keys(commands).forEach((name, i) => {
    ran.set(name, results[i] as Ran);
  });
});

function result(name: string): Ran {
  const found = ran.get(name);
  assert.ok(found, "the machine did not run");
  return found as Ran;
}

function passes(name: string, summary: string): void {
  const { code, output } = result(name);
  assert.is(code, 0, output.slice(-4000));
  assert.match(output, summary);
  console.log(summary);
}

function moves(name: string): void {
  const { code, output } = result(name);
  assert.is(code, 1, output.slice(-400));
  const failed = Number(output.match(/, (\d+) failed$/m)?.[1]);
  const moved = Number(output.match(/^(\d+) moved$/m)?.[1]);
  assert.ok(moved > 50 && failed === moved, output.slice(-400));
}

run("avx512 is what runs when nobody asks, or the level above it", () => {
  assert.match(result("chosen").output, bf16 ? /^avx512bf16: \d+ runs of .*, 0 failed$/m : /^avx512: \d+ runs of .*, 0 failed$/m);
});
run("avx512: every operator within its bounds", () =>
  passes("avx512", `avx512: ${recorded.runs} runs of ${recorded.operators} operators, 0 failed`));
run("avx512: vector functions within their stated errors", () => assert.is(result("math").code, 0, result("math").output));
run("control: results moved beyond their bounds are found", () => moves("control"));

const runBf16 = bf16 ? test : test.skip;
runBf16("the emulated vdpbf16ps is as it is described", () => passes("instruction", "0 of 960000 wrong"));
runBf16("avx512bf16: every run with bf16 operands within its bounds", () =>
  passes("bf16", `avx512bf16: ${rounded.runs} runs of ${rounded.operators} operators, 0 failed`));
runBf16("control: so are those of bf16 operands", () => moves("bf16 control"));

test.run();
