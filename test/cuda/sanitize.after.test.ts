// Every CUDA kernel once more with the library built under AddressSanitizer (overruns of shared and device memory) and under
// ThreadSanitizer (missing barriers, blocks that share what they write). Sanitizers see what a kernel does, not whether it is
// right, so that one call per kernel will do: the cheapest on several blocks among all calls that the other suites make, with
// the same bits as there; suites that have left no calls are run here. A kernel that none of them launches fails. What Node
// itself reports is not ours.
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { serialize } from "node:v8";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { packageRoot } from "#root";
import { start } from "../helpers/process.ts";
import { ensureDevice } from "./device.ts";
import { functionsOf, type Kernel, notLaunched } from "./kernels.ts";
import { callsIn, callsOf, chosen, type Recorded } from "./recorded.ts";

ensureDevice();

const KINDS = [
  { kind: "address", library: "libasan.so", options: { ASAN_OPTIONS: "detect_leaks=0:detect_stack_use_after_return=0" } },
  { kind: "thread", library: "libtsan.so", options: { TSAN_OPTIONS: "report_bugs=1:exitcode=0:detect_deadlocks=0" } },
] as const;
const SUITES = ["parity", "products", "reach", "rows", "shapes", "tf32"] as const;

const folder = mkdtempSync(path.join(tmpdir(), "affuse-sanitize-"));
test.after(() => rmSync(folder, { recursive: true, force: true }));

const node = (args: string[], env: Record<string, string> = {}) => start(process.execPath, args, env);

/** Files of calls that run every kernel, each for one process: what a device is like is read when it is opened. */
let files: { file: string; processors: string | undefined }[] = [];

test("every kernel is launched by a suite", async () => {
  const calls: Recorded[] = [];
  const shared = process.env.AFFUSE_TEST_SHARED ?? folder;
  for (const suite of SUITES) {
    const file = callsOf(shared, suite);
    if (!existsSync(file)) {
      const { code, output } = await node(["--import", "tsx", `test/cuda/${suite}.test.ts`], { AFFUSE_TEST_SHARED: shared });
      assert.is(code, 0, output.slice(-4000));
    }
    calls.push(...callsIn(file));
  }
  const best = chosen(calls);
  const known = functionsOf(process.env.AFFUSE_EMULATED_LIBRARY ?? "build/Release/libaffuse_emulated.so");
  const launched = [...best].map(([at, call]) => [known.get(at), call.kernels.get(at)] as [Kernel, number]);
  assert.equal(notLaunched(launched), []);
  const all = [...new Set(best.values())];
  const kinds = new Set(all.map((call) => call.environment.AFFUSE_EMULATOR_PROCESSORS));
  files = [...kinds].map((processors, i) => {
    const file = path.join(folder, `chosen-${i}`);
    const group = all.filter((call) => call.environment.AFFUSE_EMULATOR_PROCESSORS === processors);
    writeFileSync(file, serialize(group));
    return { file, processors };
  });
});

for (const { kind, library, options } of KINDS) {
  const preload = execFileSync(process.env.CC ?? "cc", [`-print-file-name=${library}`], { encoding: "utf8" }).trim();
  const there = path.isAbsolute(preload) && existsSync(preload);
  if (!there) console.log(`skipped: the compiler has no ${library}`);
  (there ? test : test.skip)(kind, async () => {
    assert.ok(files.length > 0, "no calls");
    const built = await node(["scripts/build-emulated.mjs", "--sanitize", kind, "--if-stale"]);
    assert.is(built.code, 0, built.output);
    const emulated = path.join(packageRoot, `build/emulated-${kind}/libaffuse_emulated.so`);
    const known = functionsOf(emulated);
    const launched: [Kernel, number][] = [];
    for (const { file, processors } of files) {
      const { code, stdout, output } = await node(["--import", "tsx", "test/cuda/replay.ts", file], {
        ...options,
        LD_PRELOAD: preload,
        AFFUSE_EMULATED_LIBRARY: emulated,
        ...(processors === undefined ? {} : { AFFUSE_EMULATOR_PROCESSORS: processors }),
      });
      const reports = output
        .split(/^={10,}$/m)
        .filter((part) => /(WARNING: ThreadSanitizer|ERROR: AddressSanitizer)/.test(part));
      const ours = reports.filter((report) => report.includes("libaffuse_emulated"));
      assert.is(ours.length, 0, ours[0]);
      assert.is(code, 0, output.slice(-4000));
      const result: { wrong: string[]; kernels: [string, number][] } = JSON.parse(
        stdout.trim().split("\n").at(-1) as string,
      );
      assert.equal(result.wrong, [], "other bits than without the sanitizer");
      for (const [at, blocks] of result.kernels) launched.push([known.get(at) as Kernel, blocks]);
    }
    assert.equal(notLaunched(launched), []);
  });
}

test.run();
