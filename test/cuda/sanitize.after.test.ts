// Every CUDA kernel once more with the library built under AddressSanitizer (overruns of shared and device memory) and under
// ThreadSanitizer (missing barriers, blocks that share what they write). Sanitizers see what a kernel does, not whether it is
// right, so that one call per kernel will do: the cheapest on several blocks among all calls that the other suites make, with
// the same bits as there; suites that have left no calls are run here. A kernel that none of them launches fails. What Node
// itself reports is not ours.
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { serialize } from "node:v8";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { packageRoot } from "#root";
import { start } from "../helpers/process.ts";
import { ensureDevice } from "./device.ts";
import { functionsOf, type Kernel, notLaunched } from "./kernels.ts";
import { callsIn, callsOf, chosen, type Recorded, raise } from "./recorded.ts";

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
/** Most bytes of shared memory that any launch of a kernel asked for. */
const asked = new Map<string, number>();

test("every kernel is launched by a suite", async () => {
  const calls: Recorded[] = [];
  const known = functionsOf(process.env.AFFUSE_EMULATED_LIBRARY ?? "build/Release/libaffuse_emulated.so");
  const shared = process.env.AFFUSE_TEST_SHARED ?? folder;
  for (const suite of SUITES) {
    const file = callsOf(shared, suite);
    if (!existsSync(file)) {
      const { code, output } = await node(["--import", "tsx", `test/cuda/${suite}.test.ts`], { AFFUSE_TEST_SHARED: shared });
      assert.is(code, 0, output.slice(-4000));
    }
    const left = callsIn(file);
    calls.push(...left.calls);
    for (const [at, bytes] of left.shared) {
      const { name, shared: by } = known.get(at) as Kernel;
      raise(asked, by ? name.replace(/^\w+ /, "") : name, bytes);
    }
  }
  const best = chosen(calls);
  const launched = [...best].map(([at, call]) => [known.get(at), call.kernels.get(at)] as [Kernel, number]);
  assert.equal(notLaunched(launched), []);
  const all = [...new Set(best.values())];
  const kinds = new Set(all.map((call) => call.environment.AFFUSE_CUDA_PROCESSORS));
  files = [...kinds].map((processors, i) => {
    const file = path.join(folder, `chosen-${i}`);
    const group = all.filter((call) => call.environment.AFFUSE_CUDA_PROCESSORS === processors);
    writeFileSync(file, serialize({ calls: group, shared: new Map() }));
    return { file, processors };
  });
});

test("launches ask for no more shared memory than their budgets", () => {
  assert.ok(asked.size > 0, "no launches");
  const file = path.join(packageRoot, "kernels/cuda_shared.txt");
  const used = [...asked].filter(([, bytes]) => bytes > 0).sort(([a], [b]) => (a < b ? -1 : 1));
  if (process.env.AFFUSE_UPDATE_SHARED === "1") {
    const lines = used.map(([name, bytes]) => `${bytes} ${name}`);
    const title = "# bytes of shared memory that launches of the suites ask for at most, kernel: test/cuda/sanitize.after.test.ts";
    writeFileSync(file, `${[title, ...lines].join("\n")}\n`);
  }
  const lines = readFileSync(file, "utf8").split("\n").filter((line) => line && !line.startsWith("#"));
  const budgets = new Map(lines.map((line) => [line.replace(/^\d+ /, ""), Number.parseInt(line, 10)]));
  const beyond = used.filter(([name, bytes]) => bytes > (budgets.get(name) ?? 0));
  const gone = [...budgets.keys()].filter((name) => !asked.has(name));
  const again = "kernels/cuda_shared.txt; AFFUSE_UPDATE_SHARED=1 node test/run.mjs cuda writes it anew";
  assert.equal(beyond.map(([name, bytes]) => `${name}: ${bytes}, the budget is ${budgets.get(name) ?? 0}`), [], again);
  assert.equal(gone, [], `kernels without launches in ${again}`);
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
        ...(processors === undefined ? {} : { AFFUSE_CUDA_PROCESSORS: processors }),
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
