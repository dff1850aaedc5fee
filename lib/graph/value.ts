import type {
  Attributes,
  DType,
  NativeBuffer,
  OperatorInfo,
  TensorDesc,
  TypedArray,
} from "../native/addon.ts";

/** Persistent memory that outlives programs: the flat parameter, gradient and moment buffers. */
export interface Storage {
  readonly name: string;
  /** The native memory, made on first use; from then on every place in it is settled. */
  buffer(): NativeBuffer;
}

/** Where in persistent memory: bytes, a multiple of 64. May be settled only when the storage is first used. */
export interface Place {
  readonly offset: number;
}

/** Where a value comes from. */
export type Source =
  | { kind: "input"; name: string }
  | { kind: "constant"; data: TypedArray }
  | { kind: "stored"; storage: Storage; place: Place }
  | { kind: "output"; node: Node; index: number }
  /** The same bytes under another shape. */
  | { kind: "alias"; of: Value };

/** A tensor in a graph: symbolic, immutable. Ids grow in the order of recording, so every consumer has a larger id. */
export interface Value extends TensorDesc {
  readonly id: number;
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly source: Source;
}

/** One recorded operator call. */
export interface Node {
  readonly info: OperatorInfo;
  /** In the operator's order; null for an absent optional input. */
  readonly inputs: readonly (Value | null)[];
  readonly attributes: Attributes;
  /** Attributes bound at run: attribute name → scalar name. */
  readonly scalars: Readonly<Record<string, string>>;
  /**
   * In the operator's order, optional ones included; which are made is decided by who uses them. null where this call
   * has no such output (the gradient of an absent input).
   */
  readonly outputs: readonly (Value | null)[];
}

/** Number of elements. */
export function elementCount(desc: TensorDesc): number {
  return desc.shape.reduce((product, dim) => product * dim, 1);
}

export function byteSize(desc: TensorDesc): number {
  return elementCount(desc) * (desc.dtype === "f64" ? 8 : 4);
}

/** "f32[2,3]", for messages. */
export function describe(desc: TensorDesc): string {
  return `${desc.dtype}[${desc.shape.join(",")}]`;
}

/** The value whose bytes these are: follows reshapes. */
export function root(value: Value): Value {
  let current = value;
  while (current.source.kind === "alias") current = current.source.of;
  return current;
}
