// What every command shares: standard output that fails, a clone that is not built, a missing optional package.
import { spawn } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
} from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { packageRoot } from "#root";

const folder = mkdtempSync(path.join(tmpdir(), "affuse-main-"));
const test = suite("the command line");
test.after(() => rmSync(folder, { recursive: true, force: true }));
const own = path.join(packageRoot, "bin", "affuse.mjs");

/** Runs it with standard output into a file, or into a pipe whose end is closed at once. */
function run(
  args: readonly string[],
  output: string | null = null,
  script = own,
): Promise<{ code: number | null; stderr: string }> {
  return new Promise((resolve, reject) => {
    const stdout = output === null ? "pipe" : openSync(output, "w");
    const child = spawn(process.execPath, [script, ...args], { stdio: ["ignore", stdout, "pipe"] });
    child.stdout?.destroy();
    let stderr = "";
    child.stderr?.setEncoding("utf8").on("data", (chunk: string) => {
      stderr += chunk;
    });
    child.on("error", reject);
    child.on("close", (code, signal) => resolve({ code, stderr: `${stderr}${signal ?? ""}` }));
  });
}

const bench = ["bench", "--filter", "^overhead/addon", "--quick", "--threads", "1"];

test("nobody reads standard output any more: the command goes on, with its files and its exit code", async () => {
  const kept = path.join(folder, "kept.json");
  const done = await run([...bench, "--peers", "none", "--json", kept]);
  assert.equal([done.code, /\n\s+at /.test(done.stderr)], [0, false], done.stderr);
  assert.is(JSON.parse(readFileSync(kept, "utf8")).benchmarks.length, 1);
  const failed = await run(["bench", "--filter", "("]);
  assert.is(failed.code, 1, failed.stderr);
});

test("standard output that cannot be written is a coded error, and the files are there", async () => {
  if (!existsSync("/dev/full")) return;
  const kept = path.join(folder, "full.json");
  for (const args of [
    ["--help"],
    ["op", "--list"],
    ["op", "--list", "--json"],
    [...bench, "--peers", "none", "--json", kept],
  ]) {
    const { code, stderr } = await run(args, "/dev/full");
    assert.is(code, 1, stderr);
    assert.match(stderr, /ERR_AFFUSE_WRITE.*the result to standard output: the disk is full \(ENOSPC\)/);
    assert.not.match(stderr, /\n\s+at /);
  }
  assert.ok(existsSync(kept));
});

/** What a clone has, but for some packages. */
function cloneWithout(absent: string, ...parts: string[]): string {
  const copy = path.join(folder, `without ${absent}`);
  mkdirSync(path.join(copy, "node_modules"), { recursive: true });
  for (const part of ["package.json", "bin", "lib/root", ...parts])
    cpSync(path.join(packageRoot, part), path.join(copy, part), { recursive: true });
  for (const name of readdirSync(path.join(packageRoot, "node_modules")))
    if (name !== absent && !name.startsWith("."))
      symlinkSync(path.join(packageRoot, "node_modules", name), path.join(copy, "node_modules", name));
  return path.join(copy, "bin", "affuse.mjs");
}

test("a clone that is not built names the command that installs and builds what is missing", async () => {
  const { code, stderr } = await run(["bench"], null, cloneWithout("dist"));
  assert.is(code, 3);
  assert.match(stderr, /^ERR_AFFUSE_NOT_BUILT: .*Run: npm run ensure \(in .*without dist\)\n$/);
});

test("the bench goes on without onnxruntime and names the command that installs it, on a line that ends there", async () => {
  const script = cloneWithout("onnxruntime-node", "dist", "build/Release");
  const { code, stderr } = await run([...bench, "--peers", "ort"], path.join(folder, "out"), script);
  assert.is(code, 0, stderr);
  const line =
    /^ERR_AFFUSE_BENCH_ORT: .*[^.]\. Install it: ONNXRUNTIME_NODE_INSTALL=skip npm install onnxruntime-node$/m;
  assert.match(stderr, line);
});

test.run();
