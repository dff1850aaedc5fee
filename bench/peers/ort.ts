/**
 * onnxruntime as a peer: the same graph as an ONNX model built here, weights as initializers, which it packs
 * ahead.
 */
import { AffuseError } from "../../lib/errors.ts";
import { OnnxGraph } from "../../lib/encoders/onnx.ts";
import type { HostTensor } from "../../lib/native/addon.ts";
import { sampler } from "../adapter.ts";
import type { Sets } from "../tensors.ts";
import type { Contender, OperatorCase } from "../types.ts";

type Ort = typeof import("onnxruntime-node");

export interface OrtPeer {
  version: string;
  /** Contenders of a case, one per thread count and, above one thread, with and without spinning. */
  open(test: OperatorCase, sets: Sets, threads: readonly number[]): Promise<OrtSide>;
}

export interface OrtSide {
  contenders: Contender[];
  /** Output of set 0, row-major. */
  result(): Promise<Float32Array>;
  close(): Promise<void>;
}

/** @throws AffuseError ERR_AFFUSE_BENCH_ORT when the package is not installed */
export async function loadOrt(): Promise<OrtPeer> {
  let ort: Ort;
  try {
    const module = await import("onnxruntime-node");
    ort = ((module as unknown as { default?: Ort }).default ?? module) as Ort;
  } catch (error) {
    throw new AffuseError(
      "ERR_AFFUSE_BENCH_ORT",
      `expected the package onnxruntime-node, got: ${(error as Error).message.split("\n")[0]?.replace(/\.+$/, "")}.`,
      "Install it: ONNXRUNTIME_NODE_INSTALL=skip npm install onnxruntime-node",
    );
  }
  ort.env.logLevel = "fatal";
  return {
    version: ort.env.versions.node ?? ort.env.versions.common,
    open: (test, sets, threads) => open(ort, test, sets, threads),
  };
}

/** The operators that have a model, and which tensors are fed. */
const MODELS: Readonly<
  Record<
    string,
    (test: OperatorCase, set: Record<string, HostTensor>) => { model: Uint8Array; fed: string[] }
  >
> = {
  linear: (test, set) => {
    const graph = new OnnxGraph("linear");
    const [M = 0] = test.tensors.x?.shape ?? [];
    const { W, b, x } = set as Record<"W" | "b" | "x", HostTensor>;
    graph.input("x", x.shape);
    graph.node("Gemm", ["x", constant(graph, W), constant(graph, b)], { transB: 1 }, "y");
    graph.output("y", [M, W.shape[0] as number]);
    return { model: graph.bytes(), fed: ["x"] };
  },
  fbp: (test, set) => {
    const graph = new OnnxGraph("fbp");
    const { a, v, U, V } = set as Record<"a" | "v" | "U" | "V", HostTensor>;
    const k = Number(test.attributes.k);
    const [B = 0] = a.shape;
    const P = U.shape[0] as number;
    graph.input("a", a.shape);
    graph.input("v", v.shape);
    const p = graph.node("Mul", [
      graph.node("MatMul", ["a", constant(graph, transposed(U))]),
      graph.node("MatMul", ["v", constant(graph, transposed(V))]),
    ]);
    const s = graph.node(
      "ReduceSum",
      [graph.node("Reshape", [p, graph.integers([B, P / k, k])]), graph.integers([2])],
      { keepdims: 0 },
    );
    const root = graph.node("Sqrt", [
      graph.node("Add", [graph.node("Abs", [s]), graph.constant([1], [1e-8])]),
    ]);
    const r = graph.node("Div", [s, root]);
    const norm = graph.node("Sqrt", [
      graph.node("Add", [
        graph.node("ReduceSumSquare", [r], { axes: [1], keepdims: 1 }),
        graph.constant([1], [1e-12]),
      ]),
    ]);
    graph.node("Div", [r, norm], {}, "z");
    graph.output("z", [B, P / k]);
    return { model: graph.bytes(), fed: ["a", "v"] };
  },
  afg: (test, set) => {
    const graph = new OnnxGraph("afg");
    const { x, W, b, u } = set as Record<"x" | "W" | "b" | "u", HostTensor>;
    const [B = 0, T = 0, D = 0] = x.shape;
    graph.input("x", x.shape);
    const k = graph.node("Tanh", [
      graph.node("Add", [graph.node("MatMul", ["x", constant(graph, transposed(W))]), constant(graph, b)]),
    ]);
    const scaled = Float32Array.from(
      u.data as Float32Array,
      (value) => value * Number(test.attributes.scale),
    );
    const s = graph.node("MatMul", [k, graph.constant([u.shape[0] as number, 1], scaled)]);
    const alpha = graph.node("Softmax", [graph.node("Reshape", [s, graph.integers([B, 1, T])])], { axis: 2 });
    graph.node("MatMul", [alpha, "x"], {}, "c");
    graph.output("c", [B, 1, D]);
    return { model: graph.bytes(), fed: ["x"] };
  },
  conv2d: (test, set) => {
    const graph = new OnnxGraph("conv2d");
    const { x, W, b } = set as Record<"x" | "W" | "b", HostTensor>;
    const { stride, pad } = { stride: Number(test.attributes.stride), pad: Number(test.attributes.pad) };
    graph.input("x", x.shape);
    graph.node(
      "Conv",
      ["x", constant(graph, W), constant(graph, b)],
      { strides: [stride, stride], pads: [pad, pad, pad, pad] },
      "y",
    );
    graph.output("y", ["B", "C", "H", "W"]);
    return { model: graph.bytes(), fed: ["x"] };
  },
  max_pool2d: (test, set) => {
    const graph = new OnnxGraph("max_pool2d");
    const { size, stride } = { size: Number(test.attributes.size), stride: Number(test.attributes.stride) };
    graph.input("x", (set.x as HostTensor).shape);
    graph.node("MaxPool", ["x"], { kernel_shape: [size, size], strides: [stride, stride] }, "y");
    graph.output("y", ["B", "C", "H", "W"]);
    return { model: graph.bytes(), fed: ["x"] };
  },
  lrn: (_test, set) => {
    const graph = new OnnxGraph("lrn");
    const { x } = set as Record<"x", HostTensor>;
    graph.input("x", x.shape);
    // ONNX divides alpha by the size.
    graph.node("LRN", ["x"], { size: 5, alpha: { f: 5e-4 }, beta: { f: 0.75 }, bias: { f: 2 } }, "y");
    graph.output("y", x.shape);
    return { model: graph.bytes(), fed: ["x"] };
  },
  softmax: (_test, set) => {
    const graph = new OnnxGraph("softmax");
    const { x } = set as Record<"x", HostTensor>;
    graph.input("x", x.shape);
    graph.node("Softmax", ["x"], { axis: -1 }, "y");
    graph.output("y", x.shape);
    return { model: graph.bytes(), fed: ["x"] };
  },
};

const constant = (graph: OnnxGraph, tensor: HostTensor): string =>
  graph.constant(tensor.shape, tensor.data as Float32Array);

function transposed({ shape, data }: HostTensor): HostTensor {
  const [rows = 0, columns = 0] = shape;
  const out = new Float32Array(rows * columns);
  for (let i = 0; i < rows; i++)
    for (let j = 0; j < columns; j++) out[j * rows + i] = data[i * columns + j] as number;
  return { dtype: "f32", shape: [columns, rows], data: out };
}

async function open(ort: Ort, test: OperatorCase, sets: Sets, threads: readonly number[]): Promise<OrtSide> {
  const make = MODELS[test.op];
  if (!make) throw new AffuseError("ERR_AFFUSE_BENCH_ORT", `there is no ONNX model for ${test.op}.`);
  // Weights that rotate are initializers too: one session per set.
  const rotating = test.residency === "rotating weights";
  const { fed } = make(test, sets[0] as Sets[number]);
  const models = (rotating ? sets : sets.slice(0, 1)).map((set) => make(test, set).model);
  const feeds = sets.map((set) =>
    Object.fromEntries(
      fed.map((name) => [
        name,
        new ort.Tensor("float32", set[name]?.data as Float32Array, [...(set[name]?.shape ?? [])]),
      ]),
    ),
  );
  type Session = Awaited<ReturnType<typeof ort.InferenceSession.create>>;
  const sessions: Session[] = [];
  const contenders: Contender[] = [];
  for (const count of threads) {
    for (const spinning of count > 1 ? ["0", "1"] : ["0"]) {
      const mine: Session[] = [];
      for (const model of models) {
        mine.push(
          await ort.InferenceSession.create(model, {
            executionProviders: ["cpu"],
            intraOpNumThreads: count,
            interOpNumThreads: 1,
            graphOptimizationLevel: "all",
            logSeverityLevel: 4,
            extra: { session: { intra_op: { allow_spinning: spinning } } },
          }),
        );
      }
      sessions.push(...mine);
      let turn = 0;
      const call = () => {
        const at = turn++ % feeds.length;
        return (mine[at % mine.length] as Session).run(feeds[at] as (typeof feeds)[number]);
      };
      const sample = sampler(call, 1, true);
      contenders.push({
        peer: "onnxruntime",
        threads: count,
        setting: count > 1 ? `spinning ${spinning}` : undefined,
        sample,
      });
    }
  }
  return {
    contenders,
    result: async () => {
      const outputs = await (sessions[0] as Session).run(feeds[0] as (typeof feeds)[number]);
      return Object.values(outputs)[0]?.data as Float32Array;
    },
    close: async () => {
      for (const session of sessions) await session.release();
    },
  };
}
