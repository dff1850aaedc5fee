/**
 * Every door to the build gives a working addon: cmake-js, node-gyp, scripts/build-native.mjs. In a copy of the checkout with a
 * few rooms only, because what is tested is the doors. Then the switches, and the C program on an installed library.
 */
import { execFile, spawn, spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { packageRoot } from "#root";
import { withLock } from "../../scripts/stamps.mjs";

interface Outcome {
  code: number;
  output: string;
}

function run(command: string, args: string[], cwd: string, env: Record<string, string> = {}): Promise<Outcome> {
  return new Promise((resolve) => {
    const options = { cwd, env: { ...process.env, ...env }, maxBuffer: 1 << 26 };
    execFile(command, args, options, (error, stdout, stderr) => {
      resolve({ code: error ? (typeof error.code === "number" ? error.code : 1) : 0, output: stdout + stderr });
    });
  });
}

const checkout = mkdtempSync(path.join(tmpdir(), "build-doors-"));
const PARTS = ["CMakeLists.txt", "cmake", "kernels", "native", "scripts", "lib/root", "binding.gyp", "package.json", "package-lock.json"];
for (const part of PARTS) cpSync(path.join(packageRoot, part), path.join(checkout, part), { recursive: true });
symlinkSync(path.join(packageRoot, "node_modules"), path.join(checkout, "node_modules"));
writeFileSync(
  path.join(checkout, "kernels/rooms.cmake"),
  "affuse_room(common)\naffuse_room(gemm)\naffuse_room(roof)\naffuse_room(softmax kSoftmax kSoftmaxBackward)\naffuse_room(elementwise kAdd kAddBackward)\n",
);
// The doors are tested, not the instruction sets behind them, nor how quick it is.
function edit(file: string, from: string, to: string): void {
  const text = readFileSync(path.join(checkout, file), "utf8");
  assert.ok(text.includes(from), file);
  writeFileSync(path.join(checkout, file), text.replace(from, to));
}
edit("cmake/kernels.cmake", 'set(AFFUSE_CPU_LEVELS "" ', 'set(AFFUSE_CPU_LEVELS "baseline" ');
edit("CMakeLists.txt", "include(cmake/flags.cmake)", "include(cmake/flags.cmake)\nadd_compile_options(-O0)");
// Where there is a compiler cache, what one door has compiled the next one need not: begun empty, gone with the folder.
const cached = spawnSync("ccache", ["--version"], { stdio: "ignore" }).status === 0;
if (cached) Object.assign(process.env, { CMAKE_CXX_COMPILER_LAUNCHER: "ccache", CCACHE_DIR: path.join(checkout, "ccache") });
delete process.env.CCACHE_DISABLE;
test.after(() => rmSync(checkout, { recursive: true, force: true }));

const addonFile = path.join(checkout, "build/Release/affuse.node");
// No registry, no headers from the network: a proxy that refuses stands for "offline".
const offline = {
  http_proxy: "http://127.0.0.1:9",
  https_proxy: "http://127.0.0.1:9",
  npm_config_offline: "true",
  NPM_CONFIG_USERCONFIG: "/dev/null", // which may name a folder of headers
};

/** Loads the built file in a process of its own and adds two numbers. */
async function works(file: string) {
  const script = `const a = require(process.argv[1]); const x = { dtype: "f32", shape: [1], data: new Float32Array([2]) };
    process.stdout.write(a.version + " " + a.operators().length + " " + a.call("cpu", "add", [x, x], {}, [true])[0].data[0]);`;
  const { version } = JSON.parse(readFileSync(path.join(packageRoot, "package.json"), "utf8"));
  assert.equal(await run(process.execPath, ["-e", script, file], checkout), { code: 0, output: `${version} 4 4` });
}

test("cmake-js", async () => {
  const { code, output } = await run("npx", ["--no", "cmake-js", "build", "--parallel", "2"], checkout, offline);
  assert.is(code, 0, output);
  await works(addonFile);
  rmSync(path.join(checkout, "build"), { recursive: true });
});

test("node-gyp rebuild, and nothing of it is half written", async () => {
  const { code, output } = await run("npx", ["--no", "node-gyp", "rebuild"], checkout, offline);
  assert.is(code, 0, output);
  await works(addonFile);
});

test("build-native: two at once take turns, and nothing of the lock stays", async () => {
  rmSync(addonFile, { force: true });
  const lock = path.join(checkout, "build-cmake.lock");
  const builds = [0, 1].map(() => {
    const child = spawn(process.execPath, [path.join(checkout, "scripts/build-native.mjs")], { cwd: checkout });
    let output = "";
    const ended = new Promise<number | null>((resolve) => child.on("close", resolve));
    const waits = new Promise<void>((resolve) => {
      for (const stream of [child.stdout, child.stderr])
        stream.on("data", (chunk) => {
          output += chunk;
          if (output.includes("waiting for another build")) resolve();
        });
    });
    return { ended, waits: Promise.race([waits, ended]), output: () => output };
  });
  // A third build, this process, holds them up until both have seen that they must wait.
  await withLock(lock, () => Promise.all(builds.map(({ waits }) => waits)));
  for (const { ended, output } of builds) {
    assert.is(await ended, 0, output());
    assert.ok(output().includes("waiting for another build"), output());
  }
  await works(addonFile);
  assert.not.ok(existsSync(lock));
});

test("the freshness check sees an edit, and is not fooled by new dates on old contents", async () => {
  const ask = `import { isFresh, nativeSources } from ${JSON.stringify(path.join(checkout, "scripts/stamps.mjs"))};
    process.stdout.write(String(isFresh(${JSON.stringify(addonFile)}, ${JSON.stringify(`${addonFile}.stamp`)}, nativeSources())));`;
  const fresh = async () => (await run(process.execPath, ["--input-type=module", "-e", ask], checkout)).output;
  const source = path.join(checkout, "kernels/softmax/cpu.cc");
  assert.is(await fresh(), "true");
  const later = new Date(Date.now() + 5000);
  utimesSync(source, later, later);
  assert.is(await fresh(), "true", "a fresh checkout gives old contents new dates");
  const text = readFileSync(source, "utf8");
  writeFileSync(source, `${text}\n// edited\n`);
  assert.is(await fresh(), "false");
  writeFileSync(source, text);
});

test("a build that fails says so and leaves the old addon", async () => {
  const source = path.join(checkout, "kernels/softmax/softmax.cc");
  const text = readFileSync(source, "utf8");
  writeFileSync(source, `${text}\n#error broken on purpose\n`);
  const { code, output } = await run(process.execPath, [path.join(checkout, "scripts/build-native.mjs")], checkout);
  writeFileSync(source, text);
  assert.is.not(code, 0);
  assert.match(output, /broken on purpose/);
  assert.match(output, /build-native: cmake .* failed/);
  await works(addonFile);
});

test("install.mjs: builds in a checkout, ends quietly in an installed copy", async () => {
  const copy = mkdtempSync(path.join(tmpdir(), "installed-"));
  try {
    for (const part of ["scripts", "lib/root", "package.json"]) cpSync(path.join(checkout, part), path.join(copy, part), { recursive: true });
    const quiet = await run(process.execPath, [path.join(copy, "scripts/install.mjs")], copy);
    assert.equal(quiet, { code: 0, output: "" });
    const upToDate = await run(process.execPath, [path.join(checkout, "scripts/install.mjs")], checkout);
    assert.is(upToDate.code, 0, upToDate.output);
  } finally {
    rmSync(copy, { recursive: true, force: true });
  }
});

test("AFFUSE_CUDA and AFFUSE_SANITIZE are understood or refused with the reason", async () => {
  const configure = (definition: string) =>
    run("cmake", ["-S", checkout, "-B", path.join(checkout, "switches"), "-DAFFUSE_ADDON=OFF", definition], checkout);
  const cuda = await configure("-DAFFUSE_CUDA=on");
  if (cuda.code !== 0) assert.match(cuda.output, /CUDA/, "without nvcc it says what is missing");
  assert.match((await configure("-DAFFUSE_CUDA=maybe")).output, /auto, on or off/);
  assert.is((await configure("-DAFFUSE_CUDA=off")).code, 0);
  assert.match((await configure("-DAFFUSE_SANITIZE=memory")).output, /address,\s+thread\s+or\s+undefined/);
  for (const kind of ["address", "thread", "undefined", "address,undefined"]) {
    assert.is((await configure(`-DAFFUSE_SANITIZE=${kind}`)).code, 0, kind);
  }
});

test("a C program on the installed library gives the golden values", async () => {
  // The full library: linked from the objects that the addon was just built from.
  const build = path.join(packageRoot, "build-cmake");
  const folder = mkdtempSync(path.join(tmpdir(), "c-example-"));
  const step = async (args: string[]) => {
    const { code, output } = await run("cmake", args, folder);
    assert.is(code, 0, output);
  };
  try {
    if (!existsSync(path.join(build, "CMakeCache.txt"))) {
      await run(process.execPath, [path.join(packageRoot, "scripts/build-native.mjs")], packageRoot);
    }
    await withLock(`${build}.lock`, async () => {
      await step(["-S", packageRoot, "-B", build, "-DAFFUSE_SHARED=ON"]);
      await step(["--build", build, "--target", "affuse", "affuse_shared", "--parallel", "2"]);
      await step(["--install", build, "--prefix", path.join(folder, "prefix")]);
    });
    const source = path.join(packageRoot, "examples/c");
    await step(["-S", source, "-B", folder, `-DCMAKE_PREFIX_PATH=${path.join(folder, "prefix")}`]);
    await step(["--build", folder]);
    const { code, output } = await run(path.join(folder, "fbp"), [], folder);
    assert.is(code, 0, output);
    assert.match(output, /z = 0\.725476\d -0\.688247\d/);
    assert.match(output, /ERR_AFFUSE_SHAPE: .*V/);
    const misuse = path.join(folder, "misuse");
    const prefix = path.join(folder, "prefix");
    const from = [`-I${prefix}/include`, path.join(packageRoot, "test/native/misuse.c"), `-L${prefix}/lib`];
    const linked = [...from, "-laffuse", `-Wl,-rpath,${prefix}/lib`, "-o", misuse];
    const compiled = await run("gcc", ["-std=c99", "-Wall", "-Wextra", "-Werror", ...linked], folder);
    assert.is(compiled.code, 0, compiled.output);
    const misused = await run(misuse, [], folder);
    assert.is(misused.code, 0, misused.output);
    assert.match(misused.output, /^0 failed$/m);
    // Nothing but the C interface is visible from outside.
    const symbols = (await run("nm", ["-D", "--defined-only", path.join(folder, "prefix/lib/libaffuse.so")], folder)).output;
    const names = symbols.split("\n").filter((line) => / [TDBR] /.test(line)).map((line) => line.split(" ").at(-1) as string);
    assert.ok(names.length > 10, symbols);
    assert.equal(names.filter((name) => !name.startsWith("affuse_")), []);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test("the header compiles as C99 and as C++", async () => {
  const header = path.join(packageRoot, "native/include/affuse/affuse.h");
  for (const [compiler, language, standard] of [["gcc", "c", "c99"], ["g++", "c++", "c++17"]] as const) {
    const flags = [`-std=${standard}`, "-pedantic", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-x", language, header];
    const { code, output } = await run(compiler, flags.filter((flag) => flag !== "-Werror"), checkout);
    assert.is(code, 0, output);
    assert.not.match(output.replace(/.*#pragma once in main file.*/g, ""), /error/);
  }
});

test.run();
