/**
 * Running one operator for the suites: inputs at odd offsets, outputs filled with NaN between guard bands.
 */
import type { Random } from "../../lib/data/random.ts";
import type {
  Attributes,
  HostTensor,
  NativeAddon,
  OperatorInfo,
  TensorDesc,
  TensorRule,
  TypedArray,
} from "../../lib/native/addon.ts";

/**
 * Values of one tensor: float64 that float32 holds exactly, so that kernel and reference see the same
 * numbers.
 */
export interface Values {
  shape: number[];
  data: Float64Array | Int32Array;
}

/** Inputs by name; names that do not occur are absent. */
export type Inputs = Record<string, Values>;

/** What a kernel runs through; the positive controls put a saboteur in its place. */
export type Call = NativeAddon["call"];

/** One output: its values, or null when it was not made. */
export type Outputs = Record<string, Values | null>;

/** Dimensions around the edges of vectors and tiles. */
export const EDGES = [1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65] as const;

export function edge(random: Random, most = 65): number {
  return random.choice(EDGES.filter((n) => n <= most));
}

export function elements(shape: readonly number[]): number {
  return shape.reduce((product, dim) => product * dim, 1);
}

export function tensor(shape: number[], value: (index: number) => number): Values {
  return { shape, data: Float64Array.from({ length: elements(shape) }, (_, i) => Math.fround(value(i))) };
}

export function normal(random: Random, shape: number[], sd = 1, mean = 0): Values {
  return tensor(shape, () => random.normal(mean, sd));
}

export function integers(shape: number[], value: (index: number) => number): Values {
  return { shape, data: Int32Array.from({ length: elements(shape) }, (_, i) => value(i)) };
}

function descOf(values: Values | undefined, wide: boolean): TensorDesc | null {
  if (!values) return null;
  return { dtype: values.data instanceof Int32Array ? "i32" : wide ? "f64" : "f32", shape: values.shape };
}

const GUARD = 40;
const SENTINEL = 0x7fc5a5a5; // a NaN that no arithmetic makes

/** `length` elements at an odd element offset inside a larger array whose other words hold SENTINEL. */
class Guarded {
  readonly view: Float32Array | Int32Array;
  readonly #words: Uint32Array<ArrayBuffer>;
  readonly #from: number;

  constructor(length: number, float: boolean, offset: number) {
    this.#from = GUARD + offset;
    this.#words = new Uint32Array(this.#from + length + GUARD).fill(SENTINEL);
    const Kind = float ? Float32Array : Int32Array;
    this.view = new Kind(this.#words.buffer, this.#from * 4, length);
    if (float) this.view.fill(Number.NaN);
    else this.view.fill(-0x5a5a5a5a);
  }

  /** Index of the first word outside the view that changed, relative to the view; null: none. */
  damage(): number | null {
    const end = this.#from + this.view.length;
    for (let i = 0; i < this.#words.length; i++) {
      if ((i < this.#from || i >= end) && this.#words[i] !== SENTINEL) return i - this.#from;
    }
    return null;
  }
}

function odd(values: Values, offset: number): HostTensor {
  const n = values.data.length;
  if (values.data instanceof Int32Array) {
    const data = new Int32Array(n + offset).subarray(offset);
    data.set(values.data);
    return { dtype: "i32", shape: values.shape, data };
  }
  const data = new Float32Array(n + offset).subarray(offset);
  data.set(values.data);
  return { dtype: "f32", shape: values.shape, data };
}

function wide(data: TypedArray): Float64Array | Int32Array {
  return data instanceof Int32Array ? data : Float64Array.from(data);
}

/** Outputs that these inputs give, by name; null where an output does not exist (its input is absent). */
export function inferred(
  addon: Pick<NativeAddon, "infer">,
  info: OperatorInfo,
  inputs: Inputs,
  attributes: Attributes,
): Record<string, number[] | null> {
  const descs = addon.infer(
    info.name,
    info.inputs.map((rule) => descOf(inputs[rule.name], false)),
    attributes,
  ) as (TensorDesc | null)[];
  return Object.fromEntries(
    info.outputs.map((rule, i) => [rule.name, descs[i] ? [...descs[i].shape] : null]),
  );
}

/** The float64 reference. All outputs that exist are made unless `want` narrows them. */
export function runReference(
  call: Call,
  info: OperatorInfo,
  inputs: Inputs,
  attributes: Attributes,
  shapes: Record<string, number[] | null>,
  want: (name: string) => boolean = () => true,
): Outputs {
  const results = call(
    "reference",
    info.name,
    info.inputs.map((rule) => {
      const values = inputs[rule.name];
      if (!values) return null;
      return {
        dtype: values.data instanceof Int32Array ? "i32" : "f64",
        shape: values.shape,
        data: values.data,
      };
    }),
    attributes,
    info.outputs.map((rule) => shapes[rule.name] !== null && want(rule.name)),
  );
  return Object.fromEntries(
    info.outputs.map((rule, i) => {
      const made = results[i];
      return [rule.name, made ? { shape: [...made.shape], data: wide(made.data) } : null];
    }),
  );
}

/** The float32 kernel, with everything that may go wrong around the edges watched. */
export function runKernel(
  call: Call,
  info: OperatorInfo,
  inputs: Inputs,
  attributes: Attributes,
  shapes: Record<string, number[] | null>,
  options: { want?: (name: string) => boolean; threads?: number; offset?: number } = {},
): { outputs: Outputs; raw: Record<string, TypedArray>; damage: string[] } {
  const offset = options.offset ?? 1;
  const want = options.want ?? (() => true);
  const guarded = info.outputs.map((rule) => {
    const shape = shapes[rule.name];
    return shape && want(rule.name) ? new Guarded(elements(shape), rule.dtype !== "i32", offset) : null;
  });
  const held = info.inputs.map((rule) => {
    const values = inputs[rule.name];
    return values ? odd(values, offset) : null;
  });
  const before = held.map((input) => (input ? input.data.slice() : null));
  call(
    "cpu",
    info.name,
    held,
    attributes,
    guarded.map((g) => (g ? g.view : null)),
    options.threads ?? 1,
  );
  const damage: string[] = [];
  const outputs: Outputs = {};
  const raw: Record<string, TypedArray> = {};
  info.outputs.forEach((rule, i) => {
    const g = guarded[i];
    outputs[rule.name] = g ? { shape: shapes[rule.name] as number[], data: wide(g.view) } : null;
    if (!g) return;
    raw[rule.name] = g.view;
    const at = g.damage();
    if (at !== null)
      damage.push(`${rule.name}: wrote outside the output, at element ${at} of ${g.view.length}`);
  });
  held.forEach((input, i) => {
    if (input && !sameBits(input.data, before[i] as TypedArray))
      damage.push(`${(info.inputs[i] as TensorRule).name}: the kernel changed an input`);
  });
  return { outputs, raw, damage };
}

export function sameBits(a: TypedArray, b: TypedArray): boolean {
  const x = new Uint8Array(a.buffer, a.byteOffset, a.byteLength);
  const y = new Uint8Array(b.buffer, b.byteOffset, b.byteLength);
  return Buffer.compare(x, y) === 0;
}
