/**
 * The path for AVX-512-BF16. Its machine code: the widest tile's loop is one vdpbf16ps per sum and nothing goes to the
 * stack. Its packing, tiles and edges: every recorded run with bf16 operands through a software stand-in of the
 * instruction (bf16_stand_in.cc), on processors with AVX-512.
 */
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { packageRoot } from "#root";
import { sh } from "../helpers/process.ts";
import { record } from "../operators/record.ts";
import { addon } from "./helpers.ts";

const folder = mkdtempSync(path.join(tmpdir(), "affuse-bf16-"));
test.after(() => rmSync(folder, { recursive: true, force: true }));
const compiler = process.env.CXX ?? "c++";
const FLAGS = ["-std=c++20", "-O3", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", `-I${packageRoot}`];

function must(command: string, args: string[], env: Record<string, string> = {}): string {
  const { code, stdout, output } = sh(command, args, env);
  assert.is(code, 0, output.slice(-4000));
  return stdout;
}

test("the widest tile is dense: one vdpbf16ps per sum, and no sum goes to the stack", () => {
  const object = path.join(folder, "dot.o");
  const source = path.join(packageRoot, "kernels/gemm/bf16_dot.cc");
  must(compiler, [...FLAGS, "-mavx512bf16", "-c", source, "-o", object]);
  const code = must("objdump", ["-d", "-C", "--no-show-raw-insn", object]);
  for (const rows of [14, 13, 8, 1]) {
    const from = code.indexOf(`multiply_dot<${rows}, 2>`);
    assert.ok(from >= 0, `no tile of ${rows} rows`);
    const body = code.slice(from, code.indexOf("ret", from)).split("\n");
    assert.is(body.filter((line) => line.includes("vdpbf16ps")).length, 2 * rows);
    assert.equal(
      body.filter((line) => /zmm.*\(%[re]sp\)|\(%[re]sp\).*zmm/.test(line)),
      [],
      `${rows} rows`,
    );
  }
});

const library = path.join(packageRoot, "build-cmake/libaffuse.a");
const why = !addon.cpu().levels.includes("avx512")
  ? "this processor has no AVX-512"
  : existsSync(library)
    ? null
    : `there is no ${library}`;
if (why) console.log(`skipped: ${why}`);

(why ? test.skip : test)("every run with bf16 operands, through the stand-in of vdpbf16ps", () => {
  const recording = path.join(folder, "runs.bin");
  const { runs } = record(recording, (run) => run.case.attributes.precision === "bf16");
  assert.ok(runs > 40, `${runs} runs`);
  const stand = path.join(folder, "stand_in.o");
  must(compiler, [...FLAGS, "-c", path.join(packageRoot, "test/native/bf16_stand_in.cc"), "-o", stand]);
  const replay = path.join(folder, "replay");
  must(compiler, [
    ...["-std=c++20", "-O2", `-I${path.join(packageRoot, "native/include")}`],
    ...[path.join(packageRoot, "test/native/replay.cc"), stand, library, "-pthread", "-o", replay],
  ]);
  const output = must(replay, [recording], { AFFUSE_CPU: "avx512" });
  assert.match(output, `avx512: ${runs} runs of`);
  assert.match(output, /, 0 failed$/m);
});

test.run();
