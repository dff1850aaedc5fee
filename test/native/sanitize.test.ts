/**
 * The native stress program (test/native/stress) under ThreadSanitizer, and under AddressSanitizer with
 * UndefinedBehaviorSanitizer: pool, scheduler, programs (on a device with little memory too), and every operator of a few
 * rooms on several threads. A few rooms and one instruction set, because the rest is compiled for longer than it runs; all of
 * them at once:
 *
 *   cmake -S test/native/stress -B /tmp/stress -DAFFUSE_ROOT=$PWD -DAFFUSE_SANITIZE=address,undefined
 *   cmake --build /tmp/stress && /tmp/stress/stress 200
 */
import { execFile } from "node:child_process";
import { cpSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { packageRoot } from "#root";

const checkout = mkdtempSync(path.join(tmpdir(), "sanitized-"));
test.after(() => rmSync(checkout, { recursive: true, force: true }));

function run(command: string, args: string[], env: Record<string, string> = {}) {
  return new Promise<{ code: number; output: string }>((resolve) => {
    const options = { cwd: checkout, env: { ...process.env, ...env }, maxBuffer: 1 << 26 };
    execFile(command, args, options, (error, stdout, stderr) => {
      resolve({ code: error ? (typeof error.code === "number" ? error.code : 1) : 0, output: stdout + stderr });
    });
  });
}

/** Why this compiler cannot build and run a program with these sanitizers, or null. */
async function missing(kind: string): Promise<string | null> {
  const source = path.join(checkout, "probe.cc");
  const program = path.join(checkout, `probe-${kind.split(",")[0]}`);
  writeFileSync(source, "int main() { return 0; }\n");
  const built = await run(process.env.CXX ?? "c++", [`-fsanitize=${kind}`, source, "-o", program]);
  if (built.code !== 0) return `the compiler has no -fsanitize=${kind}`;
  return (await run(program, [])).code === 0 ? null : `programs built with -fsanitize=${kind} do not start here`;
}

for (const part of ["CMakeLists.txt", "cmake", "kernels", "native", "package.json"]) {
  cpSync(path.join(packageRoot, part), path.join(checkout, part), { recursive: true });
}
writeFileSync(
  path.join(checkout, "kernels/rooms.cmake"),
  `affuse_room(common)
affuse_room(gemm)
affuse_room(roof)
affuse_room(softmax kSoftmax kSoftmaxBackward)
affuse_room(elementwise kAdd kAddBackward kMul kMulBackward kScale kScaleBackward)
affuse_room(dropout kDropout kDropoutBackward)
affuse_room(adamw kAdam kAdamw)
`,
);

for (const [kind, args] of [
  ["thread", ["100"]],
  ["address,undefined", ["100", "fork"]],
] as const) {
  const reason = await missing(kind);
  if (reason !== null) console.log(`skipped: ${reason}`);
  (reason === null ? test : test.skip)(kind, async () => {
    const build = path.join(checkout, `build-${kind.split(",")[0]}`);
    const source = path.join(packageRoot, "test/native/stress");
    const definitions = [
      `-DAFFUSE_ROOT=${checkout}`,
      `-DAFFUSE_SANITIZE=${kind}`,
      "-DAFFUSE_CPU_LEVELS=baseline",
      "-DCMAKE_BUILD_TYPE=Debug",
    ];
    for (const step of [
      ["-S", source, "-B", build, ...definitions],
      ["--build", build, "--parallel", "2"],
    ]) {
      const { code, output } = await run("cmake", step);
      assert.is(code, 0, output);
    }
    const options = { TSAN_OPTIONS: "halt_on_error=1", ASAN_OPTIONS: "detect_leaks=1", UBSAN_OPTIONS: "print_stacktrace=1" };
    const { code, output } = await run(path.join(build, "stress"), [...args], options);
    assert.is(code, 0, output);
    assert.match(output, /done/);
    assert.not.match(output, /Sanitizer|runtime error/);
    const control = await run(path.join(build, "stress"), ["1", "broken"], options);
    assert.is.not(control.code, 0);
    assert.match(control.output, /Sanitizer: (data race|heap-use-after-free)/);
  });
}

test.run();
