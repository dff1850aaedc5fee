import { Random } from "../data/random.ts";
import { AffuseError } from "../errors.ts";
import type { NativeAddon, NativeBuffer } from "../native/addon.ts";
import { aligned } from "./arena.ts";
import type { Graph } from "./graph.ts";
import { elementCount, type Storage, type Value } from "./value.ts";

/** Fills a new parameter; `random` is a stream of its own, named after the parameter. */
export type Initializer = (data: Float32Array, random: Random) => void;

export interface Parameter {
  readonly name: string;
  readonly shape: readonly number[];
  /** false: exempt from weight decay. */
  readonly decay: boolean;
  readonly initialize: Initializer;
  /** Byte offset in each of the flat buffers; −1 before the layout is fixed. */
  offset: number;
}

/** The flat buffers: parameters, gradients, and Adam's two moments, all with one layout. */
export type Role = "parameters" | "gradients" | "m" | "v";

/** A run of the flat buffers whose parameters share the weight-decay rule; in float32 elements. */
export interface Segment {
  offset: number;
  length: number;
  decay: boolean;
}

/** Constant. */
export function constantInit(value: number): Initializer {
  return (data) => {
    data.fill(value);
  };
}

/** Uniform on ±1/√fanIn: the usual choice for linear layers, and the specification's for AFG's W and b. */
export function uniformInit(fanIn: number): Initializer {
  const bound = 1 / Math.sqrt(fanIn);
  return (data, random) => {
    for (let i = 0; i < data.length; i++) data[i] = random.uniform(-bound, bound);
  };
}

/** Xavier (Glorot) normal: standard deviation √(2/(fanIn + fanOut)); AFG's u counts as [A,1]. */
export function xavierNormalInit(fanIn: number, fanOut: number): Initializer {
  const deviation = Math.sqrt(2 / (fanIn + fanOut));
  return (data, random) => {
    for (let i = 0; i < data.length; i++) data[i] = random.normal(0, deviation);
  };
}

/**
 * Every learned value of a model, in flat native buffers that all programs of the model share. Declare first; the first
 * use of a buffer (or `layout()`) fixes the layout: parameters under weight decay first, then the exempt ones, each on a
 * 64-byte boundary in the order of declaration. Initial values depend on the seed and the parameter's name alone.
 */
export class ParameterStore {
  readonly seed: number;
  #addon: Pick<NativeAddon, "createBuffer">;
  #parameters = new Map<string, Parameter>();
  #buffers = new Map<Role, NativeBuffer>();
  #segments: Segment[] | null = null;
  #disposed = false;

  constructor(addon: Pick<NativeAddon, "createBuffer">, seed: number) {
    this.#addon = addon;
    this.seed = seed;
  }

  /**
   * Declares a parameter, or finds it again: the same name must come with the same shape.
   * @throws AffuseError ERR_AFFUSE_PARAMETER
   */
  declare(
    name: string,
    shape: readonly number[],
    initialize: Initializer,
    options: { decay?: boolean } = {},
  ): Parameter {
    const known = this.#parameters.get(name);
    if (known) {
      this.#checkShape(known, shape);
      return known;
    }
    if (this.#segments) {
      throw new AffuseError(
        "ERR_AFFUSE_PARAMETER",
        `expected a declared parameter, got "${name}" after the layout was fixed.`,
      );
    }
    const parameter = { name, shape: [...shape], decay: options.decay ?? true, initialize, offset: -1 };
    this.#parameters.set(name, parameter);
    return parameter;
  }

  /** In order of declaration. */
  parameters(): Parameter[] {
    return [...this.#parameters.values()];
  }

  /** Number of learned values. */
  count(): number {
    return this.parameters().reduce((sum, p) => sum + elementCount({ dtype: "f32", shape: p.shape }), 0);
  }

  /** Fixes the layout. The gaps between parameters hold zeros in every buffer and stay zero. */
  layout(): readonly Segment[] {
    if (this.#segments) return this.#segments;
    const segments: Segment[] = [];
    let offset = 0;
    for (const decay of [true, false]) {
      const start = offset;
      for (const parameter of this.#parameters.values()) {
        if (parameter.decay !== decay) continue;
        parameter.offset = offset;
        offset += aligned(parameterBytes(parameter));
      }
      if (offset > start) segments.push({ offset: start / 4, length: (offset - start) / 4, decay });
    }
    this.#segments = segments;
    return segments;
  }

  /** One flat buffer as storage for graph values. */
  storage(role: Role): Storage {
    return { name: role, buffer: () => this.#buffer(role) };
  }

  /** The flat length of each buffer, in float32 elements. */
  flatLength(): number {
    return this.layout().reduce((sum, segment) => sum + segment.length, 0);
  }

  /** A parameter, or the matching part of another buffer, as a value of a graph. */
  value(graph: Graph, parameter: Parameter, role: Role = "parameters"): Value {
    return graph.stored(this.storage(role), parameter, { dtype: "f32", shape: parameter.shape });
  }

  /** Copies a parameter (or its gradient, or a moment) out. @throws AffuseError ERR_AFFUSE_PARAMETER */
  get(name: string, role: Role = "parameters"): { shape: number[]; data: Float32Array } {
    const parameter = this.#find(name);
    const data = new Float32Array(parameterBytes(parameter) / 4);
    const buffer = this.#buffer(role);
    if (data.length > 0) buffer.read(parameter.offset, data);
    return { shape: [...parameter.shape], data };
  }

  /** Replaces a parameter (or a gradient, or a moment). @throws AffuseError ERR_AFFUSE_PARAMETER */
  set(
    name: string,
    tensor: { shape: readonly number[]; data: Float32Array },
    role: Role = "parameters",
  ): void {
    this.check(name, tensor);
    this.#buffer(role).write(this.#find(name).offset, tensor.data);
  }

  /** Sets a whole flat buffer to zero. */
  clear(role: Role): void {
    this.#buffers.get(role)?.write(0, new Float32Array(this.flatLength()));
  }

  /** Throws ERR_AFFUSE_PARAMETER unless `set` would accept the tensor. */
  check(name: string, tensor: { shape: readonly number[]; data: Float32Array }): void {
    const parameter = this.#find(name);
    this.#checkShape(parameter, tensor.shape);
    const expected = parameterBytes(parameter) / 4;
    if (!(tensor.data instanceof Float32Array) || tensor.data.length !== expected) {
      throw new AffuseError(
        "ERR_AFFUSE_PARAMETER",
        `expected ${expected} float32 values for "${name}", got ${tensor.data?.length}.`,
      );
    }
  }

  /** Frees the buffers. */
  dispose(): void {
    this.#disposed = true;
    for (const buffer of this.#buffers.values()) buffer.dispose();
    this.#buffers.clear();
  }

  #buffer(role: Role): NativeBuffer {
    if (this.#disposed)
      throw new AffuseError("ERR_AFFUSE_DISPOSED", "expected live parameters, got disposed ones.");
    const known = this.#buffers.get(role);
    if (known) return known;
    const buffer = this.#addon.createBuffer(Math.max(this.flatLength() * 4, 64)); // zeros
    if (role === "parameters") this.#initialize(buffer);
    this.#buffers.set(role, buffer);
    return buffer;
  }

  /** One parameter at a time in the same small array: what is made here is garbage at once. */
  #initialize(buffer: NativeBuffer): void {
    const most = this.parameters().reduce((bytes, parameter) => Math.max(bytes, parameterBytes(parameter)), 0);
    const room = new Float32Array(most / 4);
    for (const parameter of this.#parameters.values()) {
      const part = room.subarray(0, parameterBytes(parameter) / 4).fill(0);
      parameter.initialize(part, new Random(this.seed, `parameter ${parameter.name}`));
      if (part.length > 0) buffer.write(parameter.offset, part);
    }
  }

  #find(name: string): Parameter {
    this.layout();
    const parameter = this.#parameters.get(name);
    if (parameter) return parameter;
    const known = [...this.#parameters.keys()].join(", ");
    throw new AffuseError("ERR_AFFUSE_PARAMETER", `expected one of the parameters ${known}, got "${name}".`);
  }

  #checkShape(parameter: Parameter, shape: readonly number[]): void {
    if (shape.length === parameter.shape.length && shape.every((dim, i) => dim === parameter.shape[i]))
      return;
    throw new AffuseError(
      "ERR_AFFUSE_PARAMETER",
      `expected shape [${parameter.shape.join(",")}] for "${parameter.name}", got [${shape.join(",")}].`,
      "The model's configuration or its streams' widths differ from those it was made with.",
    );
  }
}

function parameterBytes(parameter: Parameter): number {
  return elementCount({ dtype: "f32", shape: parameter.shape }) * 4;
}
