/** Our own side of an operator case: as a call on typed arrays, or as a program over native buffers. */
import type {
  HostTensor,
  NativeAddon,
  NativeBuffer,
  NativeProgram,
  OperatorInfo,
  ProgramValue,
  TensorDesc,
  TypedArray,
} from "../lib/native/addon.ts";
import { repeat, sampler } from "./adapter.ts";
import { elements, type Sets } from "./tensors.ts";
import type { Contender, OperatorCase } from "./types.ts";

/** One operator call of a case: the forward, or the backward that follows it. */
export interface Stage {
  info: OperatorInfo;
  /** Which outputs are made. */
  wanted: boolean[];
}

/** Stages of a case and what each makes. */
export interface Plan {
  stages: Stage[];
  /** Descriptions of a stage's outputs, null where not wanted. */
  made: (TensorDesc | null)[][];
  flops: number;
  bytes: number;
  /** Results by name: outputs of the forward that count, and gradients. */
  results: string[];
}

export function planOf(addon: NativeAddon, test: OperatorCase, shapes: Record<string, TensorDesc>): Plan {
  const table = new Map(addon.operators().map((info) => [info.name, info]));
  const find = (name: string) => table.get(name) as OperatorInfo;
  const forward = find(test.op);
  const backward = test.gradients && forward.backward ? find(forward.backward) : null;
  const inputsOf = (info: OperatorInfo) => info.inputs.map((rule) => shapes[rule.name] ?? null);
  // The forward makes what it always makes, and what its backward can use.
  const saved = new Set(backward?.inputs.map((rule) => rule.name) ?? []);
  const stages: Stage[] = [
    {
      info: forward,
      wanted: forward.outputs.map((rule) => !rule.optional || (saved.has(rule.name) && rule.name !== "pre")),
    },
  ];
  if (backward)
    stages.push({
      info: backward,
      wanted: backward.outputs.map((rule) => test.gradients?.includes(rule.name) ?? false),
    });
  const known: Record<string, TensorDesc> = { ...shapes };
  const made = stages.map(({ info, wanted }) => {
    const all = addon.infer(
      info.name,
      info.inputs.map((rule) => known[rule.name] ?? null),
      test.attributes,
    );
    const list = all.map((desc, i) => (wanted[i] ? desc : null));
    list.forEach((desc, i) => {
      const name = info.outputs[i]?.name as string;
      if (desc && !(name in known)) known[name] = desc;
    });
    return list;
  });
  const cost = stages.map(({ info }) =>
    addon.cost(
      info.name,
      info === backward
        ? inputsOf(info).map((d, i) => d ?? known[info.inputs[i]?.name as string] ?? null)
        : inputsOf(info),
      test.attributes,
    ),
  );
  const names = stages.flatMap(({ info, wanted }) =>
    info.outputs.filter((rule, i) => wanted[i] && !rule.optional).map((rule) => rule.name),
  );
  return {
    stages,
    made,
    flops: test.flops ?? cost.reduce((sum, { flops }) => sum + flops, 0),
    bytes: test.bytes ?? cost.reduce((sum, { bytes }) => sum + bytes, 0),
    results: names,
  };
}

const arrayFor = (desc: TensorDesc): TypedArray =>
  desc.dtype === "i32" ? new Int32Array(elements(desc.shape)) : new Float32Array(elements(desc.shape));

export type Results = Record<string, HostTensor>;

/** The stages one after another with fresh outputs. */
export function callStages(
  addon: NativeAddon,
  device: string,
  test: OperatorCase,
  plan: Plan,
  given: Record<string, HostTensor>,
  threads: number,
): Results {
  const known: Results = { ...given };
  const results: Results = {};
  for (const { info, wanted } of plan.stages) {
    const inputs = info.inputs.map((rule) => known[rule.name] ?? null);
    addon.call(device, info.name, inputs, test.attributes, wanted, threads).forEach((tensor, i) => {
      const name = info.outputs[i]?.name as string;
      if (!tensor) return;
      results[name] = tensor;
      if (!(name in given)) known[name] = tensor;
    });
  }
  return results;
}

export interface Ours {
  /** Runs of a program in one call; below 1 where several calls share a run, 0 for plain calls. */
  runsPerCall: number;
  contender(threads: number): Contender;
  /** What the timed path gives for set 0 with the most threads; batch tensors of that set may be replaced. */
  results(replaced: Record<string, HostTensor>): Promise<Results>;
  dispose(): void;
}

/** Synchronous calls on typed arrays, outputs written in place. */
export function byCalls(
  addon: NativeAddon,
  test: OperatorCase,
  plan: Plan,
  sets: Sets,
  mostThreads: number,
): Ours {
  const prepared = sets.map((set) => {
    const known: Record<string, HostTensor> = { ...set };
    return plan.stages.map(({ info }, s) => {
      const inputs = info.inputs.map((rule) => known[rule.name] ?? null);
      const outputs = info.outputs.map((rule, i) => {
        const desc = plan.made[s]?.[i];
        if (!desc) return null;
        // Optimisers update in place.
        const data = set[rule.name]?.data ?? arrayFor(desc);
        known[rule.name] ??= { ...desc, data };
        return data;
      });
      return { name: info.name, inputs, outputs };
    });
  });
  let turn = 0;
  return {
    runsPerCall: 0,
    contender: (threads) => {
      const call = () => {
        const calls = prepared[turn++ % prepared.length] as (typeof prepared)[number];
        for (const { name, inputs, outputs } of calls)
          addon.call("cpu", name, inputs, test.attributes, outputs, threads);
      };
      return { peer: "affuse", threads, sample: sampler(call), loop: (seconds) => repeat(call, seconds) };
    },
    results: async (replaced) =>
      callStages(addon, "cpu", test, plan, { ...(sets[0] as Results), ...replaced }, mostThreads),
    dispose: () => {},
  };
}

/** Of values in a program's memory, bytes. */
const ALIGNMENT = 64;

/** Seconds that a program should run, so that starting it does not show. */
const PROGRAM_SECONDS = 2e-3;

/** Programs over native buffers: `estimate` is how long one call may take, in seconds; results are made with `mostThreads`. */
export function byProgram(
  addon: NativeAddon,
  test: OperatorCase,
  plan: Plan,
  sets: Sets,
  estimate: number,
  mostThreads: number,
): Ours {
  const owned: NativeBuffer[] = [];
  const buffers = new Map<HostTensor, NativeBuffer>();
  for (const set of sets) {
    for (const tensor of Object.values(set)) {
      if (buffers.has(tensor)) continue;
      const buffer = addon.createBuffer(Math.max(4, 4 * elements(tensor.shape)));
      buffer.write(0, tensor.data);
      buffers.set(tensor, buffer);
      owned.push(buffer);
    }
  }
  const steps = test.gradients !== undefined;
  // Gradient and moments of the step that ends each call below: zeros.
  const still = steps ? addon.createBuffer(3 * ALIGNMENT) : null;
  if (still) owned.push(still);
  // What a run updates in place it updates once, so that its results can be checked.
  const mostPerRun = test.inPlace ? sets.length : 256;
  const perRun = Math.max(1, Math.min(mostPerRun, Math.ceil(PROGRAM_SECONDS / estimate)));
  /** A run over the sets from `first` on, with or without copies of what its last call gives. */
  const compile = (first: number, fetched: boolean) => {
    const list = new Map<NativeBuffer, number>();
    const values: ProgramValue[] = [];
    const fetches: number[] = [];
    const instructions: {
      op: string;
      inputs: number[];
      outputs: number[];
      attributes: OperatorCase["attributes"];
    }[] = [];
    let arena = 0;
    const place = (buffer: NativeBuffer, desc: TensorDesc, offset = 0) => {
      if (!list.has(buffer)) list.set(buffer, list.size);
      return values.push({ ...desc, buffer: list.get(buffer) as number, offset }) - 1;
    };
    const scalar: TensorDesc = { dtype: "f32", shape: [1] };
    const zeros = still ? [0, 1, 2].map((i) => place(still, scalar, i * ALIGNMENT)) : [];
    for (let turn = 0; turn < perRun; turn++) {
      const set = sets[(first + turn) % sets.length] as Sets[number];
      const known = new Map<string, number>();
      for (const [name, { dtype, shape }] of Object.entries(set))
        known.set(name, place(buffers.get(set[name] as HostTensor) as NativeBuffer, { dtype, shape }));
      plan.stages.forEach(({ info }, s) => {
        const inputs = info.inputs.map((rule) => known.get(rule.name) ?? -1);
        const outputs = info.outputs.map((rule, i) => {
          const desc = plan.made[s]?.[i];
          if (!desc) return -1;
          let value = test.inPlace ? known.get(rule.name) : undefined;
          if (value === undefined) {
            value = values.push({ ...desc, buffer: -1, offset: arena }) - 1;
            arena += Math.ceil((4 * elements(desc.shape)) / ALIGNMENT) * ALIGNMENT;
            if (!known.has(rule.name)) known.set(rule.name, value);
          }
          if (fetched && turn + 1 === perRun) fetches.push(value);
          return value;
        });
        instructions.push({ op: info.name, inputs, outputs, attributes: test.attributes });
      });
      if (!steps) continue;
      // The optimiser's step of one element of each matrix, with a rate of 0: it is what makes a weight one that the program
      // changes, to be packed anew by the next call in the same run, as in training.
      for (const [name, { role, shape }] of Object.entries(test.tensors)) {
        if (role !== "weight" || shape.length < 2) continue;
        const head = place(buffers.get(set[name] as HostTensor) as NativeBuffer, scalar);
        const [, m, v] = zeros as [number, number, number];
        const attributes = { lr: 0, weightDecay: 0 };
        instructions.push({ op: "adamw", inputs: [head, ...zeros], outputs: [head, m, v], attributes });
      }
    }
    const desc = {
      device: "cpu",
      arenaBytes: Math.max(64, arena),
      buffers: [...list.keys()],
      values,
      instructions,
      feeds: [],
      fetches,
      scalars: 0,
    };
    return addon.createProgram(desc);
  };
  const programs: NativeProgram[] = [];
  let turn = 0;
  return {
    runsPerCall: 1 / perRun,
    contender: (threads) => {
      const mine: NativeProgram[] = [];
      for (let first = 0; first < Math.max(1, sets.length); first += perRun)
        mine.push(compile(first, false));
      programs.push(...mine);
      const call = () => {
        addon.setThreads(threads);
        return (mine[turn++ % mine.length] as NativeProgram).run([], []);
      };
      const take = sampler(call, perRun, true);
      let packed = false;
      const sample = async (seconds: number) => {
        // A program's first run packs its weights; with several programs that would be timed.
        if (!packed) for (const program of mine) await program.run([], []);
        packed = true;
        return take(seconds);
      };
      return { peer: "affuse", threads, sample, loop: (seconds) => repeat(call, seconds) };
    },
    results: async (replaced) => {
      const first = sets[0] as Sets[number];
      for (const [name, tensor] of Object.entries(replaced))
        buffers.get(first[name] as HostTensor)?.write(0, tensor.data);
      // As timed, calls of other sets before it, and run before.
      const program = compile((sets.length - ((perRun - 1) % sets.length)) % sets.length, true);
      addon.setThreads(mostThreads);
      await program.run([], []);
      if (test.inPlace)
        for (const [tensor, buffer] of buffers) {
          const name = Object.keys(replaced).find((key) => first[key] === tensor);
          buffer.write(0, (name === undefined ? tensor : (replaced[name] as HostTensor)).data);
        }
      const fetched = await program.run([], []);
      program.dispose();
      for (const name of Object.keys(replaced))
        buffers.get(first[name] as HostTensor)?.write(0, (first[name] as HostTensor).data);
      const results: Results = {};
      let at = 0;
      plan.stages.forEach(({ info }, s) => {
        info.outputs.forEach((rule, i) => {
          const desc = plan.made[s]?.[i];
          if (desc) results[rule.name] = { ...desc, data: fetched[at++] as TypedArray };
        });
      });
      return results;
    },
    dispose: () => {
      for (const program of programs) program.dispose();
      for (const buffer of owned) buffer.dispose();
    },
  };
}
