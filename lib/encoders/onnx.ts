/**
 * Writes ONNX models (opset 13, IR 7) byte for byte: just the protobuf messages that a graph of standard operators with
 * float32 and int64 constants needs. Field numbers are those of onnx/onnx.proto. The same calls give the same bytes on
 * every machine, so a generated encoder can be named by its SHA-256.
 */

/** Attribute of a node: a whole number, a list of whole numbers, a string, or `{ f }` for a float. */
export type Attribute = number | readonly number[] | string | { f: number };

/** Size of a dimension, or its name where it varies. */
export type Dimension = number | string;

const WIRE_VARINT = 0;
const WIRE_BYTES = 2;
const WIRE_FIXED32 = 5;
const FLOAT = 1;
const INT64 = 7;

function varint(value: number | bigint): Buffer {
  let rest = BigInt.asUintN(64, BigInt(value));
  const bytes: number[] = [];
  do {
    const low = Number(rest & 0x7fn);
    rest >>= 7n;
    bytes.push(rest > 0n ? low | 0x80 : low);
  } while (rest > 0n);
  return Buffer.from(bytes);
}

const tag = (field: number, wire: number): Buffer => varint((field << 3) | wire);
const integer = (field: number, value: number | bigint): Buffer =>
  Buffer.concat([tag(field, WIRE_VARINT), varint(value)]);
function bytes(field: number, value: Uint8Array | string): Buffer {
  const data = typeof value === "string" ? Buffer.from(value) : value;
  return Buffer.concat([tag(field, WIRE_BYTES), varint(data.length), data]);
}
function float(field: number, value: number): Buffer {
  const data = Buffer.alloc(4);
  data.writeFloatLE(value);
  return Buffer.concat([tag(field, WIRE_FIXED32), data]);
}

function attribute(name: string, value: Attribute): Buffer {
  const parts = [bytes(1, name)];
  if (typeof value === "number") parts.push(integer(3, value), integer(20, 2));
  else if (typeof value === "string") parts.push(bytes(4, value), integer(20, 3));
  else if ("f" in value) parts.push(float(2, value.f), integer(20, 1));
  else parts.push(...value.map((v) => integer(8, v)), integer(20, 7));
  return Buffer.concat(parts);
}

function valueInfo(name: string, shape: readonly Dimension[]): Buffer {
  const dims = shape.map((d) => bytes(1, typeof d === "number" ? integer(1, d) : bytes(2, d)));
  const tensor = Buffer.concat([integer(1, FLOAT), bytes(2, Buffer.concat(dims))]);
  return Buffer.concat([bytes(1, name), bytes(2, bytes(1, tensor))]);
}

/** Builds one graph. Each call of {@link node} appends an operator and returns the name of its first output. */
export class OnnxGraph {
  readonly #name: string;
  readonly #nodes: Buffer[] = [];
  readonly #constants: Buffer[] = [];
  readonly #inputs: Buffer[] = [];
  readonly #outputs: Buffer[] = [];
  #counter = 0;

  constructor(name: string) {
    this.#name = name;
  }

  /** Declares a float32 input. */
  input(name: string, shape: readonly Dimension[]): string {
    this.#inputs.push(valueInfo(name, shape));
    return name;
  }

  /** Declares that `value` is a float32 output of the graph. */
  output(value: string, shape: readonly Dimension[]): void {
    this.#outputs.push(valueInfo(value, shape));
  }

  /** float32 constant; `data` in row-major order. */
  constant(shape: readonly number[], data: ArrayLike<number>): string {
    const count = shape.reduce((a, b) => a * b, 1);
    if (count !== data.length) throw new RangeError(`constant of shape [${shape}] got ${data.length} values`);
    const raw = Buffer.alloc(4 * count);
    for (let i = 0; i < count; i++) raw.writeFloatLE(data[i] as number, 4 * i);
    return this.#initializer(shape, FLOAT, raw);
  }

  /** int64 constant vector: shapes, axes, starts and ends. */
  integers(values: readonly number[]): string {
    const raw = Buffer.alloc(8 * values.length);
    for (const [i, v] of values.entries()) raw.writeBigInt64LE(BigInt(v), 8 * i);
    return this.#initializer([values.length], INT64, raw);
  }

  #initializer(shape: readonly number[], type: number, raw: Buffer): string {
    const name = `c${this.#constants.length}`;
    const parts = [...shape.map((d) => integer(1, d)), integer(2, type), bytes(8, name), bytes(9, raw)];
    this.#constants.push(Buffer.concat(parts));
    return name;
  }

  /** Appends an operator with one output. `output` names it; otherwise a fresh name is made. */
  node(
    type: string,
    inputs: readonly string[],
    attributes: Readonly<Record<string, Attribute>> = {},
    output = `v${this.#counter++}`,
  ): string {
    this.#nodes.push(
      Buffer.concat([
        ...inputs.map((i) => bytes(1, i)),
        bytes(2, output),
        bytes(4, type),
        ...Object.entries(attributes).map(([name, value]) => bytes(5, attribute(name, value))),
      ]),
    );
    return output;
  }

  /** The finished ModelProto. */
  bytes(): Uint8Array {
    const graph = Buffer.concat([
      ...this.#nodes.map((n) => bytes(1, n)),
      bytes(2, this.#name),
      ...this.#constants.map((c) => bytes(5, c)),
      ...this.#inputs.map((i) => bytes(11, i)),
      ...this.#outputs.map((o) => bytes(12, o)),
    ]);
    return new Uint8Array(
      Buffer.concat([
        integer(1, 7),
        bytes(2, "affuse"),
        bytes(7, graph),
        bytes(8, Buffer.concat([bytes(1, ""), integer(2, 13)])),
      ]),
    );
  }
}
