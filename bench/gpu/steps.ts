/**
 * affuse's side of the GPU bench's training steps: a process that bench/gpu/training.py asks, one JSON command per
 * line, one JSON line back.
 *
 *   {"do": "load", "case": {…}, "device": "cuda", "file": PATH}   makes the batch; parameters and batch go to the file
 *   {"do": "check"}                                               scalars of a first step without dropout
 *   {"do": "sample", "fed": BOOLEAN, "seconds": S}               seconds of a step: frames on the device, or fed from the host
 */
import { closeSync, openSync, writeSync } from "node:fs";
import { createInterface } from "node:readline";
import { compile } from "../../lib/graph/compile.ts";
import { ParameterStore } from "../../lib/graph/parameters.ts";
import type { Value } from "../../lib/graph/value.ts";
import {
  type Batch,
  buildModelGraph,
  createModel,
  type Model,
  parseModelConfig,
} from "../../lib/models/index.ts";
import { Presence } from "../../lib/models/presence.ts";
import type { NativeAddon, NativeBuffer, ProgramDesc, TypedArray } from "../../lib/native/addon.ts";
import { allocateFrames } from "../../lib/native/frames.ts";
import { loadAddon } from "../../lib/native/index.ts";
import { CLASSES, flopsOf, tensorsOf } from "../models.ts";
import type { ModelCase } from "../types.ts";

interface StepCase {
  structure: "concat" | "weighted" | "hierarchical";
  batch: number;
  T: number;
  shortest: number;
  streams: ModelCase["streams"];
  attention: number;
  widths: number[];
  precision: "f32" | "bf16" | "tf32";
  lr: number;
}

const FETCHED = ["loss", "ce", "mse", "gradNorm"] as const;

const configOf = ({ structure, attention, widths }: StepCase, dropout: number) => ({
  structure,
  attention: { dim: attention },
  mlp: { widths, dropout },
});

/** Numbers in [−1, 1) from a tile of odd length, so that no two rows are alike: a gigabyte in a second. */
function fillTile(data: Float32Array, shift: number): Float32Array {
  const tile = Float32Array.from({ length: 1048583 }, (_, i) => {
    const x = Math.sin((i + 1) * 12.9898 + shift) * 43758.5453;
    return 2 * (x - Math.floor(x)) - 1;
  });
  for (let at = 0; at < data.length; at += tile.length)
    data.set(tile.subarray(0, Math.min(tile.length, data.length - at)), at);
  return data;
}

function makeBatch({ batch, T, shortest, streams }: StepCase): Batch {
  return {
    size: batch,
    streams: Object.fromEntries(
      streams.map(({ name, dim }, s) => [
        name,
        {
          data: fillTile(allocateFrames(batch * T * dim), s),
          lengths: Int32Array.from(
            { length: batch },
            (_, b) => shortest + ((b * 7919 + s * 104729) % (T - shortest + 1)),
          ),
          T,
          presence: new Float32Array(batch).fill(1),
        },
      ]),
    ),
    labels: Int32Array.from({ length: batch }, (_, b) => b % CLASSES.length),
    valence: Float32Array.from({ length: batch }, (_, b) => ((b * 37) % 41) / 10 - 2),
  };
}

/** Which part of a fed stream's frames is there. */
function share(batch: Batch, T: number, name: string): number {
  const stream = batch.streams[name.replace(/^x:/, "")];
  return stream ? stream.lengths.reduce((a, b) => a + b, 0) / (T * batch.size) : 1;
}

/** The training program with the frames in buffers of the device rather than fed: as when a corpus is kept there. */
class Resident {
  readonly #store: ParameterStore;
  readonly #run: (step: number) => Promise<TypedArray[]>;
  readonly #names: string[];
  readonly flops: number;
  readonly #dispose: () => void;

  constructor(addon: NativeAddon, test: StepCase, device: string, batch: Batch, dropout: number) {
    const store = new ParameterStore(addon, 0);
    const frames = Object.fromEntries(test.streams.map(({ name }) => [name, test.T]));
    const shape = { batch: test.batch, frames };
    const built = buildModelGraph(
      addon,
      store,
      parseModelConfig(configOf(test, dropout)),
      test.streams,
      CLASSES.length,
      shape,
      "train",
    );
    const buffers: NativeBuffer[] = [];
    let desc: ProgramDesc | null = null;
    const catching = {
      createBuffer: (bytes: number) => addon.createBuffer(bytes),
      createProgram: (made: ProgramDesc) => {
        desc = made;
        return { run: async () => [], dispose: () => {} };
      },
    };
    const { precision } = test;
    const { plan } = compile(catching as unknown as NativeAddon, built.graph, {
      device,
      precision,
      fetches: built.fetches,
    });
    const { values, feeds, ...rest } = desc as unknown as ProgramDesc;
    const names = plan.feeds.map(({ source }) => (source.kind === "input" ? source.name : ""));
    const homes = new Map<number, number>();
    feeds.forEach((value, i) => {
      const stream = batch.streams[(names[i] as string).replace(/^x:/, "")];
      if (!names[i]?.startsWith("x:") || !stream) return;
      const buffer = addon.createBuffer(stream.data.byteLength);
      buffer.write(0, stream.data);
      buffers.push(buffer);
      homes.set(value, rest.buffers.length + buffers.length - 1);
    });
    const program = addon.createProgram({
      ...rest,
      buffers: [...rest.buffers, ...buffers],
      values: values.map((value) => {
        const home = value.feed === undefined ? undefined : homes.get(value.feed);
        return home === undefined
          ? value
          : { dtype: value.dtype, shape: value.shape, buffer: home, offset: 0 };
      }),
      feeds: feeds.filter((value) => !homes.has(value)),
    });
    const small = names.filter((_, i) => !homes.has(feeds[i] as number));
    const presence = new Presence(test.streams, batch);
    const given = small.map((name): TypedArray => {
      if (name === "labels") return batch.labels as Int32Array;
      if (name === "valence") return batch.valence as Float32Array;
      const of = name.slice(name.indexOf(":") + 1);
      if (!name.startsWith("lengths:")) return presence.feed(name);
      return presence.lengths(of, batch.streams[of]?.lengths as Int32Array);
    });
    const valid = (x: Value) => (x.source.kind === "input" ? share(batch, test.T, x.source.name) : 1);
    this.flops = flopsOf(addon, plan.nodes, new Set(plan.values.map(({ id }) => id)), valid);
    this.#names = plan.fetches.map(([name]) => name);
    this.#store = store;
    this.#run = (step) =>
      program.run(
        given,
        plan.scalars.map((name) => (name === "lr" ? test.lr : step)),
      );
    this.#dispose = () => {
      program.dispose();
      for (const buffer of buffers) buffer.dispose();
    };
  }

  async step(step: number): Promise<Record<string, number>> {
    const fetched = await this.#run(step);
    return Object.fromEntries(this.#names.map((name, i) => [name, fetched[i]?.[0] as number]));
  }

  dispose(): void {
    this.#dispose();
    this.#store.dispose();
  }
}

class Side {
  readonly #addon = loadAddon();
  #test: StepCase | null = null;
  #device = "";
  #batch: Batch | null = null;
  #model: Model | null = null;
  #resident: Resident | null = null;
  #step = 0;

  load({ case: test, device, file }: { case: StepCase; device: string; file: string }): object {
    this.#drop();
    this.#test = test;
    this.#device = device;
    const batch = makeBatch(test);
    this.#batch = batch;
    const model = this.#make(0);
    const { tensors, parameters } = tensorsOf(model, test, batch);
    model.dispose();
    const to = openSync(file, "w");
    let offset = 0;
    const list = Object.entries(tensors).map(([name, { dtype, shape, data }]) => {
      const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
      for (let at = 0; at < bytes.length; )
        at += writeSync(to, bytes, at, Math.min(bytes.length - at, 1 << 28));
      offset += data.length;
      return { name, dtype, shape, offset: offset - data.length, count: data.length };
    });
    closeSync(to);
    return { tensors: list, parameters };
  }

  async check(): Promise<object> {
    const test = this.#test as StepCase;
    const batch = this.#batch as Batch;
    const model = this.#make(0);
    const resident = new Resident(this.#addon, test, this.#device, batch, 0);
    try {
      const fed = await model.trainStep(batch, { lr: test.lr, step: 1 });
      const other = await resident.step(1);
      for (const name of FETCHED)
        if (fed[name] !== other[name])
          throw new Error(`${name} is ${fed[name]} with fed frames and ${other[name]} without`);
      return { ...Object.fromEntries(FETCHED.map((name) => [name, fed[name]])), flops: resident.flops };
    } finally {
      model.dispose();
      resident.dispose();
    }
  }

  async sample({ fed, seconds }: { fed: boolean; seconds: number }): Promise<object> {
    const test = this.#test as StepCase;
    const step = fed ? this.#fedStep(test) : this.#residentStep(test);
    // The first run looks for errors, the second records, the third replays.
    if (this.#device !== "emulated") for (let i = 0; i < 4; i++) await step();
    const times: number[] = [];
    const started = performance.now();
    do {
      const begin = performance.now();
      await step();
      times.push((performance.now() - begin) / 1e3);
    } while (performance.now() - started < seconds * 1e3);
    times.sort((a, b) => a - b);
    return { seconds: times[times.length >> 1], count: times.length };
  }

  #fedStep(test: StepCase): () => Promise<unknown> {
    this.#model ??= this.#make(0.3);
    const model = this.#model;
    return () => model.trainStep(this.#batch as Batch, { lr: test.lr, step: ++this.#step });
  }

  #residentStep(test: StepCase): () => Promise<unknown> {
    this.#resident ??= new Resident(this.#addon, test, this.#device, this.#batch as Batch, 0.3);
    const resident = this.#resident;
    return () => resident.step(++this.#step);
  }

  #make(dropout: number): Model {
    const test = this.#test as StepCase;
    return createModel(configOf(test, dropout), test.streams, CLASSES, {
      device: this.#device,
      precision: test.precision,
    });
  }

  #drop(): void {
    this.#model?.dispose();
    this.#resident?.dispose();
    this.#model = null;
    this.#resident = null;
    this.#batch = null;
  }
}

const side = new Side();
for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  let answer: object;
  try {
    answer = await side[command.do as "load" | "check" | "sample"](command);
  } catch (error) {
    answer = { error: `${(error as { code?: string }).code ?? "error"}: ${(error as Error).message}` };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
