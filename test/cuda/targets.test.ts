// What the GPU bench says of its targets (bench/gpu/targets.py): made-up results on either side of them, and none.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { sh } from "../helpers/process.ts";

const PYTHONS = ["python3", "/usr/bin/python3"];
const python = PYTHONS.find((name) => sh(name, ["--version"]).code === 0);
if (!python) console.log("skipped: no Python");
const there = python ? test : test.skip;
const folder = mkdtempSync(path.join(tmpdir(), "affuse-targets-"));
test.after(() => rmSync(folder, { recursive: true, force: true }));

interface Entry {
  name: string;
  seconds?: number;
  percent?: number;
  peers: Record<string, number>;
  failed?: string;
}

/** Lines of the table that name the case. */
function lines(device: string, operators: Entry[], steps: Entry[] = []) {
  const file = path.join(folder, "results.json");
  const bench = { device, torch: "2", affuse: "1", ceilings: {}, operators, steps, left_out: [] };
  writeFileSync(file, JSON.stringify({ gpu: "Made-up GPU", driver: "1", bench }));
  const { code, output } = sh(python as string, ["bench/gpu/table.py", file], { PYTHONDONTWRITEBYTECODE: "1" });
  assert.is(code, 0, output);
  const table = output.slice(output.indexOf("targets, for")).split("\n");
  return { all: table.slice(1, -2), last: table.at(-2) as string };
}

const FBP = "fbp/B=4096,m=1024,n=2048,o=1000,k=5,bf16";
const STEP = "step/P1 concat,B=32,T=67-200,D=4x1024,A=256,bf16";
const AFG = ["64", "128"].map((A) => `afg/B=256,T=200,D=1024,A=${A},bf16`) as [string, string];

there("reached, missed, absent", () => {
  const { all, last } = lines(
    "cuda",
    [
      { name: AFG[0], seconds: 1, percent: 80, peers: {} },
      { name: AFG[1], seconds: 1, percent: 79.9, peers: {} },
      { name: FBP, seconds: 1, percent: 50, peers: { eager: 2, "eager.bf16": 1.25, compile: 9 } },
      { name: "adamw/N=67108864", failed: "wrong", percent: 99, peers: {} },
    ],
    [{ name: STEP, seconds: 1, peers: { eager: 5.5 } }],
  );
  const judged = all.map((line) => line.trimEnd().replace(/ {2,}/g, " "));
  assert.ok(judged.includes(`${AFG[0]} of copy bandwidth 80.0% 80% reached`), judged.join("\n"));
  assert.ok(judged.includes(`${AFG[1]} of copy bandwidth 79.9% 80% missed`));
  assert.ok(judged.includes(`${FBP} of the matrix peak 50.0% 45% reached`));
  assert.ok(judged.includes(`${FBP} PyTorch eager / ours 1.25x 1.3x missed`), "the quicker of PyTorch's two");
  assert.ok(judged.includes(`${STEP} PyTorch eager / ours 5.50x 5x reached`));
  assert.ok(judged.includes(`${STEP} PyTorch torch.compile / ours – 2x not measured`));
  assert.ok(judged.includes("adamw/N=67108864 of copy bandwidth – 80% not measured"), "a case that failed");
  assert.is(last, `targets: 3 reached, 2 missed, ${all.length - 5} not measured`);
});

there("times of the emulator are no measurement", () => {
  const { all, last } = lines("emulated", [{ name: AFG[0], seconds: 1, percent: 99, peers: {} }]);
  assert.ok(all.length >= 15 && all.every((line) => line.endsWith("not measured")));
  assert.is(last, `targets: 0 reached, 0 missed, ${all.length} not measured`);
});

there("every target has its case in the bench", () => {
  const script = `
import sys; sys.path.insert(0, "bench/gpu")
try:
    import torch
except ImportError:
    sys.exit("no PyTorch")
from types import SimpleNamespace
from cases import cases
from targets import targets
from training import Steps
steps = Steps(SimpleNamespace(device="cuda"), SimpleNamespace(gpu=True), {}, None, None).cases()
known = {case.name: case.compiled for case in cases(False)} | {case["name"]: case["compiled"] for case in steps}
for name, what, *_ in targets(): assert known[name] or "compile" not in what, name
print("known")
`;
  const said = PYTHONS.map((name) => sh(name, ["-c", script], { PYTHONDONTWRITEBYTECODE: "1" }).output.trim());
  if (!said.some((output) => output.endsWith("known")) && said.includes("no PyTorch"))
    return console.log("skipped: the names of the cases, no PyTorch");
  assert.ok(said.some((output) => output.endsWith("known")), said.join("\n"));
});

test.run();
