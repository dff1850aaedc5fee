/**
 * The runtime's own stress program (test/native/stress) under ThreadSanitizer, and under AddressSanitizer with
 * UndefinedBehaviorSanitizer. Built with a few rooms only: threads and lifetimes are what is looked at.
 */
import { execFile } from "node:child_process";
import { cpSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { packageRoot } from "#root";

const checkout = mkdtempSync(path.join(tmpdir(), "sanitized-"));
for (const part of ["CMakeLists.txt", "cmake", "kernels", "native", "package.json"]) {
  cpSync(path.join(packageRoot, part), path.join(checkout, part), { recursive: true });
}
writeFileSync(
  path.join(checkout, "kernels/rooms.cmake"),
  "affuse_room(common)\naffuse_room(softmax kSoftmax kSoftmaxBackward)\naffuse_room(elementwise kAdd kAddBackward)\n",
);
test.after(() => rmSync(checkout, { recursive: true, force: true }));

function run(command: string, args: string[], env: Record<string, string> = {}): Promise<{ code: number; output: string }> {
  return new Promise((resolve) => {
    const options = { cwd: checkout, env: { ...process.env, ...env }, maxBuffer: 1 << 26 };
    execFile(command, args, options, (error, stdout, stderr) => {
      resolve({ code: error ? (typeof error.code === "number" ? error.code : 1) : 0, output: stdout + stderr });
    });
  });
}

for (const [kind, args] of [["thread", ["200"]], ["address,undefined", ["200", "fork"]]] as const) {
  test(kind, async () => {
    const build = path.join(checkout, `build-${kind.split(",")[0]}`);
    const source = path.join(packageRoot, "test/native/stress");
    const definitions = [`-DAFFUSE_ROOT=${checkout}`, `-DAFFUSE_SANITIZE=${kind}`, "-DCMAKE_BUILD_TYPE=RelWithDebInfo"];
    for (const step of [["-S", source, "-B", build, ...definitions], ["--build", build, "--parallel", "2"]]) {
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
