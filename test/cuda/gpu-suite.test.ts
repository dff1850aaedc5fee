// The GPU suite as a machine with a GPU gets it: the bundle, unpacked in an empty folder without a network, run on the emulator
// with libraries that are built already. What only a GPU can do must be left out by name, and a failing part must not stop the others.
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import path from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { packageRoot } from "#root";
import { withLock } from "../../scripts/stamps.mjs";
import { sh } from "../helpers/process.ts";
import { ensureDevice } from "./device.ts";

interface Case {
  name: string;
  difference: Record<string, number>;
  tolerance: number;
  seconds: number;
  peers: Record<string, number>;
  failed?: string;
}

interface Results {
  gpu: string;
  bundle: { version: string; commit: string };
  parity: Record<string, { passed: number; total: number; skipped: number; exit: number }>;
  sanitize: { left_out: string };
  bench: { left_out: string | string[]; device: string; torch: string; operators: Case[]; steps: Case[] };
}

const scratch = mkdtempSync(path.join(tmpdir(), "affuse-gpu-suite-"));
const root = path.join(scratch, "affuse-gpu");
const built = path.join(scratch, "built");
const resultsFile = path.join(scratch, "out", "emulator.json");

/** libaffuse.so from the folder that the addon was linked in: one more link. */
async function linkLibrary(): Promise<void> {
  const release = readFileSync(path.join(packageRoot, "build/Release/affuse.node"));
  const folders = readdirSync(packageRoot).filter(
    (name) => name.startsWith("build-cmake") && !name.endsWith(".lock"),
  );
  const same = (folder: string) => {
    const addon = path.join(packageRoot, folder, "addon/affuse.node");
    return existsSync(addon) && release.equals(readFileSync(addon));
  };
  const folder = path.join(packageRoot, folders.find(same) ?? "build-cmake");
  const jobs = ["--parallel", String(availableParallelism())];
  if (!existsSync(folder)) {
    const options = [
      "-DCMAKE_BUILD_TYPE=Release",
      "-DAFFUSE_ADDON=OFF",
      "-DAFFUSE_SHARED=ON",
      "-DAFFUSE_CPU_LEVELS=avx2",
    ];
    const { code, output } = sh("cmake", ["-S", packageRoot, "-B", folder, ...options]);
    assert.is(code, 0, output);
  }
  await withLock(`${folder}.lock`, () => {
    const { code, output } = sh("cmake", ["--build", folder, "--target", "affuse_shared", ...jobs]);
    assert.is(code, 0, output);
    copyFileSync(path.join(folder, "libaffuse.so"), path.join(built, "libaffuse.so"));
  });
}

/** Without a network where the system lets one say so. */
const alone = ["-n", "-rn"].find((flag) => sh("unshare", [flag, "true"]).code === 0);
function suite(...args: string[]) {
  const command = [
    path.join(root, "gpu-suite.sh"),
    "--device",
    "emulated",
    "--out",
    path.join(scratch, "out"),
    ...args,
  ];
  const elsewhere = { AFFUSE_ADDON: undefined, AFFUSE_EMULATED_LIBRARY: undefined, AFFUSE_TEST_SHARED: undefined };
  const env = { AFFUSE_TEST_MOST: "150", ...elsewhere };
  return alone ? sh("unshare", [alone, ...command], env) : sh(command[0] as string, command.slice(1), env);
}
const results = (): Results => JSON.parse(readFileSync(resultsFile, "utf8"));

test.after(() => rmSync(scratch, { recursive: true, force: true }));

test("the bundle", () => {
  const file = path.join(scratch, "affuse-gpu.tar.xz");
  const { code, output } = sh(process.execPath, ["scripts/bundle.mjs", "--quick", "--out", file]);
  assert.is(code, 0, output);
  const { size } = statSync(file);
  assert.ok(size < 55e6, `the bundle has ${size} bytes`);
  assert.is(sh("tar", ["-C", scratch, "-xf", file]).code, 0);
  // Everything that the build there compiles.
  const tracked = sh("git", [
    "ls-files",
    "CMakeLists.txt",
    "cmake",
    "kernels",
    "native",
    "bench/gpu",
    "bench/peers/torch",
  ]);
  if (tracked.code === 0)
    for (const name of tracked.output.trim().split("\n")) assert.ok(existsSync(path.join(root, name)), name);
  const { code: there, output: version } = sh(path.join(root, "bin/node"), ["--version"]);
  assert.is(there, 0, version);
});

test("all parts on the emulator", async () => {
  ensureDevice();
  mkdirSync(built);
  const emulated =
    process.env.AFFUSE_EMULATED_LIBRARY ?? path.join(packageRoot, "build/Release/libaffuse_emulated.so");
  copyFileSync(emulated, path.join(built, "libaffuse_emulated.so"));
  copyFileSync(path.join(packageRoot, "build/Release/affuse.node"), path.join(built, "affuse.node"));
  await linkLibrary();
  const { code, output } = suite("--built", built);
  assert.is(code, 0, output);
  const { gpu, bundle, parity, sanitize, bench } = results();
  assert.is(gpu, "emulator");
  assert.match(bundle.commit, /^[0-9a-f]{40}$/);
  const suites = readdirSync(path.join(root, "suite")).filter((name) => name.endsWith(".test.mjs"));
  assert.equal(Object.keys(parity).sort(), suites.map((name) => name.replace(".test.mjs", "")).sort());
  for (const [name, { passed, total, exit }] of Object.entries(parity)) {
    assert.ok(passed > 0 && passed === total && exit === 0, name);
    assert.match(output, new RegExp(`${name}: ${passed} passed`));
  }
  assert.match(sanitize.left_out, /compute-sanitizer/);
  assert.match(output, /left out: .*sanitize: compute-sanitizer/);
  if (typeof bench.left_out === "string") {
    assert.match(bench.left_out, /PyTorch/);
    return console.log(`skipped: the bench: ${bench.left_out}`);
  }
  assert.match(bench.left_out.join("\n"), /CUDA graphs and torch.compile: they need a GPU/);
  assert.ok(bench.operators.length >= 13, `${bench.operators.length} operators`);
  assert.is(bench.steps.length, 2);
  for (const entry of [...bench.operators, ...bench.steps]) {
    assert.is(entry.failed, undefined);
    assert.ok(Object.values(entry.difference).length > 0, entry.name);
    for (const off of Object.values(entry.difference)) assert.ok(off <= entry.tolerance, entry.name);
    assert.ok(entry.seconds > 0 && (entry.peers.eager as number) > 0, entry.name);
    assert.ok(output.includes(entry.name), `the table has no ${entry.name}`);
  }
});

test("kernels that no suite has launched are named", () => {
  const out = path.join(scratch, "out");
  const logs = readdirSync(out).filter((name) => name.startsWith("launches-"));
  const files = [path.join(built, "libaffuse_emulated.so"), ...logs.map((name) => path.join(out, name))];
  const args = [path.join(root, "suite/launched.mjs"), ...files];
  const { code, output } = sh(path.join(root, "bin/node"), args);
  assert.is(code, 1, output); // the suites are brief here
  const [, some, all] = output.match(/^(\d+) of (\d+) kernels were launched on several blocks\n/) ?? [];
  const named = output.match(/^never launched: \w+ .+/gm) ?? [];
  assert.ok(Number(some) > 50 && Number(some) + named.length === Number(all), output);
});

test("one part again leaves the others' results", () => {
  const before = results();
  const { code, output } = suite("--built", built, "--only", "sanitize");
  assert.is(code, 0, output);
  assert.not.match(output, /== parity/);
  assert.equal(results().parity, before.parity);
});

test("a sanitizer passes where tests ran to their end without errors, and nowhere else", () => {
  const tools = path.join(scratch, "tools");
  mkdirSync(tools);
  const tool = (name: string, text: string) => writeFileSync(path.join(tools, name), `#!/bin/sh\n${text}\n`, { mode: 0o755 });
  tool("nvidia-smi", 'case $1 in *name*) echo "Made-up GPU" ;; *cap*) echo 9.0 ;; *) echo 1.0 ;; esac');
  tool("compute-sanitizer", '[ "$AFFUSE_CUDA_CACHE" = 0 ] || exit 9\nprintf "%b" "$SAID"\nexit "$STATUS"');
  writeFileSync(path.join(built, "libaffuse_cuda.so"), "");
  const clean = "== ERROR SUMMARY: 0 errors\\n";
  for (const [said, status, judged] of [
    [`• • • ${clean}`, "0", "passed"],
    [`• • • ${clean}`, "1", "failed"], // a test failed, or the process died
    [`• • • ${clean}`, "139", "failed"],
    [clean, "0", "failed"], // no test at all
    [`• ${clean}`, "124", "left out"], // out of time
    ["• == ERROR SUMMARY: 3 errors\\n", "0", "failed"],
    ["• ", "0", "failed"], // no summary
  ] as const) {
    const args = ["--device", "cuda", "--built", built, "--only", "sanitize", "--out", path.join(scratch, "made-up")];
    const env = { PATH: `${tools}:${process.env.PATH}`, SAID: said, STATUS: status, AFFUSE_ADDON: undefined };
    const { code, output } = sh(path.join(root, "gpu-suite.sh"), args, env);
    const label = `${said}, exit code ${status}: ${output}`;
    assert.is(code, judged === "failed" ? 1 : 0, label);
    const passed = /^memcheck: no errors, 3 tests/m;
    const others = { failed: /^FAILED sanitize:memcheck/m, "left out": /^left out: sanitize:memcheck/m };
    for (const [name, pattern] of Object.entries({ passed, ...others }))
      assert.is(pattern.test(output), name === judged, label);
  }
});

test("results that cannot be written are a failure, and the old ones stay", () => {
  const before = results();
  mkdirSync(`${resultsFile}.new`);
  const { code, output } = suite("--built", built, "--only", "sanitize");
  rmSync(`${resultsFile}.new`, { recursive: true });
  assert.is(code, 1, output);
  assert.match(output, /^failed:.* results/m);
  assert.equal(results(), before);
});

test("what fails is named, and the rest goes on", () => {
  writeFileSync(path.join(built, "libaffuse_emulated.so"), "no library");
  const { code, output } = suite("--built", built);
  assert.is(code, 1, output);
  assert.match(output, /^FAILED parity:parity: 0 of /m);
  assert.match(output, /^failed:.* parity:program/m);
  const { parity, bench } = results();
  assert.is(parity.parity?.passed, 0);
  if (typeof bench.left_out === "string") return;
  assert.match(output, /^failed:.* bench/m);
  assert.match(bench.operators[0]?.failed ?? "", /ERR_AFFUSE_BACKEND.* a file that is no library/);
});

test("wrong arguments", () => {
  assert.is(suite("--only", "nothing").code, 2);
  assert.is(suite("--jobs").code, 2);
  for (const wrong of ["0", "", "x", "99999"]) assert.is(suite("--jobs", wrong, "--only", "sanitize").code, 2, wrong);
  for (const wrong of [["--nothing"], ["--out"], ["--out", scratch], ["--out", path.join(scratch, "no/where")]]) {
    const { code, output } = sh(process.execPath, ["scripts/bundle.mjs", ...wrong]);
    assert.is(code, 2, output);
    assert.match(output, /^bundle: (.+)\n$/);
  }
  const { code, output } = suite("--built", root);
  assert.is(code, 1);
  assert.match(output, /expected affuse.node, libaffuse.so and libaffuse_emulated.so/);
});

test.run();
