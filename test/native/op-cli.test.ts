/** `affuse op` and `affuse doctor`, as a user runs them. */
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { readSafetensors, type WritableTensor, writeSafetensors } from "../../lib/data/safetensors.ts";
import { affuse } from "../helpers/cli.ts";
import { addon } from "./helpers.ts";

const folder = mkdtempSync(path.join(tmpdir(), "op-cli-"));
test.after(() => rmSync(folder, { recursive: true, force: true }));

const at = (name: string) => path.join(folder, name);

function file(name: string, tensors: Record<string, WritableTensor>): string {
  writeSafetensors(at(name), Object.entries(tensors));
  return at(name);
}

const f32 = (shape: number[], values: number[]): WritableTensor => ({ shape, data: Float32Array.from(values) });
const f64 = (shape: number[], values: number[]): WritableTensor => ({ shape, data: Float64Array.from(values) });

const golden = (make: typeof f32) => ({
  a: make([1, 2], [1, 2]),
  v: make([1, 2], [3, -1]),
  U: make([4, 2], [1, 0, 0, 1, 1, 1, 1, -1]),
  V: make([4, 2], [1, 1, 1, -1, 0, 1, 2, 0]),
});

test("fbp's golden values, on the CPU and on the reference", async () => {
  for (const [device, make, dtype] of [["cpu", f32, "F32"], ["reference", f64, "F64"]] as const) {
    const input = file(`golden-${device}.safetensors`, golden(make));
    const output = at(`out-${device}.safetensors`);
    const { code, stdout, stderr } = await affuse(["op", "fbp", "--in", input, "--out", output, "--attr", "k=2", "--device", device]);
    assert.is(code, 0, stderr);
    assert.match(stdout, /^z f(32|64) \[1,2\]\ns f(32|64) \[1,2\]\n$/);
    const { tensors } = readSafetensors(output);
    assert.is(tensors.get("z")?.dtype, dtype);
    const z = tensors.get("z")?.data as Float32Array;
    assert.ok(Math.abs((z[0] as number) - 0.72547625) < 1e-6 && Math.abs((z[1] as number) + 0.6882472) < 1e-6);
    assert.equal(Array.from(tensors.get("s")?.data as Float32Array), [10, -9]);
  }
});

test("backward: gradients of what was given, and no others", async () => {
  const input = file("backward.safetensors", { ...golden(f32), dz: f32([1, 2], [1, 2]) });
  const output = at("gradients.safetensors");
  const { code, stderr } = await affuse(["op", "fbp.backward", "--in", input, "--out", output, "--attr", "k=2", "--threads", "1"]);
  assert.is(code, 0, stderr);
  const { tensors } = readSafetensors(output);
  assert.equal([...tensors.keys()].sort(), ["dU", "dV", "da", "dv"]);
  const expected = { da: [0.40351101, -0.20175551], dv: [0.0415379, 0.12461369] };
  for (const [name, values] of Object.entries(expected)) {
    const data = tensors.get(name)?.data as Float32Array;
    for (const [i, value] of values.entries()) assert.ok(Math.abs((data[i] as number) - value) < 1e-6, name);
  }
});

test("optional outputs by name, int32 lengths, several attributes after one --attr, --json", async () => {
  const input = file("afg.safetensors", {
    x: f32([2, 3, 2], [1, 2, 3, 4, 5, 6, 7, 8, Number.NaN, 1, 2, 3]),
    lengths: { shape: [2], data: Int32Array.from([3, 1]) },
    W: f32([2, 2], [1, 0, 0, 1]),
    b: f32([2], [0, 0]),
    u: f32([2], [1, 1]),
  });
  const output = at("afg-out.safetensors");
  const args = ["op", "afg", "--in", input, "--out", output, "--attr", "scale=0.5", "masked=true", "--outputs", "k", "--json"];
  const { code, stdout, stderr } = await affuse(args);
  assert.is(code, 0, stderr);
  const result = JSON.parse(stdout);
  assert.equal(Object.keys(result.outputs).sort(), ["alpha", "c", "k"]);
  assert.equal(result.outputs.c, { dtype: "f32", shape: [2, 1, 2] });
  const { tensors } = readSafetensors(output);
  assert.equal(Array.from(tensors.get("alpha")?.data as Float32Array).slice(3), [1, 0, 0]);
  assert.equal(Array.from(tensors.get("c")?.data as Float32Array).slice(2), [7, 8]);
});

test("--list names every operator with its tensors, attributes and formulas", async () => {
  const listed = JSON.parse((await affuse(["op", "--list", "--json"])).stdout);
  assert.equal(listed, JSON.parse(JSON.stringify(addon.operators())));
  const text = (await affuse(["op", "--list"])).stdout;
  for (const { name } of addon.operators()) assert.ok(text.includes(`${name}\n`), name);
  assert.match(text, /\nspec N\.N: section N\.N of docs\/specification\.md/);
});

test("what is refused, with which code, and that nothing is written", async () => {
  const good = file("good.safetensors", golden(f32));
  const output = at("never.safetensors");
  const small = golden(f32);
  const tensor = (name: string, value: WritableTensor) => file(`${name}.safetensors`, { ...small, [name === "extra" ? "q" : name]: value });
  const { V, ...withoutV } = small;
  assert.ok(V);
  writeFileSync(at("damaged.safetensors"), "no");
  const rows: [string[], string, number, Record<string, string>?][] = [
    [["nope", "--in", good], "ERR_AFFUSE_UNKNOWN_OPERATOR", 1],
    [["fbp", "--in", at("absent.safetensors")], "ERR_AFFUSE_NOT_FOUND", 1],
    [["fbp", "--in", at("damaged.safetensors")], "ERR_AFFUSE_FORMAT", 1],
    [["fbp", "--in", tensor("extra", f32([1], [1]))], "ERR_AFFUSE_NAME", 1],
    [["fbp", "--in", file("missing.safetensors", withoutV)], "ERR_AFFUSE_MISSING", 1],
    [["fbp", "--in", tensor("a", f64([1, 2], [1, 2]))], "ERR_AFFUSE_DTYPE", 1],
    [["fbp", "--in", tensor("v", { shape: [1, 2], data: BigInt64Array.from([1n, 2n]) })], "ERR_AFFUSE_DTYPE", 1],
    [["fbp", "--in", tensor("U", f32([8], [1, 2, 3, 4, 5, 6, 7, 8]))], "ERR_AFFUSE_RANK", 1],
    [["fbp", "--in", good, "--attr", "k=3"], "ERR_AFFUSE_", 1],
    [["fbp", "--in", good, "--attr", "k=2.5"], "ERR_AFFUSE_ATTRIBUTE", 1],
    [["fbp", "--in", good, "--attr", "k=0"], "ERR_AFFUSE_ATTRIBUTE", 1],
    [["fbp", "--in", good, "--attr", "normalize=l3"], "ERR_AFFUSE_ATTRIBUTE", 1],
    [["fbp", "--in", good, "--attr", "nope=1"], "ERR_AFFUSE_ATTRIBUTE", 1],
    [["fbp", "--in", good, "--attr", "k"], "ERR_AFFUSE_USAGE", 2],
    [["fbp", "--in", good, "--outputs", "nope"], "ERR_AFFUSE_NAME", 1],
    [["fbp", "--in", good, "--device", "cuda"], "ERR_AFFUSE_CUDA_UNAVAILABLE", 1, { AFFUSE_DISABLE_CUDA: "1" }],
    [["fbp", "--in", good, "--device", "abacus"], "ERR_AFFUSE_DEVICE", 1],
    [["fbp", "--in", good, "--threads", "0"], "whole number", 2],
    [["--in", good], "ERR_AFFUSE_USAGE", 2],
  ];
  // A few at a time: each is a process.
  for (let i = 0; i < rows.length; i += 2) {
    await Promise.all(
      rows.slice(i, i + 2).map(async ([args, expected, exit, env = {}]) => {
        const { code, stdout, stderr } = await affuse(["op", ...args, "--out", output], { env });
        assert.ok(stderr.includes(expected), `${args.join(" ")}: expected ${expected}, got ${stderr}`);
        assert.is(code, exit, args.join(" "));
        assert.is(stdout, "");
        assert.not.match(stderr, /\n\s+at /);
      }),
    );
  }
  assert.not.ok(existsSync(output));
});

test("doctor: for people and for machines, and with a level that is not there", async () => {
  const { code, stdout } = await affuse(["doctor", "--json"]);
  const report = JSON.parse(stdout);
  assert.is(code, 0);
  assert.ok(report.ok && report.addon.loaded);
  assert.is(report.operators, addon.operators().length);
  assert.equal(report.backends.slice(0, 3).map((b: { name: string }) => b.name), ["cpu", "reference", "cuda"]);
  if (!report.backends[2].available) assert.match(report.backends[2].code, /^ERR_AFFUSE_CUDA_/);
  assert.match((await affuse(["doctor"])).stdout, /operators on (baseline|avx2|avx512)/);
  const forced = await affuse(["doctor", "--json"], { env: { AFFUSE_CPU: "avx9000" } });
  assert.is(forced.code, 1);
  assert.match(JSON.parse(forced.stdout).addon.problem, /ERR_AFFUSE_CPU/);
});

test("--help has examples", async () => {
  for (const command of ["op", "doctor"]) {
    const { code, stdout } = await affuse([command, "--help"]);
    assert.is(code, 0);
    assert.match(stdout, /Examples:/);
  }
});

test.run();
