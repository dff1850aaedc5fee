/**
 * FBP and AFG forward against PyTorch, one thread each, the same inputs, calls interleaved in one run. Results must agree
 * before anything is timed. PyTorch keeps its weights as it likes them; ours are packed inside every call.
 *
 *   node --import tsx bench/forward.ts [--rounds N] [--python PATH]
 *
 * Prints one JSON document: seconds as median, p20, p80, and `ratio` = PyTorch's median / ours (above 1: ours is faster).
 * On a machine that does other work the ratio of processor times is the one to read.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { Random } from "../lib/data/random.ts";
import { loadAddon } from "../lib/native/index.ts";
import type { HostTensor } from "../lib/native/addon.ts";
import { startPeer, summary } from "./peer.ts";

const { values: options } = parseArgs({
  options: { rounds: { type: "string", default: "15" }, python: { type: "string", default: "/usr/bin/python3" } },
});

interface Case {
  name: string;
  op: "fbp" | "afg";
  shapes: Record<string, number[]>;
  attributes: Record<string, number>;
  /** Index of the compared output. */
  output: number;
}

const fbp = (B: number, m: number, n: number, o: number, k: number): Case => ({
  name: `fbp B=${B} m=${m} n=${n} o=${o} k=${k}`,
  op: "fbp",
  shapes: { a: [B, m], v: [B, n], U: [o * k, m], V: [o * k, n] },
  attributes: { k },
  output: 0,
});
const afg = (B: number, T: number, D: number, A: number): Case => ({
  name: `afg B=${B} T=${T} D=${D} A=${A}`,
  op: "afg",
  shapes: { x: [B, T, D], W: [A, D], b: [A], u: [A] },
  attributes: { scale: 0.3 },
  output: 0,
});
const cases = [
  ...[64, 128, 256].map((B) => fbp(B, 1024, 1024, 256, 4)),
  ...[64, 256].map((B) => fbp(B, 1024, 1024, 1000, 5)),
  ...[64, 128, 256].map((B) => afg(B, 64, 1024, 256)),
  afg(32, 200, 1024, 256),
];

const addon = loadAddon();
const random = new Random(1, "bench forward");
const folder = mkdtempSync(join(tmpdir(), "affuse-bench-"));
const peer = startPeer("forward.py", options.python);
const results: Record<string, unknown> = {};
let about: Record<string, unknown> = {};
try {
  for (const { name, op, shapes, attributes, output } of cases) {
    const tensors = Object.fromEntries(
      Object.entries(shapes).map(([key, shape]) => {
        const scale = key === "W" || key === "U" || key === "V" ? 1 / Math.sqrt(shape[1] as number) : 1;
        const data = new Float32Array(shape.reduce((a, b) => a * b, 1));
        for (let i = 0; i < data.length; i++) data[i] = scale * random.uniform(-1, 1);
        return [key, { dtype: "f32", shape, data } as HostTensor];
      }),
    );
    const rules = addon.operators().find((rule) => rule.name === op);
    if (!rules) throw new Error(`no operator ${op}`);
    const inputs = rules.inputs.map((rule) => tensors[rule.name] ?? null);
    const wanted = rules.outputs.map((rule) => !rule.optional);
    const file = join(folder, "shared.bin");
    writeFileSync(file, Buffer.concat(Object.values(tensors).map(({ data }) => Buffer.from(data.buffer))));
    about = await peer.ask({ do: "load", op, file, shapes, attributes, out: join(folder, "out.bin") });
    const ours = addon.call("cpu", op, inputs, attributes, wanted, 1)[output]?.data as Float32Array;
    const { difference } = await peer.ask({ do: "compare", values: [...ours.subarray(0, 4096)] });
    if (!((difference as number) < 1e-4)) throw new Error(`${name}: differs from PyTorch by ${difference}`);

    const timings = { wall: { ours: [] as number[], torch: [] as number[] }, processor: { ours: [] as number[], torch: [] as number[] } };
    for (let round = 0; round < Number(options.rounds) + 3; round++) {
      const used = process.cpuUsage();
      const start = performance.now();
      addon.call("cpu", op, inputs, attributes, wanted, 1);
      const seconds = (performance.now() - start) / 1000;
      const { user, system } = process.cpuUsage(used);
      const torch = await peer.ask({ do: "run" });
      if (round < 3) continue; // warm-up
      timings.wall.ours.push(seconds);
      timings.wall.torch.push(torch.seconds as number);
      timings.processor.ours.push((user + system) / 1e6);
      timings.processor.torch.push(torch.cpuSeconds as number);
    }
    const compare = ({ ours, torch }: { ours: number[]; torch: number[] }) => {
      const [a, b] = [summary(ours), summary(torch)];
      return { affuse: a, torch: b, ratio: b.median / a.median };
    };
    const { flops } = addon.cost(op, inputs, attributes);
    const wall = compare(timings.wall);
    results[name] = { wall, processor: compare(timings.processor), gflops: flops / wall.affuse.median / 1e9, difference };
  }
  const context = { threads: 1, cpu: addon.cpu(), peer: about };
  process.stdout.write(`${JSON.stringify({ context, cases: results }, null, 2)}\n`);
} finally {
  peer.stop();
  rmSync(folder, { recursive: true, force: true });
}
