/** What `require` says when there is nothing to load, or the wrong thing; and forced CPU levels and thread counts. */
import { execFile } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { packageRoot } from "#root";
import { tryLoadAddon } from "../../lib/native/load.ts";
import { addon } from "./helpers.ts";

const file = tryLoadAddon().attempts.at(-1)?.file as string;

/** The outcome of `code` (an async function's body, with `loadAddon` there) in a process of its own. */
function inProcess(code: string, root = packageRoot, env: Record<string, string> = {}): Promise<Record<string, unknown>> {
  const script = `
    import { loadAddon } from ${JSON.stringify(path.join(root, "lib/native/load.ts"))};
    const body = async () => { ${code} };
    body().catch((error) => ({ code: error.code, message: error.message, hint: error.hint }))
      .then((result) => process.stdout.write(JSON.stringify(result)));`;
  const args = ["--import", "tsx", "--input-type=module", "-e", script];
  const environment = { ...process.env, AFFUSE_ADDON: root === packageRoot ? file : "", ...env };
  return new Promise((resolve, reject) => {
    execFile(process.execPath, args, { cwd: packageRoot, env: environment }, (error, stdout, stderr) => {
      if (error || !stdout) reject(new Error(`${error?.message}\n${stderr}`));
      else resolve(JSON.parse(stdout));
    });
  });
}

/** A package without native build: its TypeScript and what that needs. */
function bare(): string {
  const root = mkdtempSync(path.join(tmpdir(), "bare-affuse-"));
  for (const part of ["package.json", "lib"]) cpSync(path.join(packageRoot, part), path.join(root, part), { recursive: true });
  symlinkSync(path.join(packageRoot, "node_modules"), path.join(root, "node_modules"));
  return root;
}

test("an unbuilt package says what it tried and what to run", async () => {
  const root = bare();
  try {
    const error = await inProcess("return loadAddon();", root);
    assert.is(error.code, "ERR_AFFUSE_NOT_BUILT");
    const message = error.message as string;
    for (const part of [`@affuse/${process.platform}-${process.arch}`, "build/Release/affuse.node", "build-cmake"]) {
      assert.ok(message.includes(part), part);
    }
    assert.match(message, /npm install/);
    // With the sources there, the remedy is to build them.
    cpSync(path.join(packageRoot, "CMakeLists.txt"), path.join(root, "CMakeLists.txt"));
    mkdirSync(path.join(root, "scripts"));
    cpSync(path.join(packageRoot, "scripts/build-native.mjs"), path.join(root, "scripts/build-native.mjs"));
    assert.match((await inProcess("return loadAddon();", root)).message as string, /npm run build:native/);
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
});

test("whoever names an addon gets that one or an error", async () => {
  const folder = mkdtempSync(path.join(tmpdir(), "named-affuse-"));
  try {
    for (const [name, why] of [
      ["affuse.node", /not a library|invalid ELF|file too short/],
      ["notes.txt", /does not end in \.node/],
    ] as const) {
      const named = path.join(folder, name);
      writeFileSync(named, "not a library");
      const error = await inProcess("return loadAddon();", packageRoot, { AFFUSE_ADDON: named });
      assert.is(error.code, "ERR_AFFUSE_NOT_BUILT");
      assert.match(error.message as string, why);
      assert.match(error.hint as string, /AFFUSE_ADDON/);
    }
    const absent = path.join(folder, "absent.node");
    const error = await inProcess("return loadAddon();", packageRoot, { AFFUSE_ADDON: absent });
    assert.match(error.message as string, /does not exist/);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test("a file for another machine, and a file that is no library", async () => {
  const root = bare();
  try {
    const target = path.join(root, "build/Release/affuse.node");
    mkdirSync(path.dirname(target), { recursive: true });
    // The head of a 32-bit ELF library.
    const elf = Buffer.alloc(256);
    elf.write("\x7fELF\x01\x01\x01", "latin1");
    writeFileSync(target, elf);
    const foreign = await inProcess("return loadAddon();", root);
    assert.is(foreign.code, "ERR_AFFUSE_NOT_BUILT");
    assert.match(foreign.message as string, /ELF/);
    assert.match(foreign.hint as string, /another machine/);
    writeFileSync(target, "not a library");
    assert.is((await inProcess("return loadAddon();", root)).code, "ERR_AFFUSE_NOT_BUILT");
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
});

test("AFFUSE_CPU forces every level of this machine; the results agree within rounding", async () => {
  const compute = `
    const addon = loadAddon();
    const wave = (n, f) => Float32Array.from({ length: n }, (_, i) => Math.sin(i * f));
    const x = { dtype: "f32", shape: [9, 70], data: wave(630, 0.7) }, W = { dtype: "f32", shape: [33, 70], data: wave(2310, 0.3) };
    return { isa: addon.cpu().isa, y: Array.from(addon.call("cpu", "linear", [x, W], { activation: "tanh" }, [true])[0].data) };`;
  const { levels } = addon.cpu();
  const results = await Promise.all(levels.map((level) => inProcess(compute, packageRoot, { AFFUSE_CPU: level })));
  results.forEach((result, i) => {
    assert.is(result.isa, levels[i]);
    const y = result.y as number[];
    const first = results[0]?.y as number[];
    assert.is(y.length, 9 * 33);
    assert.ok(y.every((value, j) => Math.abs(value - (first[j] as number)) < 1e-5));
  });
});

test("a level or thread count that cannot be obeyed is a coded error at the first call", async () => {
  const call = `
    const addon = loadAddon();
    const cpu = addon.backends()[0];
    if (cpu.available) return { code: "none" };
    return addon.call("cpu", "scale", [{ dtype: "f32", shape: [1], data: new Float32Array(1) }], {}, [true]);`;
  for (const [name, value, code] of [
    ["AFFUSE_CPU", "avx9000", "ERR_AFFUSE_CPU"],
    ["AFFUSE_THREADS", "0", "ERR_AFFUSE_THREADS"],
    ["AFFUSE_THREADS", "many", "ERR_AFFUSE_THREADS"],
  ] as const) {
    const error = await inProcess(call, packageRoot, { [name]: value });
    assert.is(error.code, code);
    assert.ok((error.message as string).includes(value), "the message shows what came");
  }
  const threads = await inProcess("return loadAddon().cpu();", packageRoot, { AFFUSE_THREADS: "5" });
  assert.is(threads.threads, 5);
});

test("methods called on the wrong object are refused, not misread", async () => {
  const result = await inProcess(`
    const addon = loadAddon();
    const buffer = addon.createBuffer(64);
    const attempts = [
      () => buffer.read.call({}, 0, new Float32Array(1)),
      () => buffer.read.call(Object.create(buffer), 0, new Float32Array(1)),
      () => buffer.constructor.prototype.write.call(null, 0, new Float32Array(1)),
      () => new buffer.constructor("x"),
    ];
    return attempts.map((attempt) => { try { attempt(); return "none"; } catch (error) { return error.code ?? error.name; } });`);
  assert.equal(result as unknown, ["TypeError", "TypeError", "TypeError", "ERR_AFFUSE_RANGE"]);
});

test.run();
