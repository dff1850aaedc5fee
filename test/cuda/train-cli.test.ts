// `affuse train --device emulated` on a small demo corpus as a user makes it: the CPU's results after a step of every structure.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { readSafetensors } from "../../lib/data/safetensors.ts";
import { FUSION, UNIMODAL } from "../../lib/demo/settings.ts";
import { affuse } from "../helpers/cli.ts";
import { device, ensureDevice } from "./device.ts";

ensureDevice();
const folder = mkdtempSync(path.join(tmpdir(), "affuse-train-device-"));
test.after(() => rmSync(folder, { recursive: true, force: true }));
const at = (...parts: string[]) => path.join(folder, ...parts);
const structures = [...UNIMODAL, ...FUSION];

async function run(...args: string[]): Promise<string> {
  return runOn({}, ...args);
}
async function runOn(env: Record<string, string>, ...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await affuse(args, { env });
  assert.is(code, 0, `affuse ${args.join(" ")}: ${stderr}`);
  return stdout;
}

test.before(async () => {
  await run("synth", at("corpus"), "--clips", "12", "--test-clips", "4");
  await run("extract", at("corpus"), "--out", at("features"));
  // The demonstration's own model (lib/demo/settings.ts), in one step.
  writeFileSync(
    at("step.yaml"),
    `data: corpus
features: features
structures: [${structures.join(", ")}]
model: {attention: {dim: 64}, mlp: {widths: [64, 32], dropout: 0.2}, fbp: {outputs: 64}}
train: {epochs: 1, folds: 1, seed: 1, lr: 0.003, batchSize: 16}
`,
  );
  for (const on of ["cpu", device]) await run("train", at("step.yaml"), "--device", on, "--out", at(on));
  await runOn({ AFFUSE_CPU: "baseline" }, "train", at("step.yaml"), "--device", "cpu", "--out", at("baseline"));
});

/**
 * Of the losses and of everything that was learned: sums in another order. FBP's signed roots magnify what small sums lost, by how
 * much depends on the data: there the device may be as far from the CPU as the CPU's instruction sets from each other, four times.
 */
const bound = (structure: string) => (structure === "gfbp" ? 2e-5 : 1e-6);
const levels = (structure: string, between: number) => (structure === "gfbp" ? 4 * between : 0);

for (const structure of structures) {
  test(`${structure}: losses, parameters, optimiser`, () => {
    const [expected, got, baseline] = ["cpu", device, "baseline"].map((on) => {
      const file = (name: string) => at(on, structure, "fold0", name);
      return {
        history: JSON.parse(readFileSync(file("history.jsonl"), "utf8")) as Record<string, number>,
        tensors: readSafetensors(file("last.safetensors")).tensors,
      };
    }) as [Results, Results, Results];
    for (const name of ["step", "loss", "ce", "mse", "gradNorm", "sigmaEmotion", "sigmaValence"]) {
      const [x, y, other] = [got, expected, baseline].map(({ history }) => history[name] as number) as [number, number, number];
      const most = Math.max(bound(structure) * Math.max(1, Math.abs(y)), levels(structure, Math.abs(other - y)));
      assert.ok(Math.abs(x - y) <= most, `${name}: ${x}, expected ${y} ± ${most}`);
    }
    assert.equal([...got.tensors.keys()], [...expected.tensors.keys()]);
    const most = Math.max(bound(structure), levels(structure, distance(baseline, expected)));
    assert.ok(distance(got, expected) <= most, `${distance(got, expected)} beyond ${most}`);
  });
}

type Results = { history: Record<string, number>; tensors: ReturnType<typeof readSafetensors>["tensors"] };

/** ‖a − b‖ / ‖b‖ of everything that was learned. */
function distance(a: Results, b: Results): number {
  let off = 0;
  let all = 0;
  for (const [name, { data }] of b.tensors) {
    const other = a.tensors.get(name)?.data as Float32Array;
    for (let i = 0; i < data.length; i++) {
      off += (other[i] as number) === (data[i] as number) ? 0 : (Number(other[i]) - Number(data[i])) ** 2;
      all += Number(data[i]) ** 2;
    }
  }
  assert.ok(all > 0);
  return Math.sqrt(off / all);
}

test("several steps in flight, checkpoints between them: the CPU's results", async () => {
  const losses: number[][] = [];
  for (const on of ["cpu", device]) {
    const options = ["--structure", "concat", "--batch", "4", "--epochs", "3", "--set", "run.checkpointSteps=2"];
    await run("train", at("step.yaml"), ...options, "--device", on, "--out", at(`${on}-steps`));
    const lines = readFileSync(at(`${on}-steps`, "concat", "fold0", "history.jsonl"), "utf8").trim().split("\n");
    losses.push(lines.map((line) => (JSON.parse(line) as { loss: number }).loss));
    const { step } = JSON.parse(lines.at(-1) as string) as { step: number };
    assert.ok(step >= 6, `${step} steps`);
  }
  const [expected, got] = losses as [number[], number[]];
  assert.is(got.length, 3);
  got.forEach((loss, i) => {
    assert.ok(Math.abs(loss - (expected[i] as number)) <= 1e-5, `epoch ${i}: ${loss}, expected ${expected[i]}`);
  });
});

test("eval and ensemble of that run on the device", async () => {
  const scores = await Promise.all(
    ["cpu", device].map(async (on) =>
      JSON.parse(await run("eval", at("cpu"), "--on", "test1", "--device", on, "--json")),
    ),
  );
  const [expected, got] = scores.map(({ systems }) => systems.ensemble.emotion);
  assert.ok(Math.abs(got.wa - expected.wa) < 1e-12);
});

test("a device that is not there is refused by its code", async () => {
  const options = { env: { AFFUSE_DISABLE_CUDA: "1" } };
  const { code, stderr } = await affuse(
    ["train", at("step.yaml"), "--device", "cuda", "--out", at("no")],
    options,
  );
  assert.is(code, 1);
  assert.match(stderr, /^ERR_AFFUSE_CUDA_UNAVAILABLE/m);
});

test.run();
