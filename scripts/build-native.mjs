// Builds the addon with CMake in build-cmake/ and puts it, atomically, where the loader looks first:
// build/Release/affuse.node, and beside it the device libraries that the options ask for (-DAFFUSE_CUDA=on). Also the action
// behind binding.gyp.
//
//   node scripts/build-native.mjs [--out FILE] [--debug] [--release] [--jobs N] [-DNAME=VALUE …]
//
// --release: with the CUDA library for every architecture of a release, 20 minutes of processor time; needs nvcc, no GPU.
import { spawnSync } from "node:child_process";
import { copyFileSync, mkdirSync, readdirSync, renameSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import path from "node:path";
import { packageRoot } from "../lib/root/root.mjs";
import { nativeSources, withLock } from "./stamps.mjs";

function usage(message) {
  console.error(`build-native: ${message}\nusage: node scripts/build-native.mjs [--out FILE] [--debug] [--release] [--jobs N] [-DNAME=VALUE …]`);
  process.exit(2);
}

let out = path.join(packageRoot, "build/Release/affuse.node");
let type = "Release";
let jobs = availableParallelism();
const definitions = [];
const argv = process.argv.slice(2);
while (argv.length > 0) {
  const argument = argv.shift();
  if (argument === "--out") out = path.resolve(argv.shift() ?? usage("--out wants a file"));
  else if (argument === "--jobs") jobs = Number(argv.shift()) || usage("--jobs wants a number");
  else if (argument === "--debug") type = "Debug";
  else if (argument === "--release") definitions.push("-DAFFUSE_CUDA=on", "-DAFFUSE_CUDA_ARCHITECTURES=release");
  else if (argument.startsWith("-D")) definitions.push(argument);
  else usage(`unknown argument ${argument}`);
}

// Called from a makefile (node-gyp's), CMake's own make would take that one's flags and job slots for its own.
const { MAKEFLAGS: _flags, MAKELEVEL: _level, MFLAGS: _mflags, ...environment } = process.env;

function run(command, args) {
  const { status, error } = spawnSync(command, args, { stdio: "inherit", env: environment });
  if (error?.code === "ENOENT") {
    console.error(`build-native: ${command} was not found. Install CMake >= 3.20 and g++ >= 11 (Debian: apt install cmake g++).`);
    process.exit(1);
  }
  if (status !== 0) {
    console.error(`build-native: ${command} ${args[0]} failed; the messages above say why.`);
    process.exit(status ?? 1);
  }
}

// A different set of options gets a folder of its own, so that an instrumented build does not undo the usual one.
const suffix = definitions.filter((d) => !d.startsWith("-DCMAKE_JS")).join("").replace(/[^A-Za-z0-9]+/g, "-");
const folder = path.join(packageRoot, `build-cmake${type === "Debug" ? "-debug" : ""}${suffix}`);

await withLock(`${folder}.lock`, () => {
  // The stamp describes the sources as they were when the build began: an edit made meanwhile counts as not built.
  const started = new Date();
  const { hash } = nativeSources();
  mkdirSync(folder, { recursive: true });
  run("cmake", ["-S", packageRoot, "-B", folder, `-DCMAKE_BUILD_TYPE=${type}`, "-DAFFUSE_ADDON=ON", "-DAFFUSE_SHARED=ON", ...definitions]);
  run("cmake", ["--build", folder, "--target", "affuse_node", "affuse_backends", "--parallel", String(jobs)]);
  mkdirSync(path.dirname(out), { recursive: true });
  for (const name of readdirSync(path.join(folder, "addon")).filter((file) => file.endsWith(".so"))) {
    const library = path.join(path.dirname(out), name);
    copyFileSync(path.join(folder, "addon", name), `${library}.${process.pid}.new`);
    renameSync(`${library}.${process.pid}.new`, library);
  }
  const fresh = `${out}.${process.pid}.new`;
  try {
    copyFileSync(path.join(folder, "addon/affuse.node"), fresh);
    utimesSync(fresh, started, started);
    // A library that does not load must not replace one that does.
    if (definitions.length === 0) run(process.execPath, ["-e", "process.dlopen({ exports: {} }, process.argv[1])", fresh]);
    renameSync(fresh, out);
    writeFileSync(`${out}.stamp`, hash);
  } finally {
    rmSync(fresh, { force: true });
  }
  console.error(`build-native: ${path.relative(process.cwd(), out) || out}`);
});
