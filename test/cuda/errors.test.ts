// What a machine says when its GPU cannot be used, with stand-ins for what is wrong: a device library that fails in each way
// (stand_in.cc), and, where there is nvcc, the CUDA runtime's own words on a driver that is absent, old or without a device
// (fake_driver.cc). The CPU works all the while, and `affuse doctor` tells what to do.
import { execFileSync } from "node:child_process";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import path from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { packageRoot } from "#root";
import { affuse } from "../helpers/cli.ts";
import { sh } from "../helpers/process.ts";
import { addon } from "../operators/suite.ts";
import { at, compile, cxx, folder } from "./compile.ts";
import { device, ensureDevice } from "./device.ts";
import { type Environment, SCRIPT, standIn } from "./stand-in.ts";

interface Doctor {
  ok: boolean;
  backends: { name: string; available: boolean; code: string | null; reason: string | null; outdated: boolean }[];
  advice: string[];
}

async function doctor(env: Environment) {
  const { code, stdout, stderr } = await affuse(["doctor", "--json"], { env });
  assert.is(code, 0, stderr); // the CPU works
  const report = JSON.parse(stdout) as Doctor;
  assert.ok(report.ok);
  const cuda = report.backends.find(({ name }) => name === "cuda");
  if (!cuda) throw new Error("no backend cuda");
  const people = await affuse(["doctor"], { env });
  const advice = report.advice.filter((line) => line.startsWith("For device cuda")).join("\n");
  assert.ok(people.stdout.includes(advice));
  return { ...cuda, advice };
}

function results(env: Environment): string[] {
  writeFileSync(at("script.mts"), SCRIPT);
  return JSON.parse(
    execFileSync(process.execPath, ["--import", "tsx", at("script.mts")], {
      cwd: packageRoot,
      encoding: "utf8",
      env: { ...process.env, ...env },
    }),
  );
}

const FAULTS: [mode: string, code: string, advice: RegExp][] = [
  ["no driver", "ERR_AFFUSE_CUDA_DRIVER", /install an NVIDIA driver/],
  ["old driver", "ERR_AFFUSE_CUDA_DRIVER", /or a newer one/],
  ["no device", "ERR_AFFUSE_CUDA_NO_DEVICE", /CUDA_VISIBLE_DEVICES/],
  ["version", "ERR_AFFUSE_BACKEND", /again together with the addon/],
  ["architecture", "ERR_AFFUSE_CUDA_ARCHITECTURE", /AFFUSE_CUDA_ARCHITECTURES/],
  ["memory", "ERR_AFFUSE_DEVICE_MEMORY", /smaller batches/],
  ["lost", "ERR_AFFUSE_DEVICE_LOST", /Xid/],
];

for (const [mode, code, advice] of FAULTS) {
  test(`${mode}: ${code} from calls and programs, then the CPU, and the doctor's advice`, async () => {
    const env = { AFFUSE_CUDA_LIBRARY: standIn, AFFUSE_STAND_IN: mode };
    assert.equal(results(env), [code, code, "2,4,6", "2,4,6", code, code]);
    const found = await doctor(env);
    assert.is(found.available, false);
    assert.is(found.code, code);
    assert.match(found.advice, advice);
  });
}

test("a device that works, and one that computes something else", async () => {
  const env = { AFFUSE_CUDA_LIBRARY: standIn };
  assert.equal(results(env), Array(6).fill("2,4,6"));
  assert.is((await doctor(env)).available, true);
  const wrong = await doctor({ ...env, AFFUSE_STAND_IN: "wrong" });
  assert.is(wrong.code, "ERR_AFFUSE_DEVICE_RESULT");
  assert.match(wrong.reason ?? "", /expected twice/);
});

test("a library that is not there, or is none", async () => {
  const found = await doctor({ AFFUSE_CUDA_LIBRARY: at("nowhere.so") });
  assert.is(found.code, "ERR_AFFUSE_CUDA_UNAVAILABLE");
  assert.match(found.reason ?? "", /nowhere\.so.*build-native/s);
  compile(cxx, "-shared", "-fPIC", "-x", "c++", "/dev/null", "-o", at("other.so"));
  assert.is((await doctor({ AFFUSE_CUDA_LIBRARY: at("other.so") })).code, "ERR_AFFUSE_BACKEND");
  if (device !== "emulated") return;
  // The emulator's library is no GPU's.
  ensureDevice();
  const emulator = path.join(packageRoot, "build/Release/libaffuse_emulated.so");
  const mistaken = await doctor({ AFFUSE_CUDA_LIBRARY: emulator });
  assert.is(mistaken.code, "ERR_AFFUSE_BACKEND");
  assert.match(mistaken.reason ?? "", /for the emulator.*AFFUSE_CUDA_LIBRARY/s);
});

/** What a process says about each file as the library of both devices: "code: reason", or "loaded". */
function said(files: readonly string[], env: Environment = {}): string[][] {
  const script = `
import { loadAddon } from ${JSON.stringify(path.join(packageRoot, "lib/native/load.ts"))};
const addon = loadAddon();
const said = [];
for (const file of ${JSON.stringify(files)}) {
  process.env.AFFUSE_CUDA_LIBRARY = process.env.AFFUSE_EMULATED_LIBRARY = file;
  const about = (name) => {
    const backend = addon.backends().find((one) => one.name === name);
    return backend ? (backend.available ? "loaded" : backend.code + ": " + backend.reason) : "not listed";
  };
  said.push([about("cuda"), about("emulated")]);
}
console.log(JSON.stringify(said));
`;
  writeFileSync(at("said.mts"), script);
  const options = { cwd: packageRoot, encoding: "utf8", env: { ...process.env, ...env } } as const;
  return JSON.parse(execFileSync(process.execPath, ["--import", "tsx", at("said.mts")], options));
}

test("a damaged library is refused before the loader maps what is not there", () => {
  const whole = readFileSync(standIn);
  const view = new DataView(whole.buffer, whole.byteOffset);
  const [segments, segmentCount] = [Number(view.getBigUint64(32, true)), view.getUint16(56, true)];
  const entries = Array.from({ length: segmentCount }, (_, i) => segments + 56 * i);
  const load = entries.find((entry) => view.getUint32(entry, true) === 1);
  const damaged: [name: string, bytes: Uint8Array, reason: RegExp][] = [
    ["empty.so", whole.subarray(0, 0), /no library/],
    ["text.so", Buffer.from("/* GNU ld script */ INPUT ( libaffuse_cuda.so.1 )\n"), /no library/],
  ];
  for (const length of [4, 40, 64, 200, 4096, whole.length >> 1, whole.length - 1])
    damaged.push([`first-${length}.so`, whole.subarray(0, length), /ends before its headers say/]);
  const patched = (name: string, reason: RegExp, ...places: [at: number, values: number[]][]) => {
    const bytes = Uint8Array.from(whole);
    for (const [from, values] of places) bytes.set(values, from);
    damaged.push([name, bytes, reason]);
  };
  const huge = [0xf0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
  patched("segments.so", /ends before/, [32, huge]);
  patched("sections.so", /ends before/, [40, huge]);
  patched("extent.so", /ends before/, [(load as number) + 32, huge]);
  patched("offset.so", /ends before/, [(load as number) + 8, huge]);
  patched("machine.so", /another machine/, [18, [8, 0]]); // MIPS
  patched("class.so", /another machine/, [4, [1]]); // 32 bits
  patched("object.so", /no library/, [16, [1, 0]]); // what the compiler gives the linker
  for (const [name, bytes] of damaged) writeFileSync(at(name), bytes);
  const answers = said(damaged.map(([name]) => at(name)));
  for (const [i, [name, , reason]] of damaged.entries()) {
    for (const answer of answers[i] as string[]) {
      assert.match(answer, /^ERR_AFFUSE_BACKEND: expected \S+ as a library for this machine/, name);
      assert.match(answer, reason, name);
    }
  }
  execFileSync("mkfifo", [at("pipe.so")]);
  for (const [cuda] of said([at("pipe.so"), folder]))
    assert.match(cuda as string, /ERR_AFFUSE_BACKEND: .*no regular file/);

  // Without sections it is whole all the same, and what has no slash is the loader's to find.
  const stripped = Uint8Array.from(whole);
  stripped.fill(0, 40, 48).fill(0, 60, 64);
  writeFileSync(at("stripped.so"), stripped);
  for (const [file, code] of [
    [at("stripped.so"), "loaded"],
    ["stand_in.so", "loaded"],
    ["nowhere.so", "ERR_AFFUSE_CUDA_UNAVAILABLE"],
  ] as const) {
    const [cuda] = said([file], { LD_LIBRARY_PATH: folder })[0] as string[];
    assert.is(cuda?.split(": ")[0], code, file);
  }
});

test("doctor: an emulator's library of other sources or another version, and what to do", async () => {
  const emulated = async (env: Environment) => {
    const { code, stdout, stderr } = await affuse(["doctor", "--json"], { env });
    assert.is(code, 0, stderr);
    const report = JSON.parse(stdout) as Doctor;
    const people = await affuse(["doctor"], { env });
    const advice = report.advice.filter((line) => line.startsWith("For device emulated")).join("\n");
    assert.ok(people.stdout.includes(advice));
    const backend = report.backends.find(({ name }) => name === "emulated");
    return { backend, advice, people: people.stdout };
  };
  // Beside the addon, as it is built: of another version.
  mkdirSync(at("beside"));
  copyFileSync(path.join(packageRoot, "build/Release/affuse.node"), at("beside/affuse.node"));
  copyFileSync(standIn, at("beside/libaffuse_emulated.so"));
  const beside = { AFFUSE_ADDON: at("beside/affuse.node"), AFFUSE_EMULATED_LIBRARY: undefined };
  const other = await emulated({ ...beside, AFFUSE_STAND_IN: "version" });
  assert.is(other.backend?.code, "ERR_AFFUSE_BACKEND");
  assert.is(other.advice, "For device emulated: build its library again: node scripts/build-emulated.mjs.");
  const named = await emulated({ AFFUSE_EMULATED_LIBRARY: standIn, AFFUSE_STAND_IN: "version" });
  assert.match(named.advice, /AFFUSE_EMULATED_LIBRARY/);
  rmSync(at("beside/libaffuse_emulated.so"));
  const none = await emulated(beside);
  assert.equal([none.backend, none.advice], [undefined, ""]);
  if (device !== "emulated") return;

  ensureDevice();
  const library = at("beside/libaffuse_emulated.so");
  copyFileSync(path.join(packageRoot, "build/Release/libaffuse_emulated.so"), library);
  const fresh = await emulated(beside); // as new as a copy is
  assert.equal([fresh.backend?.available, fresh.backend?.outdated, fresh.advice], [true, false, ""]);
  utimesSync(library, new Date(0), new Date(0));
  writeFileSync(`${library}.stamp`, "of other sources");
  const old = await emulated(beside);
  assert.equal([old.backend?.available, old.backend?.outdated], [true, true]);
  assert.match(old.people, /^-- {2}backend emulated: its library is older than its sources$/m);
  assert.is(old.advice, other.advice);
});

/** nvcc's folder, or null. */
function toolkit(): string | null {
  for (const nvcc of ["nvcc", "/usr/local/cuda/bin/nvcc"]) {
    const { code, output } = sh(nvcc, ["--dryrun", "-c", "x.cu"]);
    const top = /#\$ TOP=(.*)/.exec(output)?.[1];
    if (code === 0 && top) return path.resolve(top.trim());
  }
  return null;
}
const cuda = toolkit();
if (!cuda) console.log("skipped: no nvcc");
const compiled = cuda ? test : test.skip;

compiled("the CUDA runtime on a driver that is absent, old, or without a device", async () => {
  mkdirSync(at("driver"));
  compile(cxx, "-std=c++20", "-shared", "-fPIC", "test/cuda/fake_driver.cc", "-o", at("driver/libcuda.so.1"));
  // The library with one room: what is asked here ends before any kernel.
  writeFileSync(
    at("device_rooms.inc"),
    `#include "kernels/common/cuda/launch.h"
namespace affuse::cuda {
extern const DeviceOp kAdd, kScale;
static const DeviceOp* const kDeviceOps[] = {&kAdd, &kScale, nullptr};
}
`,
  );
  const library = at("libaffuse_cuda.so");
  const nvcc = path.join(cuda as string, "bin/nvcc");
  const flags = [
    "-std=c++20",
    "-arch=sm_80",
    "-I.",
    "-Inative/backend",
    `-I${folder}`,
    "--expt-relaxed-constexpr",
  ];
  const sources = ["native/backend/backend.cu", "kernels/elementwise/cuda.cu", "kernels/common/status.cc"];
  const version = `-DAFFUSE_VERSION="${addon.version}"`;
  compile(
    nvcc,
    ...flags,
    version,
    "-shared",
    "-cudart",
    "static",
    "-Xcompiler",
    "-fPIC",
    ...sources,
    "-o",
    library,
  );
  const driver = async (env: Environment) => {
    const { code, reason } = await doctor({
      AFFUSE_CUDA_LIBRARY: library,
      LD_LIBRARY_PATH: at("driver"),
      ...env,
    });
    return `${code}: ${reason}`;
  };
  if (!existsSync("/dev/nvidiactl"))
    assert.match(
      await driver({ LD_LIBRARY_PATH: "" }),
      /_CUDA_DRIVER: expected an NVIDIA driver of CUDA \d+\.0.*got none/,
    );
  assert.match(await driver({ FAKE_VERSION: "10020" }), /_CUDA_DRIVER: expected.*got one of CUDA 10\.2/);
  assert.match(await driver({ FAKE_INIT: "100" }), /_CUDA_NO_DEVICE: .*cudaErrorNoDevice/);
  assert.match(await driver({ FAKE_INIT: "803" }), /_CUDA_DRIVER: .*cudaErrorSystemDriverMismatch/);
  assert.match(await driver({ FAKE_INIT: "999" }), /ERR_AFFUSE_CUDA: .*cudaErrorUnknown/);
});

compiled("the library names the architectures that it was built for, and page-locked memory the host's", () => {
  writeFileSync(
    at("built.cu"),
    `#include "native/backend/staging.h"
extern "C" cudaError_t __wrap_cudaHostAlloc(void**, size_t, unsigned) { return cudaErrorMemoryAllocation; }
extern "C" cudaError_t __wrap_cudaStreamCreateWithFlags(cudaStream_t* made, unsigned) { return *made = nullptr, cudaSuccess; }
extern "C" cudaError_t __wrap_cudaEventCreateWithFlags(cudaEvent_t* made, unsigned) { return *made = nullptr, cudaSuccess; }
int main() {
  puts(affuse::cuda::driver::BuiltFor().text);
  affuse::Status status;
  affuse::cuda::Staging().feed(nullptr, "x", 1, status);
  puts(status.ok() ? "fed" : status.code);
  puts(affuse::cuda::Slots().make(1) ? "a slot" : "none");
}
`,
  );
  const wrapped = ["cudaHostAlloc", "cudaStreamCreateWithFlags", "cudaEventCreateWithFlags"];
  const code = ["compute_86,code=sm_86", "compute_90a,code=sm_90a", "compute_100,code=compute_100"];
  compile(
    path.join(cuda as string, "bin/nvcc"),
    ...["-std=c++20", "-I.", "-Inative/backend", ...code.map((of) => `-gencode=arch=${of}`)],
    ...wrapped.flatMap((name) => ["-Xlinker", `--wrap=${name}`]),
    ...[at("built.cu"), "kernels/common/status.cc", "-o", at("built")],
  );
  const said = execFileSync(at("built"), { encoding: "utf8" }).trim().split("\n");
  assert.equal(said, ["8.6, 9.0, 10.0", "ERR_AFFUSE_MEMORY", "none"]);
});

const nvtx =
  cuda &&
  ["include", "targets/x86_64-linux/include"].find((i) =>
    existsSync(path.join(cuda, i, "nvtx3/nvToolsExt.h")),
  );
(nvtx ? test : test.skip)("a timeline's tool is told the names of programs and operators", () => {
  const flags = [
    "-std=c++20",
    "-I.",
    `-I${path.join(cuda as string, nvtx as string)}`,
    "test/cuda/ranges.cc",
  ];
  compile(cxx, ...flags, "-DAFFUSE_NVTX=1", "-o", at("ranges"), "-ldl");
  compile(cxx, ...flags, "-DAFFUSE_TEST_INJECTION=1", "-shared", "-fPIC", "-o", at("tool.so"));
  const told = execFileSync(at("ranges"), {
    encoding: "utf8",
    env: { NVTX_INJECTION64_PATH: at("tool.so") },
  });
  const expected = [
    "domain affuse",
    "push program linear … adamw (12 operators)",
    "push linear",
    "pop",
    "pop",
  ];
  assert.equal(told.trim().split("\n"), expected);
  assert.is(execFileSync(at("ranges"), { encoding: "utf8" }), "");
});

test.run();
