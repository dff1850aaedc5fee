/** Runs cases: check, warm up, take turns, sum up. */
import { setTimeout as sleep } from "node:timers/promises";
import { AffuseError, isAffuseError } from "../lib/errors.ts";
import type { HostTensor, NativeAddon } from "../lib/native/addon.ts";
import { accountFor } from "./account.ts";
import type { Calm } from "./calm.ts";
import { afgCost } from "./cases/operators.ts";
import { type Checked, checkCase, difference, peerTolerance } from "./check.ts";
import { byCalls, byProgram, type Ours, type Plan, planOf } from "./ours.ts";
import type { OrtPeer, OrtSide } from "./peers/ort.ts";
import type { TorchPeer } from "./peers/torch.ts";
import type { Perf } from "./perf.ts";
import { boundBy, type Bound, memorySeconds, type RoofTable, readRoofFor } from "./roofs.ts";
import { summary } from "./stats.ts";
import { describeTensors, elements, makeSets, makeTensor, type Sets } from "./tensors.ts";
import type { Account, Contender, Entry, OperatorCase, Sample, Skipped } from "./types.ts";

export interface Bench {
  addon: NativeAddon;
  /** Thread counts for us and onnxruntime; PyTorch is measured at each as well. */
  threads: readonly number[];
  roofs: readonly RoofTable[];
  calm: Calm;
  /** Aborted: the running case ends as soon as it can. */
  signal: AbortSignal | undefined;
  ort: OrtPeer | null;
  /** PyTorch in processes that wait in different ways; empty: not there. */
  torch: readonly TorchPeer[];
  /** Tells where the time of operators goes. */
  perf: Perf | null;
  /** Samples per contender at most, and how long one lasts at least. */
  rounds: number;
  sampleSeconds: number;
  /** No new round begins after so many seconds, once there are three. */
  caseSeconds: number;
  /** Measure the peak memory of training, in processes of their own. */
  memory: boolean;
  /** Seconds that starting a run takes (bench/account.ts). */
  start: number;
  /** Seconds of a hyperbolic tangent. */
  tanh: number;
  note(text: string): void;
}

export interface Outcome {
  entries: Entry[];
  skipped: Skipped[];
}

/** What a case is, for those that sum it up. */
export interface Work {
  name: string;
  tags: string[];
  note: string | null;
  via: string;
  residency: string;
  flops: number | null;
  bytes: number | null;
  check: Checked | null;
  /** What bounds it, per thread count. */
  bound: ((table: RoofTable) => Bound) | null;
  account?: ((table: RoofTable) => Account) | null;
}

/** Waits until this process's threads rest: a peer's pool may spin for a while after its work is done. */
async function settle(): Promise<void> {
  for (let i = 0; i < 20; i++) {
    const used = process.cpuUsage();
    await sleep(10);
    const { user, system } = process.cpuUsage(used);
    if (user + system < 3000) return;
  }
}

/** Every thread count, several threads with every way of waiting. */
export const torchContenders = ({ torch, threads }: Bench): Contender[] =>
  torch.flatMap((peer, i) => threads.filter((n) => i === 0 || n > 1).map((n) => peer.contender(n)));

/** Why a peer has no timings in a case. */
export function skippedPeer(test: string, peer: Skipped["peer"], error: unknown): Skipped {
  const code = isAffuseError(error) ? error.code : "ERR_AFFUSE_BENCH_PEER";
  return { case: test, peer, code, reason: error instanceof Error ? error.message : String(error) };
}

/**
 * Takes turns until there are enough samples. Each round begins with another contender and a look at the
 * roofs. A peer that fails in between is out; the rest goes on. Time lost to patience is not the case's.
 */
export async function takeTurns(
  bench: Bench,
  work: Work,
  contenders: readonly Contender[],
): Promise<Outcome> {
  const skipped: Skipped[] = [];
  const { addon, calm } = bench;
  const samples = new Map<Contender, Sample[]>(contenders.map((contender) => [contender, []]));
  const shares = new Map<Contender, number[]>();
  const counts = [...new Set(contenders.map(({ threads }) => threads))];
  const bounds = new Map<number, Bound>();
  for (const table of bench.roofs)
    if (work.bound && counts.includes(table.threads)) bounds.set(table.threads, work.bound(table));
  const roofs = new Map<string, number[]>();
  const patience = calm.left;
  const begin = performance.now();
  for (let round = 0; round < bench.rounds; round++) {
    const waited = patience - calm.left;
    if (
      round >= 3 &&
      (bench.signal?.aborted || (performance.now() - begin) / 1000 - waited > bench.caseSeconds)
    )
      break;
    for (const [threads, { kind }] of bounds) {
      const key = `${kind} ${threads}`;
      const { value } = await calm.around(threads, () =>
        Math.max(
          addon.roof(kind, threads, 0.004),
          kind === "copy.dram" ? addon.roof("copy-nt.dram", threads, 0.004) : 0,
        ),
      );
      roofs.set(key, [...(roofs.get(key) ?? []), value]);
    }
    for (let i = 0; i < contenders.length; i++) {
      const contender = contenders[(i + round) % contenders.length] as Contender;
      const list = samples.get(contender);
      if (!list) continue;
      try {
        const { value, share } = await calm.around(contender.threads, () =>
          contender.sample(bench.sampleSeconds),
        );
        list.push(value);
        shares.set(contender, [...(shares.get(contender) ?? []), share]);
      } catch (error) {
        if (contender.peer === "affuse") throw error;
        samples.delete(contender);
        if (!skipped.some(({ peer }) => peer === contender.peer))
          skipped.push(skippedPeer(work.name, contender.peer, error));
        continue;
      }
      if (contender.threads > 1 && contender.peer === "onnxruntime") await settle();
    }
  }
  const ours = new Map<number, number>();
  for (const [contender, list] of samples) {
    if (contender.peer === "affuse")
      ours.set(contender.threads, summary(list.map(({ seconds }) => seconds)).median);
  }
  const entries = [...samples].map(([contender, list]): Entry => {
    const { threads, peer, setting } = contender;
    const { median, p20, p80, samples: taken } = summary(list.map(({ seconds }) => seconds));
    const bound = bounds.get(threads);
    const measured = bound && roofs.get(`${bound.kind} ${threads}`);
    const roof = measured ? summary(measured).median : null;
    const cpu = summary(list.map((sample) => sample.cpu)).median;
    const own = ours.get(threads);
    const share = summary(shares.get(contender) ?? [Number.NaN]).median;
    const name = `${work.name}/${peer}${setting ? ` ${setting}` : ""}/threads:${threads}`;
    const table = bench.roofs.find((candidate) => candidate.threads === threads);
    const fma = (bound?.kind === "fma.f32" ? roof : null) ?? table?.roofs["fma.f32"] ?? null;
    const atRoof = bound && roof ? bound.seconds(roof) : null;
    return {
      name,
      run_name: name,
      run_type: "iteration",
      repetitions: taken,
      iterations: list.reduce((sum, { count }) => sum + count, 0),
      threads,
      real_time: median * 1e6,
      cpu_time: cpu * 1e6,
      time_unit: "us",
      case: work.name,
      tags: work.tags,
      peer,
      setting: setting ?? null,
      median,
      p20,
      p80,
      samples: taken,
      flops: work.flops,
      bytes: work.bytes,
      flops_per_second: work.flops === null ? null : work.flops / median,
      bytes_per_second: work.bytes === null ? null : work.bytes / median,
      roof_kind: bound?.kind ?? null,
      roof,
      roof_percent: atRoof === null ? null : (100 * atRoof) / median,
      issue_percent: 100 * share,
      shared: !calm.own(share, threads),
      fma_percent: work.flops === null || fma === null ? null : (100 * work.flops) / median / fma,
      ratio: peer === "affuse" || own === undefined ? null : median / own,
      residency: work.residency,
      via: work.via,
      check: work.check,
      peak_memory: null,
      account: (peer === "affuse" && threads === 1 && table && work.account?.(table)) || null,
      where: null,
      where_samples: null,
      note: work.note,
    };
  });
  return { entries, skipped };
}

/** Samples where the time of our contender with one thread goes, where that is asked for. @throws AffuseError */
async function addWhere(bench: Bench, contenders: readonly Contender[], entries: Entry[]): Promise<void> {
  const ours = ({ peer, threads }: Contender | Entry) => peer === "affuse" && threads === 1;
  const { perf, calm, signal } = bench;
  const loop = contenders.find(ours)?.loop;
  const entry = entries.find(ours);
  if (!perf || !loop || !entry || signal?.aborted) return;
  Object.assign(entry, (await calm.around(1, () => perf.where(loop))).value);
}

/** Bytes by which packed bf16 matrices are smaller than float32 ones. */
function savedByPacking(test: OperatorCase): number {
  if (test.attributes.precision !== "bf16" || test.via !== "program" || test.gradients) return 0;
  const matrices = Object.values(test.tensors).filter(({ role, shape }) => role === "weight" && shape.length > 1);
  return matrices.reduce((sum, { shape }) => sum + 2 * elements(shape), 0);
}

/** Bytes of a set that rotate, and of the weights that do not. */
function traffic(test: OperatorCase, plan: Plan): { rotating: number; kept: number } {
  let rotating = 0;
  let kept = 0;
  for (const { shape, role } of Object.values(test.tensors)) {
    const size = 4 * elements(shape);
    if (role === "weight" && test.residency !== "rotating weights") kept += size;
    else rotating += size;
  }
  for (const list of plan.made) for (const desc of list) if (desc) rotating += 4 * elements(desc.shape);
  const saved = savedByPacking(test);
  if (test.residency === "rotating weights") rotating -= saved;
  else kept -= saved;
  return { rotating, kept };
}

/** Sets that are at least twice the last-level cache together. */
function setCount(addon: NativeAddon, test: OperatorCase, rotating: number): number {
  if (test.residency === "cached") return 1;
  const { l1, l2, l3 } = addon.cpu().caches;
  return Math.max(1, Math.min(64, Math.ceil((2 * Math.max(l1, l2, l3)) / rotating)));
}

/** One operator case against the peers that have it. A peer that fails is skipped; the rest goes on. */
export async function runOperator(bench: Bench, given: OperatorCase): Promise<Outcome> {
  const { addon, threads } = bench;
  let test = given;
  let tanhs = 0;
  const lengths = test.op === "afg" ? test.tensors.lengths : undefined;
  if (test.op === "afg") {
    const [B = 0, T = 0] = test.tensors.x?.shape ?? [];
    const frames = lengths
      ? (makeTensor(lengths, `${test.name} lengths`, 0).data as Int32Array).reduce((a, b) => a + b, 0)
      : B * T;
    test = { ...test, ...afgCost(test, frames) };
    tanhs = frames * (test.tensors.W?.shape[0] ?? 0);
  }
  const plan = planOf(addon, test, describeTensors(test));
  // Formulas count float32; a program for inference keeps its weights as it packed them.
  plan.bytes -= savedByPacking(test);
  const { rotating, kept } = traffic(test, plan);
  const count = setCount(addon, test, rotating);
  const { l1, l2, l3 } = addon.cpu().caches;
  const enough = count * rotating >= 2 * Math.max(l1, l2, l3);
  const sets = makeSets(test, count);
  const memory = { streamed: enough ? Math.max(0, plan.bytes - kept) : 0, kept: enough ? kept : plan.bytes };
  const precision = test.attributes.precision === "bf16" ? "bf16" : "f32";
  const parts = (table: RoofTable) => [
    { bytes: memory.streamed, kind: test.stream },
    {
      bytes: memory.kept,
      kind: readRoofFor(addon, enough ? memory.kept : count * rotating + kept, table.threads),
    },
  ];
  const bound = (table: RoofTable) => boundBy(table, plan.flops, parts(table), precision);
  const single = bench.roofs.find((table) => table.threads === 1) ?? bench.roofs[0];
  const estimate = single ? bound(single).least : 1e-3;
  const most = Math.max(...threads);
  const ours: Ours =
    test.via === "call"
      ? byCalls(addon, test, plan, sets, most)
      : byProgram(addon, test, plan, sets, estimate, most);
  const skipped: Skipped[] = [];
  const contenders: Contender[] = [];
  let ort: OrtSide | null = null;
  try {
    const check = await checkCase(addon, test, plan, sets, ours);
    for (const n of threads) contenders.push(ours.contender(n));
    if (bench.ort && test.peers.ort) {
      try {
        ort = await bench.ort.open(test, sets, threads);
        await compareWith(test, ours, plan, sets, { [mainResult(plan)]: await ort.result() }, "onnxruntime");
        contenders.push(...ort.contenders);
      } catch (error) {
        skipped.push(skippedPeer(test.name, "onnxruntime", error));
      }
    }
    if (bench.torch.length > 0 && test.peers.torch) {
      try {
        const { op, attributes, gradients = null } = test;
        for (const torch of bench.torch) {
          await torch.load({ kind: "operator", op, attributes, gradients }, sets);
          await compareWith(test, ours, plan, sets, await torch.results(), "PyTorch");
        }
        contenders.push(...torchContenders(bench));
      } catch (error) {
        skipped.push(skippedPeer(test.name, "torch", error));
      }
    }
    const work: Work = {
      name: test.name,
      tags: test.tags,
      note: test.note ?? null,
      via:
        test.via === "call"
          ? "call, weights packed in every call"
          : test.gradients
            ? "program, weights packed in every call"
            : "program, weights packed once",
      residency: enough
        ? `${count} sets rotate${test.residency === "rotating weights" ? ", weights too" : ""}`
        : "cache-resident",
      flops: plan.flops,
      bytes: plan.bytes,
      check,
      bound,
      account:
        test.columns === undefined
          ? null
          : (table) =>
              accountFor(test, table, {
                flops: plan.flops,
                tanhs,
                tanh: bench.tanh,
                memory: memorySeconds(table, parts(table)),
                packed: test.gradients ? kept : 0,
                runsPerCall: ours.runsPerCall,
                start: bench.start,
              }),
    };
    const { entries, skipped: lost } = await takeTurns(bench, work, contenders);
    skipped.push(...lost);
    try {
      await addWhere(bench, contenders, entries);
    } catch (error) {
      skipped.push(skippedPeer(test.name, "perf", error));
    }
    return { entries, skipped };
  } finally {
    await ort?.close();
    ours.dispose();
  }
}

const mainResult = (plan: Plan): string => plan.results[0] as string;

/** A peer must give the same results; random masks and in-place updates cannot be compared. */
async function compareWith(
  test: OperatorCase,
  ours: Ours,
  plan: Plan,
  sets: Sets,
  theirs: Record<string, Float32Array>,
  peer: string,
): Promise<void> {
  if (["dropout", "adam", "adamw"].includes(test.op)) return;
  const own = await ours.results({});
  for (const name of plan.results) {
    const other = theirs[name];
    const mine = own[name] as HostTensor;
    if (!other) continue;
    const off = difference(other, mine.data, test.compare === "signed-square" && name === "z");
    if (!(off <= peerTolerance(test)) || other.length !== mine.data.length) {
      throw new AffuseError(
        "ERR_AFFUSE_BENCH_RESULT",
        `${peer} differs in ${name} by ${off.toExponential(2)} (set 0 of ${sets.length}).`,
      );
    }
  }
}
