// Every CUDA kernel once more with the library built under AddressSanitizer (overruns of shared and device memory) and under
// ThreadSanitizer (missing barriers, blocks that share what they write). What Node itself reports is not ours.
import { execFile, execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import path from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { packageRoot } from "#root";
import { ensureDevice } from "./device.ts";

ensureDevice();

const KINDS = [
  { kind: "address", library: "libasan.so", options: { ASAN_OPTIONS: "detect_leaks=0:detect_stack_use_after_return=0" } },
  { kind: "thread", library: "libtsan.so", options: { TSAN_OPTIONS: "report_bugs=1:exitcode=0:second_deadlock_stack=1" } },
] as const;

function run(command: string, args: string[], env: Record<string, string> = {}) {
  return new Promise<{ code: number; output: string }>((resolve) => {
    const options = { cwd: packageRoot, env: { ...process.env, ...env }, maxBuffer: 1 << 28 };
    execFile(command, args, options, (error, stdout, stderr) => {
      resolve({ code: error ? (typeof error.code === "number" ? error.code : 1) : 0, output: stdout + stderr });
    });
  });
}

for (const { kind, library, options } of KINDS) {
  const preload = execFileSync(process.env.CC ?? "cc", [`-print-file-name=${library}`], { encoding: "utf8" }).trim();
  const there = path.isAbsolute(preload) && existsSync(preload);
  if (!there) console.log(`skipped: the compiler has no ${library}`);
  (there ? test : test.skip)(kind, async () => {
    const built = await run(process.execPath, ["scripts/build-emulated.mjs", "--sanitize", kind, "--if-stale"]);
    assert.is(built.code, 0, built.output);
    for (const file of ["parity", "rows"]) {
      const { code, output } = await run(process.execPath, ["--import", "tsx", `test/cuda/${file}.test.ts`], {
        ...options,
        LD_PRELOAD: preload,
        AFFUSE_EMULATED_LIBRARY: path.join(packageRoot, `build/emulated-${kind}/libaffuse_emulated.so`),
        AFFUSE_TEST_MOST: kind === "thread" ? "200" : "700", // a switch costs ThreadSanitizer microseconds
      });
      const reports = output
        .split(/^={10,}$/m)
        .filter((part) => /(WARNING: ThreadSanitizer|ERROR: AddressSanitizer)/.test(part));
      const ours = reports.filter((report) => report.includes("libaffuse_emulated"));
      assert.is(ours.length, 0, ours[0]);
      assert.is(code, 0, output.slice(-4000));
      assert.match(output, /Passed: +[1-9]/);
    }
  });
}

test.run();
