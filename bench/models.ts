/**
 * Whole training steps, whole inference, and the convolutional trunk: our side and what a peer needs to do
 * the same.
 */
import { AffuseError } from "../lib/errors.ts";
import { compile, plan } from "../lib/graph/compile.ts";
import { Graph } from "../lib/graph/graph.ts";
import { appendGradients } from "../lib/graph/optimizer.ts";
import { ParameterStore } from "../lib/graph/parameters.ts";
import type { Node, Value } from "../lib/graph/value.ts";
import { defaultFcn, fcnTrunk } from "../lib/models/fcn.ts";
import {
  type Batch,
  buildModelGraph,
  createModel,
  type Model,
  parseModelConfig,
} from "../lib/models/index.ts";
import type { HostTensor, NativeAddon } from "../lib/native/addon.ts";
import { allocateFrames } from "../lib/native/frames.ts";
import { Builder } from "../lib/nn/builder.ts";
import { sampler } from "./adapter.ts";
import { afgFlops } from "./cases/operators.ts";
import type { TorchCase } from "./peers/torch.ts";
import { makeTensor } from "./tensors.ts";
import type { Contender, FcnCase, ModelCase } from "./types.ts";

export const CLASSES = ["neutral", "angry", "happy", "sad", "worried", "surprise"];
const LEARNING_RATE = 1e-3;

/** Our side of a model case. */
export interface ModelSide {
  contender(threads: number): Contender;
  /**
   * What both sides must agree in, from fresh parameters; `exact` gives the case without dropout for the
   * peer.
   */
  results(threads: number): Promise<Record<string, Float32Array>>;
  /** The case for the peer, with parameters and inputs. */
  peer: { test: TorchCase; tensors: Record<string, HostTensor> };
  flops: number;
  dispose(): void;
}

/** Frames lie as batches come from lib/data: steps read them in place. */
export function makeBatch(test: ModelCase): Batch {
  const { batch, T, shortest } = test;
  const make = (
    name: string,
    shape: number[],
    more: object = {},
    allocate?: (length: number) => Float32Array,
  ) => makeTensor({ shape, role: "batch", ...more }, `${test.structure} ${name}`, 0, allocate).data;
  return {
    size: batch,
    streams: Object.fromEntries(
      test.streams.map(({ name, dim }) => [
        name,
        {
          data: make(`x:${name}`, [batch, T, dim], {}, allocateFrames) as Float32Array,
          lengths: make(`lengths:${name}`, [batch], { range: [shortest, T] }) as Int32Array,
          T,
          presence: new Float32Array(batch).fill(1),
        },
      ]),
    ),
    labels: make("labels", [batch], { range: [0, CLASSES.length - 1] }) as Int32Array,
    valence: make("valence", [batch], { scale: 2 }) as Float32Array,
  };
}

const configOf = ({ structure, attention }: ModelCase, dropout: number) => ({
  structure,
  attention: { dim: attention },
  mlp: { dropout },
});

/** What a peer needs for the same step: the model's parameters, whose names are listed too, and the batch. */
export function tensorsOf(
  model: Model,
  test: Pick<ModelCase, "streams" | "batch" | "T">,
  batch: Batch,
): { tensors: Record<string, HostTensor>; parameters: string[] } {
  const tensors: Record<string, HostTensor> = {};
  for (const [name, { shape, data }] of Object.entries(model.state().parameters))
    tensors[name] = { dtype: "f32", shape, data };
  const parameters = Object.keys(tensors);
  for (const { name, dim } of test.streams) {
    const { data, lengths } = batch.streams[name] as Batch["streams"][string];
    tensors[`x:${name}`] = { dtype: "f32", shape: [test.batch, test.T, dim], data };
    tensors[`lengths:${name}`] = { dtype: "i32", shape: [test.batch], data: lengths };
  }
  tensors.labels = { dtype: "i32", shape: [test.batch], data: batch.labels as Int32Array };
  tensors.valence = { dtype: "f32", shape: [test.batch], data: batch.valence as Float32Array };
  return { tensors, parameters };
}

/**
 * FLOPs of the calls a program makes. AFG counts the frames that are there; a gradient that nobody wants is
 * not counted.
 */
export function flopsOf(
  addon: NativeAddon,
  nodes: readonly Node[],
  used: ReadonlySet<number>,
  share: (x: Value) => number,
): number {
  let total = 0;
  for (const { info, inputs, outputs, attributes } of nodes) {
    const find = (list: readonly (Value | null)[], rules: readonly { name: string }[], name: string) =>
      list[rules.findIndex((rule) => rule.name === name)] ?? null;
    const wantsDx = used.has(find(outputs, info.outputs, "dx")?.id ?? -1);
    if (info.name.startsWith("afg")) {
      const x = find(inputs, info.inputs, "x") as Value;
      const [B = 0, T = 0, D = 0] = x.shape;
      const A = (find(inputs, info.inputs, "W") as Value).shape[0] as number;
      total += afgFlops(
        B * T * share(x),
        A,
        D,
        info.name === "afg" ? "forward" : wantsDx ? "all" : "weights",
      );
      continue;
    }
    const descs = inputs.map((value) => (value ? { dtype: value.dtype, shape: value.shape } : null));
    const { flops } = addon.cost(info.name, descs, attributes as never);
    const half = info.name === "conv2d.backward" || info.name === "linear.backward";
    total += half && !wantsDx ? flops / 2 : flops;
  }
  return total;
}

/** A P1 model: training step or inference. */
export function modelSide(addon: NativeAddon, test: ModelCase): ModelSide {
  const batch = makeBatch(test);
  const options = test.precision ? { precision: test.precision } : {};
  const make = (dropout: number) => createModel(configOf(test, dropout), test.streams, CLASSES, options);
  const run = async (model: Model, threads: number, step: number): Promise<Record<string, Float32Array>> => {
    addon.setThreads(threads);
    if (test.kind === "inference") {
      const { posteriors, valence } = await model.infer(batch);
      return { posteriors, valence };
    }
    const { loss, ce, mse, gradNorm } = await model.trainStep(batch, { lr: LEARNING_RATE, step });
    return Object.fromEntries(
      Object.entries({ loss, ce, mse, gradNorm }).map(([k, v]) => [k, Float32Array.of(v)]),
    );
  };
  const model = make(0.3);
  const frames = Object.fromEntries(test.streams.map(({ name }) => [name, test.T]));
  const store = new ParameterStore(addon, 0);
  const built = buildModelGraph(
    addon,
    store,
    parseModelConfig(configOf(test, 0.3)),
    test.streams,
    CLASSES.length,
    { batch: test.batch, frames },
    test.kind === "step" ? "train" : "infer",
  );
  const { nodes, values } = plan(built.graph, built.fetches);
  const valid = new Map(
    Object.entries(batch.streams).map(([name, { lengths, T }]) => [
      `x:${name}`,
      lengths.reduce((a, b) => a + b, 0) / (T * batch.size),
    ]),
  );
  const share = (x: Value) => (x.source.kind === "input" ? (valid.get(x.source.name) ?? 1) : 1);
  const flops = flopsOf(addon, nodes, new Set(values.map(({ id }) => id)), share);
  store.dispose();
  let step = 0;
  const { tensors, parameters } = tensorsOf(model, test, batch);
  const { structure, streams, kind } = test;
  return {
    contender: (threads) => ({
      peer: "affuse",
      threads,
      sample: sampler(() => run(model, threads, ++step), 1, true),
    }),
    results: async (threads) => {
      const exact = make(0);
      try {
        return await run(exact, threads, 1);
      } finally {
        exact.dispose();
      }
    },
    peer: { test: { kind, structure, streams, parameters, dropout: 0.3, lr: LEARNING_RATE }, tensors },
    flops,
    dispose: () => model.dispose(),
  };
}

/**
 * The trunk of spec 2.2 with a mean squared error on its features: forward and the gradients of all weights.
 */
export function fcnSide(addon: NativeAddon, test: FcnCase): ModelSide {
  const { batch, frames, bins } = test;
  const graph = new Graph(addon);
  const store = new ParameterStore(addon, 1);
  const builder = new Builder(graph, store, true);
  const input = graph.input("x", { dtype: "f32", shape: [batch, frames, bins] });
  const features = fcnTrunk(builder, "audio", { x: input }).x;
  const make = (name: string, shape: readonly number[]) =>
    makeTensor({ shape: [...shape], role: "batch" }, `${test.name} ${name}`, 0);
  const target = make("target", features.shape);
  const wanted = graph.input("target", { dtype: "f32", shape: target.shape });
  const loss = graph.op("masked_mse", { prediction: features, target: wanted }).loss as Value;
  appendGradients(graph, loss, store, builder.parameters);
  const program = compile(addon, graph, { fetches: { loss } });
  const x = make("x", input.shape);
  const used = new Set(program.plan.values.map(({ id }) => id));
  const flops = flopsOf(addon, program.plan.nodes, used, () => 1);
  const names = store.parameters().map(({ name }) => name);
  const weights = store.storage("parameters").buffer();
  const head = new Float32Array(1);
  weights.read(0, head);
  const feeds = { x: x.data, target: target.data };
  const tensors: Record<string, HostTensor> = { x, target };
  for (const name of names) tensors[name] = { dtype: "f32", ...store.get(name) };
  const run = async (threads: number) => {
    addon.setThreads(threads);
    // A training step packs its weights once: writing marks all packed copies of the buffer's first weights
    // stale.
    for (const { offset } of store.parameters()) {
      weights.read(offset, head);
      weights.write(offset, head);
    }
    return (await program.run<"loss">({ feeds })).loss as Float32Array;
  };
  return {
    contender: (threads) => ({ peer: "affuse", threads, sample: sampler(() => run(threads), 1, true) }),
    results: async (threads) => {
      const results: Record<string, Float32Array> = { loss: await run(threads) };
      for (const name of names) results[`d${name}`] = store.get(name, "gradients").data;
      return results;
    },
    peer: { test: { kind: "fcn", parameters: names, layers: defaultFcn.layers }, tensors },
    flops,
    dispose: () => {
      program.dispose();
      store.dispose();
    },
  };
}

/** Largest difference of two results relative to the largest value, by name; only what both have. */
export function agreement(
  a: Record<string, Float32Array>,
  b: Record<string, Float32Array>,
  compare: (x: Float32Array, y: Float32Array) => number,
): { difference: number; where: string } {
  let worst = { difference: 0, where: "" };
  for (const [name, values] of Object.entries(b)) {
    const own = a[name];
    if (!own) continue;
    if (own.length !== values.length)
      throw new AffuseError("ERR_AFFUSE_BENCH_RESULT", `${name} has another size in the peer.`);
    const off = compare(own, values);
    if (!(off <= worst.difference)) worst = { difference: off, where: name };
  }
  return worst;
}
