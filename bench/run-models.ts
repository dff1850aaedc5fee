/** Runs model cases and the cost of a call. */
import { spawnSync } from "node:child_process";
import { AffuseError, isAffuseError } from "../lib/errors.ts";
import { op } from "../lib/kernels/index.ts";
import type { HostTensor } from "../lib/native/addon.ts";
import { sampler } from "./adapter.ts";
import { memoryCommand } from "./memory.ts";
import { agreement, fcnSide, modelSide } from "./models.ts";
import { type TorchCase, TorchPeer } from "./peers/torch.ts";
import { arithmeticRoof, type RoofTable } from "./roofs.ts";
import { type Bench, type Outcome, takeTurns, torchContenders } from "./run.ts";
import { summary } from "./stats.ts";
import type { Contender, Entry, FcnCase, ModelCase, OverheadCase, Skipped } from "./types.ts";

/**
 * float32 through a whole model, against float64: ‖a − b‖ / ‖b‖. In the trunk a window's maximum may be another of two
 * neighbours that differ by rounding, and then a few gradients go another way: two float32 results may differ by twice that.
 */
const MODEL_TOLERANCE = { step: 5e-4, inference: 5e-4, fcn: 5e-3 };
/** With bf16 operands on our side: the error of one product, 2^-8 from either factor. */
const BF16_TOLERANCE = 2 ** -7;

function relativeNorm(a: Float32Array, b: Float32Array): number {
  let off = 0;
  let all = 0;
  for (let i = 0; i < b.length; i++) {
    off += ((a[i] as number) - (b[i] as number)) ** 2;
    all += (b[i] as number) ** 2;
  }
  return all > 0 ? Math.sqrt(off / all) : Math.sqrt(off);
}

const same = (a: Float32Array, b: Float32Array) =>
  a.every((value, i) => Object.is(value, b[i])) ? 0 : Number.POSITIVE_INFINITY;

/** A whole model against PyTorch, with what each process needs at most. */
export async function runModel(bench: Bench, test: ModelCase | FcnCase): Promise<Outcome> {
  const { addon, threads } = bench;
  const [torch] = bench.torch;
  const precision = test.kind === "fcn" ? "f32" : test.precision;
  const side = test.kind === "fcn" ? fcnSide(addon, test) : modelSide(addon, test);
  const skipped: Skipped[] = [];
  const contenders: Contender[] = threads.map((n) => side.contender(n));
  try {
    const one = await side.results(1);
    const counts = [...new Set([...threads, addon.cpu().threads])].filter((n) => n > 1);
    for (const n of counts) {
      const { where } = agreement(one, await side.results(n), same);
      if (where)
        throw new AffuseError(
          "ERR_AFFUSE_BENCH_RESULT",
          `${test.name}: ${where} differs between 1 and ${n} threads.`,
        );
    }
    let check = { against: `one thread, bit for bit (${counts.join(", ") || 1})`, difference: 0 };
    if (torch) {
      try {
        const { tensors, test: sent } = side.peer;
        await torch.load({ ...sent, dropout: 0, double: true }, [tensors]);
        const { difference: off, where } = agreement(one, await torch.results(), relativeNorm);
        if (!(off <= (precision === "bf16" ? BF16_TOLERANCE : MODEL_TOLERANCE[test.kind]))) {
          throw new AffuseError(
            "ERR_AFFUSE_BENCH_RESULT",
            `PyTorch in float64 differs in ${where} by ${off.toExponential(2)}.`,
          );
        }
        check = { against: `PyTorch in float64 without dropout, and ${check.against}`, difference: off };
        for (const peer of bench.torch) await peer.load(sent, [tensors]);
        contenders.push(...torchContenders(bench));
      } catch (error) {
        if (!isAffuseError(error)) throw error;
        skipped.push({ case: test.name, peer: "torch", code: error.code, reason: error.message });
      }
    }
    const work = {
      name: test.name,
      tags: test.tags,
      note: test.note ?? null,
      via: "program of a whole model",
      residency: "as the model runs",
      flops: side.flops,
      bytes: null,
      check,
      bound: (table: RoofTable) => {
        const kind = arithmeticRoof(table, precision);
        const least = side.flops / (table.roofs[kind] as number);
        return { kind, least, seconds: (roof: number) => side.flops / roof };
      },
    };
    const { entries, skipped: lost } = await takeTurns(bench, work, contenders);
    skipped.push(...lost);
    if (bench.memory && !bench.signal?.aborted && test.kind === "step") {
      // Allocators do not do the same every time: the median of three processes.
      const most = Math.max(...bench.threads);
      const peaksOf = new Map<Entry["peer"], number | null>();
      for (const entry of entries.filter(({ threads }) => threads === most)) {
        const measured = peaksOf.get(entry.peer);
        if (measured !== undefined) {
          entry.peak_memory = measured;
          continue;
        }
        const peaks: (number | null)[] = [];
        try {
          for (let i = 0; i < 3; i++)
            peaks.push(
              entry.peer === "affuse"
                ? ownPeak(test, most)
                : await torchPeak(torch?.info.python, side.peer.test, side.peer.tensors, most),
            );
        } catch (error) {
          if (!isAffuseError(error)) throw error;
          bench.note(`  ${entry.peer}: no peak memory: ${error.message}`);
        }
        const known = peaks.filter((peak) => peak !== null);
        entry.peak_memory = known.length > 0 ? summary(known).median : null;
        peaksOf.set(entry.peer, entry.peak_memory);
      }
    }
    return { entries, skipped };
  } finally {
    side.dispose();
  }
}

/** Peak resident memory of a fresh process that trains a few steps. */
function ownPeak(test: ModelCase, threads: number): number | null {
  const [command, ...args] = memoryCommand(test.name, threads);
  const { stdout, status } = spawnSync(command as string, args, {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "inherit"],
  });
  const bytes = Number(stdout);
  return status === 0 && bytes > 0 ? bytes : null;
}

async function torchPeak(
  python: string | undefined,
  test: TorchCase,
  tensors: Record<string, HostTensor>,
  threads: number,
): Promise<number | null> {
  const peer = await TorchPeer.start(python, undefined, undefined, "given back");
  try {
    await peer.load(test, [tensors]);
    const contender = peer.contender(threads);
    for (let i = 0; i < 3; i++) await contender.sample(0);
    return await peer.peakMemory();
  } finally {
    peer.stop();
  }
}

/** One element times a factor, as a call through the addon and through op(). */
export async function runOverhead(bench: Bench, test: OverheadCase): Promise<Outcome> {
  const x: HostTensor = { dtype: "f32", shape: [1], data: Float32Array.of(3) };
  const target = new Float32Array(1);
  const inputs = [x];
  const outputs = [target];
  const attributes = { factor: 2 };
  const options = { threads: 1, outputs: { y: target } };
  const call =
    test.through === "addon"
      ? () => {
          bench.addon.call("cpu", "scale", inputs, attributes, outputs, 1);
        }
      : () => {
          op("scale", { x }, attributes, options);
        };
  for (let i = 0; i < 20_000; i++) call(); // until the engine has compiled what it compiles
  if (target[0] !== 6)
    throw new AffuseError("ERR_AFFUSE_BENCH_RESULT", `${test.name}: expected 6, got ${target[0]}.`);
  const work = {
    name: test.name,
    tags: test.tags,
    note: test.note ?? null,
    via: "call",
    residency: "cache-resident",
    flops: null,
    bytes: null,
    check: { against: "the exact product", difference: 0 },
    bound: null,
  };
  return takeTurns(bench, work, [{ peer: "affuse", threads: 1, sample: sampler(call) }]);
}
