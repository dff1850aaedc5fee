/** Any operator by name, on typed arrays: for profiling, downstream code and `affuse op`. Training uses programs (lib/graph). */
import { AffuseError, isAffuseError } from "../errors.ts";
import type {
  Attributes,
  Backend,
  Device,
  DType,
  HostTensor,
  NativeAddon,
  OperatorInfo,
  TensorDesc,
  TypedArray,
} from "../native/addon.ts";
import { loadAddon } from "../native/load.ts";

/** A tensor as callers may give it: a bare typed array is one-dimensional; `dtype` follows from the array's class. */
export type TensorLike = TypedArray | { data: TypedArray; shape: readonly number[]; dtype?: DType };

/** Inputs by the operator's names; null and undefined leave an optional one out. */
export type Inputs = Readonly<Record<string, TensorLike | null | undefined>>;

/** Outputs by the operator's names. */
export type Outputs<Name extends string = string> = Record<Name, HostTensor>;

export interface OpOptions {
  /** "cpu" (default), or "reference": float64, single-threaded, as the formula reads. */
  device?: Device;
  /** At least 1; default: all that this process may use (see setThreads). Never changes a result. */
  threads?: number;
  /**
   * Which outputs. Default: all that are not optional and that the given inputs allow. A list: exactly these. A record
   * adjusts the default: true adds one, false leaves one out, and a typed array (synchronous calls only) is written into.
   */
  outputs?: readonly string[] | Readonly<Record<string, TypedArray | boolean>>;
}

const tables = new WeakMap<NativeAddon, Map<string, OperatorInfo>>();

function lookup(addon: NativeAddon, name: string): OperatorInfo {
  let table = tables.get(addon);
  if (!table) {
    table = new Map(addon.operators().map((info) => [info.name, info]));
    tables.set(addon, table);
  }
  const info = table.get(name);
  if (info) return info;
  throw new AffuseError(
    "ERR_AFFUSE_UNKNOWN_OPERATOR",
    `expected the name of an operator, got "${name}".`,
    "`affuse op --list` and operators() name all of them.",
  );
}

/** The addon throws plain errors that carry a code; callers of the package get one class. */
function rethrow(error: unknown): never {
  if (isAffuseError(error) && !(error instanceof AffuseError)) {
    const { code, message } = error as { code: string; message: string };
    throw new AffuseError(code, message.endsWith(".") ? message : `${message}.`, "", { cause: error });
  }
  throw error;
}

const DTYPES: readonly [unknown, DType][] = [
  [Float32Array, "f32"],
  [Float64Array, "f64"],
  [Int32Array, "i32"],
];

function dtypeOf(data: unknown, name: string): DType {
  for (const [type, dtype] of DTYPES) if (data instanceof (type as typeof Float32Array)) return dtype;
  const got = ArrayBuffer.isView(data) ? data.constructor.name : data === null ? "null" : typeof data;
  throw new AffuseError("ERR_AFFUSE_DTYPE", `expected ${name} as a Float32Array, Float64Array or Int32Array, got ${got}.`);
}

function hostTensor(value: TensorLike, name: string): HostTensor {
  if (ArrayBuffer.isView(value)) {
    return { dtype: dtypeOf(value, name), shape: [value.length], data: value };
  }
  const dtype = dtypeOf(value.data, name);
  if (value.dtype !== undefined && value.dtype !== dtype) {
    throw new AffuseError("ERR_AFFUSE_DTYPE", `expected ${name}'s data in the class of its dtype ${value.dtype}, got ${dtype}.`);
  }
  return { dtype, shape: value.shape, data: value.data };
}

function unknownName(kind: string, given: string, info: OperatorInfo, known: readonly { name: string }[]): AffuseError {
  const names = known.map(({ name }) => name).join(", ");
  return new AffuseError("ERR_AFFUSE_NAME", `expected an ${kind} of ${info.name} (${names}), got "${given}".`);
}

interface Prepared {
  addon: NativeAddon;
  info: OperatorInfo;
  inputs: (HostTensor | null)[];
  outputs: (TypedArray | boolean | null)[];
}

/** Names to positions, defaults filled in. */
function prepare(name: string, inputs: Inputs, attributes: Attributes, options: OpOptions): Prepared {
  const addon = loadAddon();
  const info = lookup(addon, name);
  for (const given of Object.keys(inputs)) {
    if (!info.inputs.some((rule) => rule.name === given)) throw unknownName("input", given, info, info.inputs);
  }
  const tensors = info.inputs.map((rule) => {
    const value = inputs[rule.name];
    return value === null || value === undefined ? null : hostTensor(value, rule.name);
  });
  return { addon, info, inputs: tensors, outputs: wantedOutputs(addon, info, tensors, attributes, options.outputs) };
}

function wantedOutputs(
  addon: NativeAddon,
  info: OperatorInfo,
  inputs: readonly (TensorDesc | null)[],
  attributes: Attributes,
  asked: OpOptions["outputs"],
): (TypedArray | boolean | null)[] {
  const list: readonly string[] | null = Array.isArray(asked) ? asked : null;
  const adjusted = (list ? {} : (asked ?? {})) as Readonly<Record<string, TypedArray | boolean>>;
  for (const given of list ?? Object.keys(adjusted)) {
    if (!info.outputs.some((rule) => rule.name === given)) throw unknownName("output", given, info, info.outputs);
  }
  if (list) return info.outputs.map((rule) => list.includes(rule.name));
  // A gradient of an input that was left out cannot be made; only inference knows which these are.
  const makes = info.name.endsWith(".backward") ? addon.infer(info.name, [...inputs], attributes) : null;
  return info.outputs.map((rule, i) => adjusted[rule.name] ?? (!rule.optional && (!makes || makes[i] !== null)));
}

function byName(info: OperatorInfo, tensors: readonly (HostTensor | null)[]): Outputs {
  const outputs: Outputs = {};
  info.outputs.forEach((rule, i) => {
    const tensor = tensors[i];
    if (tensor) outputs[rule.name] = tensor;
  });
  return outputs;
}

/**
 * Runs one operator on the calling thread's time. Inputs are read in place, and so are targets given in `outputs` written:
 * nothing is copied, and nothing of the caller's is kept afterwards (docs/memory.md).
 *
 * @example op("fbp", { a: { data, shape: [64, 1024] }, v, U, V }, { k: 4 }).z
 * @throws AffuseError with the operator's code: ERR_AFFUSE_MISSING, _DTYPE, _RANK, _SHAPE, _ATTRIBUTE, _LENGTH, _LABEL …;
 *   ERR_AFFUSE_NAME for an unknown tensor name; ERR_AFFUSE_DETACHED, _SHARED, _OVERLAP for memory that cannot be used so
 */
export function op(name: string, inputs: Inputs, attributes: Attributes = {}, options: OpOptions = {}): Outputs {
  try {
    const call = prepare(name, inputs, attributes, options);
    const { addon, info } = call;
    return byName(info, addon.call(options.device ?? "cpu", info.name, call.inputs, attributes, call.outputs, options.threads));
  } catch (error) {
    rethrow(error);
  }
}

/**
 * The same on the runtime's own threads: the event loop goes on. Inputs are copied before this returns, so that the caller may
 * change, transfer or drop them at once; outputs are always fresh.
 * @throws (rejects) as op(); ERR_AFFUSE_OUTPUT for a target in `outputs`
 */
export async function opAsync(
  name: string,
  inputs: Inputs,
  attributes: Attributes = {},
  options: OpOptions = {},
): Promise<Outputs> {
  try {
    const { addon, info, ...call } = prepare(name, inputs, attributes, options);
    const outputs = call.outputs as (boolean | null)[]; // the addon refuses anything else
    return byName(info, await addon.callAsync(options.device ?? "cpu", info.name, call.inputs, attributes, outputs, options.threads));
  } catch (error) {
    rethrow(error);
  }
}

/** Every operator: tensors with shapes, attributes with ranges and defaults, FLOP and byte formulas. */
export function operators(): OperatorInfo[] {
  return loadAddon().operators();
}

/** One operator's description. @throws AffuseError ERR_AFFUSE_UNKNOWN_OPERATOR */
export function operator(name: string): OperatorInfo {
  return lookup(loadAddon(), name);
}

/**
 * What can compute here, and why something cannot: cpu, reference, cuda, and emulated (the CUDA kernels on the CPU, for
 * tests) where it was built, be it for another version. Opens the CUDA library, if there is one, and counts devices.
 */
export function backends(): Backend[] {
  return loadAddon().backends();
}

/** Instruction set in use and those possible, thread count, cache sizes in bytes. */
export function cpu(): ReturnType<NativeAddon["cpu"]> {
  return loadAddon().cpu();
}

/** Threads of calls and programs that do not say. @throws AffuseError ERR_AFFUSE_THREADS unless an integer in [1, 1024] */
export function setThreads(count: number): void {
  try {
    loadAddon().setThreads(count);
  } catch (error) {
    rethrow(error);
  }
}

/**
 * Floating-point operations and least bytes moved of one call, for roofs.
 * @param inputs by name, shapes only
 */
export function cost(
  name: string,
  inputs: Readonly<Record<string, TensorDesc | null | undefined>>,
  attributes: Attributes = {},
): { flops: number; bytes: number } {
  try {
    const addon = loadAddon();
    const info = lookup(addon, name);
    return addon.cost(
      name,
      info.inputs.map((rule) => inputs[rule.name] ?? null),
      attributes,
    );
  } catch (error) {
    rethrow(error);
  }
}
