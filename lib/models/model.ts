import { Random } from "../data/random.ts";
import { AffuseError } from "../errors.ts";
import { compile, type Precision } from "../graph/compile.ts";
import { Graph } from "../graph/graph.ts";
import { appendUpdate } from "../graph/optimizer.ts";
import { ParameterStore } from "../graph/parameters.ts";
import type { Program } from "../graph/program.ts";
import type { Value } from "../graph/value.ts";
import { loadAddon, type NativeAddon, type TypedArray } from "../native/index.ts";
import { Builder } from "../nn/builder.ts";
import { jointDecoding, multiTaskLoss } from "../nn/heads.ts";
import { checkBatch } from "./batch.ts";
import { type ModelConfig, type ModelConfigInput, parseModelConfig } from "./config.ts";
import { Presence } from "./presence.ts";
import { ProgramCache } from "./program-cache.ts";
import { type Inputs, structureOf, usedStreams } from "./structures.ts";
import type {
  Batch,
  Inference,
  Model,
  ModelOptions,
  ModelState,
  NamedTensor,
  StepOptions,
  StepResult,
  StreamSpec,
} from "./types.ts";

/** Sizes that a program is compiled for. */
export interface ModelShape {
  batch: number;
  /** T per stream name. */
  frames: Readonly<Record<string, number>>;
}

/** A model's graph for one shape; fetches by name. */
export interface ModelGraph {
  graph: Graph;
  builder: Builder;
  fetches: Record<string, Value>;
  /** Streams whose attention still has to be normalised. */
  gates: Set<string>;
}

/**
 * train: forward with dropout, backward and update; fetches loss, ce, mse, sE, sV, gradNorm.
 * loss: the same without backward and update; fetches loss, ce, mse, sE, sV.
 * infer: fetches logits, posteriors, valence, embedding and attention:<stream>.
 */
export type ModelMode = "train" | "loss" | "infer";

/** Lays a model out as a graph for one shape. */
export function buildModelGraph(
  addon: NativeAddon,
  store: ParameterStore,
  config: ModelConfig,
  streams: readonly StreamSpec[],
  classes: number,
  shape: ModelShape,
  mode: ModelMode,
): ModelGraph {
  const graph = new Graph(addon);
  const builder = new Builder(graph, store, mode !== "infer");
  const fused = structureOf(config)(builder, config, streams, modelInputs(graph, streams, shape));
  const heads = jointDecoding(builder, "head", fused.h, { classes, transform: config.valence.transform });
  if (mode !== "infer") {
    const labels = graph.input("labels", { dtype: "i32", shape: [shape.batch] });
    const target = graph.input("valence", { dtype: "f32", shape: [shape.batch] });
    const { loss, ce, mse, sE, sV } = multiTaskLoss(builder, "loss", heads, { labels, target }, config.loss);
    const fetches = { loss, ce, mse, sE, sV };
    if (mode === "loss") return { graph, builder, fetches, gates: new Set() };
    const { norm } = appendUpdate(graph, loss, store, builder.parameters, config.optimizer);
    return { graph, builder, fetches: { ...fetches, gradNorm: norm }, gates: new Set() };
  }
  const posteriors = graph.op("softmax", { x: heads.logits }).y as Value;
  const fetches: Record<string, Value> = {
    logits: heads.logits,
    posteriors,
    valence: heads.valence,
    embedding: fused.h,
  };
  for (const [name, { alpha }] of fused.attention) fetches[`attention:${name}`] = alpha;
  const gates = [...fused.attention].filter(([, weights]) => weights.gates).map(([name]) => name);
  return { graph, builder, fetches, gates: new Set(gates) };
}

function modelInputs(graph: Graph, streams: readonly StreamSpec[], shape: ModelShape): Inputs {
  const { batch } = shape;
  const made = new Map<string, Value>();
  const input = (name: string, dtype: "f32" | "i32", dims: number[]) => {
    const value = made.get(name) ?? graph.input(name, { dtype, shape: dims });
    made.set(name, value);
    return value;
  };
  return {
    x: (stream) => input(`x:${stream.name}`, "f32", [batch, shape.frames[stream.name] as number, stream.dim]),
    lengths: (stream) => input(`lengths:${stream.name}`, "i32", [batch]),
    presence: (kind, of) => {
      const members = streams.filter((stream) => stream.modality === of).length;
      return input(`${kind}:${of}`, kind === "mask" ? "i32" : "f32", [batch, kind === "mask" ? members : 1]);
    },
  };
}

/**
 * Makes a model with freshly initialised parameters (config.seed).
 * @param streams every stream of the data; the single-modality baselines pick theirs
 * @param classes class names in index order, at least 2
 * @throws AffuseError ERR_AFFUSE_CONFIG, ERR_AFFUSE_STREAMS, ERR_AFFUSE_NOT_BUILT
 */
export function createModel(
  config: ModelConfigInput,
  streams: readonly StreamSpec[],
  classes: readonly string[],
  options: ModelOptions = {},
): Model {
  return new GraphModel(loadAddon(), parseModelConfig(config), streams, classes, options);
}

class GraphModel implements Model {
  readonly config: ModelConfig;
  readonly streams: readonly StreamSpec[];
  readonly classes: readonly string[];
  readonly embeddingWidth: number;
  readonly parameterCount: number;
  readonly #addon: NativeAddon;
  readonly #store: ParameterStore;
  readonly #device: string;
  readonly #precision: Precision;
  readonly #programs: ProgramCache<{ program: Program; gates: Set<string> }>;
  #running = 0;
  #step = 0;
  #disposed = false;

  constructor(
    addon: NativeAddon,
    config: ModelConfig,
    streams: readonly StreamSpec[],
    classes: readonly string[],
    options: ModelOptions,
  ) {
    const weights = config.loss.classWeights;
    if (classes.length < 2 || new Set(classes).size !== classes.length) {
      throw new AffuseError(
        "ERR_AFFUSE_CONFIG",
        `expected at least 2 distinct classes, got ${classes.join(", ") || "none"}.`,
      );
    }
    if (weights && weights.length !== classes.length) {
      throw new AffuseError(
        "ERR_AFFUSE_CONFIG",
        `expected ${classes.length} class weights, got ${weights.length}.`,
      );
    }
    this.config = config;
    this.streams = usedStreams(config, streams).map(({ name, modality, dim }) => ({ name, modality, dim }));
    this.classes = [...classes];
    this.#addon = addon;
    this.#device = options.device ?? "cpu";
    this.#precision = options.precision ?? "f32";
    this.#store = new ParameterStore(addon, config.seed);
    this.#programs = new ProgramCache(options.programCacheBytes ?? 256 * 2 ** 20);
    // A first, smallest training graph declares every parameter and finds configuration errors now.
    const frames = Object.fromEntries(this.streams.map((stream) => [stream.name, 1]));
    this.#build({ batch: 1, frames }, "train");
    const { fetches } = this.#build({ batch: 1, frames }, "infer");
    this.embeddingWidth = (fetches.embedding as Value).shape[1] as number;
    this.parameterCount = this.#store.count();
  }

  async trainStep(batch: Batch, options: StepOptions): Promise<StepResult> {
    const presence = this.#presence(batch);
    const { step, lr } = options;
    if (!Number.isSafeInteger(step) || step < 1 || step > 0xffffffff) {
      throw new AffuseError("ERR_AFFUSE_SCALAR", `expected step as a whole number from 1, got ${step}.`);
    }
    if (this.config.modalityDropout > 0) {
      presence.drop(this.config.modalityDropout, new Random(this.config.seed, `modality dropout ${step}`));
    }
    const { program } = this.#program(batch, "train");
    const fetched = await this.#run(program, batch, presence, { lr, step });
    this.#step = step;
    const number = (name: string) => fetched[name]?.[0] as number;
    return {
      loss: number("loss"),
      ce: number("ce"),
      mse: number("mse"),
      sE: number("sE"),
      sV: number("sV"),
      gradNorm: number("gradNorm"),
    };
  }

  async infer(batch: Batch): Promise<Inference> {
    const presence = this.#presence(batch);
    const { program, gates } = this.#program(batch, "infer");
    const fetched = await this.#run(program, batch, presence, {});
    const floats = (name: string) => fetched[name] as Float32Array;
    const attention: Record<string, Float32Array> = {};
    for (const { name } of this.streams) {
      const weights = floats(`attention:${name}`);
      if (gates.has(name)) normalizeRows(weights, batch.size);
      attention[name] = weights;
    }
    return {
      logits: floats("logits"),
      posteriors: floats("posteriors"),
      valence: floats("valence"),
      embedding: floats("embedding"),
      attention,
    };
  }

  state(): ModelState {
    this.#idle("read");
    const all = (role: "parameters" | "m" | "v") => {
      const names = this.#store.parameters().map((parameter) => parameter.name);
      return Object.fromEntries(names.map((name) => [name, this.#store.get(name, role)]));
    };
    return { step: this.#step, parameters: all("parameters"), m: all("m"), v: all("v") };
  }

  load(state: ModelState): void {
    this.#idle("replaced");
    const names = this.#store.parameters().map((parameter) => parameter.name);
    const groups: ["parameters" | "m" | "v", Record<string, NamedTensor>][] = [
      ["parameters", state.parameters],
    ];
    if (state.m) groups.push(["m", state.m]);
    if (state.v) groups.push(["v", state.v]);
    // Everything is checked before anything is written: a refused state changes nothing.
    for (const [role, tensors] of groups) {
      const missing = names.filter((name) => !Object.hasOwn(tensors, name));
      const extra = Object.keys(tensors).filter((name) => !names.includes(name));
      if (missing.length > 0 || extra.length > 0) {
        const got = [
          missing.length ? `none for ${missing.join(", ")}` : "",
          extra.length ? `unknown ${extra.join(", ")}` : "",
        ];
        throw new AffuseError(
          "ERR_AFFUSE_PARAMETER",
          `expected ${role} of this model, got ${got.filter(Boolean).join("; ")}.`,
          "The state belongs to a model of another configuration.",
        );
      }
      for (const name of names) this.#store.check(name, tensors[name] as NamedTensor);
    }
    for (const [role, tensors] of groups) {
      for (const name of names) this.#store.set(name, tensors[name] as NamedTensor, role);
    }
    if (!state.m) this.#store.clear("m");
    if (!state.v) this.#store.clear("v");
    this.#step = state.step;
  }

  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#programs.clear();
    this.#store.dispose();
  }

  #presence(batch: Batch): Presence {
    if (this.#disposed)
      throw new AffuseError("ERR_AFFUSE_DISPOSED", "expected a live model, got a disposed one.");
    checkBatch(batch, this.streams);
    return new Presence(this.streams, batch);
  }

  #build(shape: ModelShape, mode: ModelMode): ModelGraph {
    return buildModelGraph(
      this.#addon,
      this.#store,
      this.config,
      this.streams,
      this.classes.length,
      shape,
      mode,
    );
  }

  #program(batch: Batch, mode: "train" | "infer"): { program: Program; gates: Set<string> } {
    const frames = Object.fromEntries(this.streams.map(({ name }) => [name, batch.streams[name]?.T ?? 0]));
    const key = [mode, batch.size, ...Object.values(frames)].join(" ");
    return this.#programs.get(key, () => {
      const { graph, fetches, gates } = this.#build({ batch: batch.size, frames }, mode);
      const options = { device: this.#device, precision: this.#precision, fetches };
      return { program: compile(this.#addon, graph, options), gates };
    });
  }

  async #run(
    program: Program,
    batch: Batch,
    presence: Presence,
    scalars: Record<string, number>,
  ): Promise<Record<string, TypedArray>> {
    const feeds: Record<string, TypedArray> = {};
    for (const name of program.feedNames) feeds[name] = feed(name, batch, presence);
    // A graph without dropout does not know the step of its masks; the optimiser always does.
    this.#running++;
    try {
      return await program.run({ feeds, scalars, lend: true });
    } finally {
      this.#running--;
    }
  }

  #idle(what: string): void {
    if (this.#disposed)
      throw new AffuseError("ERR_AFFUSE_DISPOSED", "expected a live model, got a disposed one.");
    if (this.#running === 0) return;
    throw new AffuseError(
      "ERR_AFFUSE_BUSY",
      `expected an idle model when its state is ${what}, got ${this.#running} running calls.`,
      "Await trainStep() and infer() first.",
    );
  }
}

function feed(name: string, batch: Batch, presence: Presence): TypedArray {
  if (name === "labels") return batch.labels ?? new Int32Array(batch.size).fill(-1);
  if (name === "valence") return batch.valence ?? new Float32Array(batch.size).fill(Number.NaN);
  const stream = name.slice(name.indexOf(":") + 1);
  if (name.startsWith("x:")) return batch.streams[stream]?.data as Float32Array;
  if (name.startsWith("lengths:"))
    return presence.lengths(stream, batch.streams[stream]?.lengths as Int32Array);
  return presence.feed(name);
}

/** Divides each of `rows` rows by its sum, in place; rows that sum to 0 stay 0. */
function normalizeRows(weights: Float32Array, rows: number): void {
  const width = rows === 0 ? 0 : weights.length / rows;
  for (let row = 0; row < rows; row++) {
    const part = weights.subarray(row * width, (row + 1) * width);
    const sum = part.reduce((total, weight) => total + weight, 0);
    if (sum > 0) for (let i = 0; i < width; i++) part[i] = (part[i] as number) / sum;
  }
}
