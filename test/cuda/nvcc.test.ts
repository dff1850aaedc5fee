/**
 * The CUDA library by nvcc, for every architecture of a default build: it compiles, no kernel spills or is beyond its budget,
 * it loads on a machine without a driver and says what is missing. Runs nothing on a GPU. Without nvcc these are skipped; the
 * budgets' own rules are checked anyway.
 */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import path from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { packageRoot } from "#root";
import { sh } from "../helpers/process.ts";
import { addon } from "../operators/suite.ts";
import { functionsOf, kernels } from "./kernels.ts";

const there = ["nvcc", "/usr/local/cuda/bin/nvcc"].some((nvcc) => sh(nvcc, ["--version"]).code === 0);
if (!there) console.log("skipped: the CUDA library, no nvcc is installed");
const built = there ? test : test.skip;

const ARCHITECTURES = ["sm_80", "sm_90a"];
const folder = path.join(packageRoot, "build-cuda");
const library = path.join(folder, "addon/libaffuse_cuda.so");

built("nvcc builds it for every architecture, within the budgets", () => {
  const configured = sh("cmake", [
    ...["-S", packageRoot, "-B", folder, "-DCMAKE_BUILD_TYPE=Release"],
    ...["-DAFFUSE_CUDA=on", "-DAFFUSE_ADDON=OFF", "-UAFFUSE_CUDA_ARCHITECTURES", "-DAFFUSE_CUDA_UPDATE_BUDGETS=OFF"],
  ]);
  assert.is(configured.code, 0, configured.output);
  rmSync(library, { force: true }); // an older one would be taken as checked
  const jobs = ["--parallel", String(availableParallelism())];
  const { code, output } = sh("cmake", ["--build", folder, "--target", "affuse_cuda", ...jobs]);
  assert.is(code, 0, output);
  assert.match(output, /[1-9]\d* CUDA kernels within their budget/);
  assert.not.match(output, /warning/i, output);
});

built("no kernel spills or has a stack frame, and every room has its kernels in both architectures", () => {
  const objects = path.join(folder, "CMakeFiles/affuse_cuda.dir");
  const reports = readdirSync(objects, { recursive: true }).map(String);
  const rooms = readdirSync(path.join(packageRoot, "kernels"));
  const sources = rooms.filter((room) => existsSync(path.join(packageRoot, "kernels", room, "cuda.cu")));
  assert.ok(sources.length > 20);
  for (const room of sources) {
    const report = reports.find((file) => file.endsWith(`kernels/${room}/cuda.cu.o.usage`));
    assert.ok(report, room);
    const text = readFileSync(path.join(objects, report), "utf8");
    for (const architecture of ARCHITECTURES)
      assert.match(text, new RegExp(`Compiling entry function '\\w+' for '${architecture}'`), room);
    const frames = text.match(/\d+ bytes stack frame.*/g) ?? [];
    assert.equal([...new Set(frames)], ["0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads"], room);
  }
});

built("every kernel is found by the name that the budgets give it, where the GPU suite counts launches", () => {
  const names = new Set([...functionsOf(library).values()].map(({ name }) => name.replace(/^any /, "")));
  assert.equal(kernels().filter((name) => !names.has(name.replace(/^\w+ /, ""))), []);
});

built("it needs no CUDA library to load, and says here why there is no device", () => {
  const { code, output } = sh("readelf", ["-d", library]);
  assert.is(code, 0, output);
  assert.not.match(output, /NEEDED.*(cuda|nv|stdc\+\+)/i);
  process.env.AFFUSE_CUDA_LIBRARY = library;
  const cuda = addon.backends().find(({ name }) => name === "cuda");
  if (existsSync("/dev/nvidiactl")) {
    assert.ok(cuda?.available, JSON.stringify(cuda));
    return;
  }
  assert.is(cuda?.available, false);
  assert.is(cuda?.code, "ERR_AFFUSE_CUDA_DRIVER", JSON.stringify(cuda));
  assert.match(cuda?.reason ?? "", /driver/);
  const x = { dtype: "f32", shape: [1], data: Float32Array.of(1) } as const;
  assert.throws(
    () => addon.call("cuda", "add", [x, x], {}, [true]),
    (error: Error & { code?: string }) => error.code === "ERR_AFFUSE_CUDA_DRIVER",
  );
});

test("the addon names no CUDA library", () => {
  const { code, output } = sh("readelf", ["-d", path.join(packageRoot, "build/Release/affuse.node")]);
  assert.is(code, 0, output);
  assert.match(output, /NEEDED/);
  assert.not.match(output, /NEEDED.*(cuda|nvrtc|cublas|nvidia)/i);
});

test("a default build on a machine without a GPU does not wait for nvcc", () => {
  if (existsSync("/dev/nvidiactl")) return;
  const scratch = mkdtempSync(path.join(tmpdir(), "affuse-default-"));
  try {
    const { code, output } = sh("cmake", ["-S", packageRoot, "-B", scratch, "-DAFFUSE_ADDON=OFF"]);
    assert.is(code, 0, output);
    assert.not.match(sh("cmake", ["--build", scratch, "--target", "help"]).output, /affuse_cuda/);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
});

test("what a kernel may use: budgets, spills, other compilers", () => {
  const scratch = mkdtempSync(path.join(tmpdir(), "affuse-budgets-"));
  const budgets = path.join(scratch, "budgets.txt");
  const report = (registers: number, stack: string) =>
    writeFileSync(
      path.join(scratch, "cuda.cu.o.usage"),
      `ptxas info    : Compiling entry function '_Z4waitPfi' for 'sm_80'
    ${stack}
ptxas info    : Used ${registers} registers, used 1 barriers, 384 bytes smem, 368 bytes cmem[0]
`,
    );
  const clean = "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads";
  const spilled = "16 bytes stack frame, 12 bytes spill stores, 20 bytes spill loads";
  const check = (compiler = "13.0.88", ...more: string[]) => {
    const options = [`-DOBJECTS=${scratch}`, `-DBUDGETS=${budgets}`, `-DCOMPILER=${compiler}`, ...more];
    return sh("cmake", [...options, "-P", path.join(packageRoot, "cmake/cuda_budgets.cmake")]);
  };
  try {
    const name = `${path.basename(scratch)} wait`;
    report(40, clean);
    assert.is(check("13.0.88", "-DUPDATE=ON").code, 0);
    assert.match(readFileSync(budgets, "utf8"), new RegExp(`^# nvcc 13\\.0\nsm_80 40 384 ${name}$`, "m"));
    assert.match(check().output, /1 CUDA kernels within their budget/);
    report(38, clean);
    assert.is(check().code, 0, "fewer registers");
    report(41, clean);
    assert.is.not(check().code, 0, "more registers");
    assert.match(check().output, /wait: 41 registers, 384 bytes, the budget is 40, 384/);
    const other = check("12.4.131");
    assert.is(other.code, 0, "more registers, by another compiler");
    assert.match(other.output, /nvcc 12\.4, the budgets are for 13\.0[\s\S]*41 registers/);
    report(40, spilled);
    assert.is.not(check().code, 0, "a spill");
    assert.match(check().output, /12 bytes spill stores/);
    assert.is.not(check("13.0.88", "-DUPDATE=ON").code, 0, "a spill that an update would hide");
    report(40, clean);
    writeFileSync(budgets, `# nvcc 13.0\nsm_80 30 0 ${name}\nsm_86 41 384 ${name}\n`);
    assert.is(check("13.0.88", "-DUPDATE=ON").code, 0);
    const lines = readFileSync(budgets, "utf8").split("\n").filter((line) => line.startsWith("sm_"));
    assert.equal(lines, [`sm_80 40 384 ${name}`, `sm_86 41 384 ${name}`], "an update of what was built");
    writeFileSync(budgets, "# nvcc 13.0\nsm_80 40 384 elsewhere wait\n");
    assert.is.not(check().code, 0, "a kernel without a line");
    assert.match(check().output, /wait: 40 registers, 384 bytes, without a budget/);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
});

test.run();
