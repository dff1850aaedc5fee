// Error bounds of the vector functions (kernels/common/math.h) and the masks of kernels/common/philox.h, on every instruction set
// that this machine runs.
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { packageRoot } from "#root";
import { addon } from "./helpers.ts";

const FLAGS: Record<string, string[]> = {
  baseline: process.arch === "x64" ? ["-march=x86-64"] : [],
  avx2: ["-mavx2", "-mfma", "-mf16c", "-mbmi2"],
  avx512: ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mbmi2"],
  neon: [],
};

const PROGRAMS = {
  math: "every function is within its stated error",
  philox: "masks are those of the definition",
};

for (const isa of addon.cpu().levels)
  for (const [name, promise] of Object.entries(PROGRAMS)) test(`${isa}: ${promise}`, () => check(isa, name));

function check(isa: string, name: string): void {
  const folder = mkdtempSync(path.join(tmpdir(), "affuse-math-"));
  try {
    const program = path.join(folder, name);
    const compiled = spawnSync(
      process.env.CXX ?? "c++",
      [
        "-std=c++20",
        "-O2",
        "-ffp-contract=fast",
        "-fno-math-errno",
        ...(FLAGS[isa] as string[]),
        `-DAFFUSE_ISA=${isa}`,
        `-DAFFUSE_ISA_${isa.toUpperCase()}=1`,
        `-I${packageRoot}`,
        path.join(packageRoot, `test/native/${name}.cc`),
        "-o",
        program,
      ],
      { encoding: "utf8" },
    );
    assert.is(compiled.status, 0, compiled.error?.message ?? compiled.stderr);
    const ran = spawnSync(program, { encoding: "utf8" });
    assert.is(ran.status, 0, ran.stdout);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

test.run();
