/**
 * One P1 training step (structure concat, batch 32, T = 200, two 1024-wide streams, A = 256) against PyTorch with the same
 * parameters and batch, one thread each, steps interleaved in one run. The first step runs without dropout and must agree
 * in losses and gradient norm before anything is timed.
 *
 *   node --import tsx bench/step.ts [--steps N] [--python PATH] [--no-peer]
 *
 * Prints one JSON document: wall and processor seconds as median, p20, p80, and `ratio` = PyTorch's median / ours (above 1:
 * ours is faster). On a machine that does other work the ratio of processor times is the one to read.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { Random } from "../lib/data/random.ts";
import { type Batch, createModel, type Model } from "../lib/models/index.ts";
import { loadAddon } from "../lib/native/index.ts";
import { startPeer, summary } from "./peer.ts";

const { values: options } = parseArgs({
  options: {
    steps: { type: "string", default: "15" },
    python: { type: "string", default: "/usr/bin/python3" },
    "no-peer": { type: "boolean", default: false },
  },
});

const size = 32;
const T = 200;
const dim = 1024;
const streams = [
  { name: "audio", modality: "audio", dim },
  { name: "face", modality: "visual", dim },
];
const classes = ["neutral", "angry", "happy", "sad", "worried", "surprise"];
const lr = 1e-3;

function makeBatch(shortest: number): Batch {
  const random = new Random(1, "bench step");
  const one = () => {
    const data = new Float32Array(size * T * dim);
    for (let i = 0; i < data.length; i++) data[i] = random.uniform(-1, 1);
    const lengths = Int32Array.from({ length: size }, () => shortest + random.integer(T - shortest + 1));
    return { data, lengths, T, presence: new Float32Array(size).fill(1) };
  };
  return {
    size,
    streams: { audio: one(), face: one() },
    labels: Int32Array.from({ length: size }, () => random.integer(classes.length)),
    valence: Float32Array.from({ length: size }, () => random.uniform(-2, 2)),
  };
}

/** Parameters and batch in one flat file, and where each lies. */
function share(model: Model, batch: Batch, dropout: number, path: string) {
  const parts: Float32Array[] = [];
  let offset = 0;
  const put = (shape: number[], data: Float32Array) => {
    parts.push(data);
    offset += data.length;
    return { offset: offset - data.length, count: data.length, shape };
  };
  const parameters = Object.fromEntries(
    Object.entries(model.state().parameters).map(([name, { shape, data }]) => [name, put(shape, data)]),
  );
  const given = Object.entries(batch.streams);
  const spec = {
    parameters,
    streams: Object.fromEntries(given.map(([name, { data }]) => [name, put([size, T, dim], data)])),
    lengths: Object.fromEntries(given.map(([name, { lengths }]) => [name, [...lengths]])),
    labels: [...(batch.labels ?? [])],
    valence: [...(batch.valence ?? [])],
    dropout,
    lr,
    size: offset,
  };
  writeFileSync(
    path,
    Buffer.concat(
      parts.map(({ buffer, byteOffset, byteLength }) => Buffer.from(buffer, byteOffset, byteLength)),
    ),
  );
  return spec;
}

interface Timing {
  seconds: number;
  cpuSeconds: number;
}

const addon = loadAddon();
addon.setThreads(1);
const folder = mkdtempSync(join(tmpdir(), "affuse-bench-"));
const peer = options["no-peer"] ? null : startPeer("step.py", options.python);
const cases: Record<string, unknown> = {};
let about: Record<string, unknown> = {};
try {
  for (const [name, shortest] of [
    ["full length", T],
    ["lengths 67 to 200", 67],
  ] as const) {
    const batch = makeBatch(shortest);
    const make = (dropout: number) =>
      createModel({ structure: "concat", attention: { dim: 256 }, mlp: { dropout } }, streams, classes);
    const timed = async (model: Model, step: number) => {
      const used = process.cpuUsage();
      const start = performance.now();
      const result = await model.trainStep(batch, { lr, step });
      const seconds = (performance.now() - start) / 1000;
      const { user, system } = process.cpuUsage(used);
      return { ...result, seconds, cpuSeconds: (user + system) / 1e6 };
    };
    const load = (model: Model, dropout: number) => {
      const path = join(folder, "shared.bin");
      return peer?.ask({ do: "load", path, spec: share(model, batch, dropout, path) });
    };
    const exact = make(0);
    about = (await load(exact, 0)) ?? {};
    const agreement: Record<string, number> = {};
    const [a, b] = [await timed(exact, 1), await peer?.ask({ do: "step" })];
    for (const key of ["loss", "ce", "mse", "gradNorm"] as const) {
      if (!b) continue;
      agreement[key] = Math.abs(a[key] / (b[key] as number) - 1);
      if (!(agreement[key] < 1e-4))
        throw new Error(`${name}: ${key} is ${a[key]} here and ${b[key]} in PyTorch`);
    }
    exact.dispose();

    const model = make(0.3);
    await load(model, 0.3);
    const ours: Timing[] = [];
    const theirs: Timing[] = [];
    for (let step = 1; step <= Number(options.steps) + 3; step++) {
      const [x, y] = [await timed(model, step), await peer?.ask({ do: "step" })];
      if (step <= 3) continue; // warm-up
      ours.push(x);
      if (y) theirs.push({ seconds: y.seconds as number, cpuSeconds: y.cpuSeconds as number });
    }
    model.dispose();
    const compare = (key: keyof Timing) => {
      const affuse = summary(ours.map((timing) => timing[key]));
      const torch = theirs.length > 0 ? summary(theirs.map((timing) => timing[key])) : null;
      return { affuse, torch, ratio: torch ? torch.median / affuse.median : null };
    };
    cases[name] = {
      wall: compare("seconds"),
      processor: compare("cpuSeconds"),
      relativeDifference: agreement,
    };
  }
  const context = {
    case: { structure: "concat", size, T, dim, A: 256 },
    threads: 1,
    cpu: addon.cpu(),
    peer: about,
  };
  process.stdout.write(`${JSON.stringify({ context, cases }, null, 2)}\n`);
} finally {
  peer?.stop();
  rmSync(folder, { recursive: true, force: true });
}
