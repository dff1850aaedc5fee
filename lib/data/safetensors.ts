/**
 * The safetensors format: 8-byte little-endian header length, JSON header, raw little-endian data. Used for
 * models, checkpoints and `affuse op`. Reading checks every figure of the header against the file before
 * allocating anything.
 */
import { AffuseError } from "../errors.ts";
import { readBytes, writeFileAtomic } from "./files.ts";
import { halfToNumber } from "./npy.ts";

export type SafeDType = "F64" | "F32" | "F16" | "BF16" | "I64" | "I32" | "I16" | "U16" | "I8" | "U8" | "BOOL";
export type SafeData =
  | Float32Array
  | Float64Array
  | Int32Array
  | BigInt64Array
  | Int16Array
  | Uint16Array
  | Int8Array
  | Uint8Array;

export interface SafeTensor {
  /** The file's type. F16 and BF16 data come as Float32Array (exact). */
  dtype: SafeDType;
  shape: number[];
  data: SafeData;
}

export interface SafeTensors {
  tensors: Map<string, SafeTensor>;
  /** The header's `__metadata__`: strings only. */
  metadata: Record<string, string>;
}

const MAX_HEADER_BYTES = 32 * 1024 * 1024;
const ITEM_BYTES: Record<SafeDType, number> = {
  F64: 8,
  F32: 4,
  F16: 2,
  BF16: 2,
  I64: 8,
  I32: 4,
  I16: 2,
  U16: 2,
  I8: 1,
  U8: 1,
  BOOL: 1,
};

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

const isSize = (value: unknown): value is number =>
  typeof value === "number" && Number.isSafeInteger(value) && value >= 0;

interface Entry {
  name: string;
  dtype: SafeDType;
  shape: number[];
  begin: number;
  end: number;
}

/**
 * Parses a whole file.
 * @param name for messages
 * @throws ERR_AFFUSE_FORMAT damaged, cut off, overlapping or with holes; ERR_AFFUSE_DTYPE unknown element
 * type
 */
export function parseSafetensors(bytes: Uint8Array, name: string): SafeTensors {
  const bad = (what: string) =>
    new AffuseError(
      "ERR_AFFUSE_FORMAT",
      `${name}: ${what}.`,
      "The file is damaged or is not a .safetensors file.",
    );
  if (bytes.length < 8) throw bad(`expected at least 8 bytes, got ${bytes.length}`);
  const length = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  if (length > MAX_HEADER_BYTES) throw bad(`a header of ${length} bytes is longer than ${MAX_HEADER_BYTES}`);
  if (8 + length > bytes.length) throw bad(`the header claims ${length} bytes, the file has ${bytes.length}`);
  let header: unknown;
  try {
    header = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes.subarray(8, 8 + length)));
  } catch (error) {
    throw bad(`the header is not valid JSON (${(error as Error).message})`);
  }
  if (!isObject(header)) throw bad("the header is not a JSON object");
  const size = bytes.length - 8 - length;
  const metadata: Record<string, string> = Object.create(null);
  const entries: Entry[] = [];
  for (const [key, value] of Object.entries(header)) {
    if (!isObject(value)) throw bad(`the entry ${JSON.stringify(key)} is not an object`);
    if (key === "__metadata__") {
      for (const [k, v] of Object.entries(value)) {
        if (typeof v !== "string") throw bad(`the metadata ${JSON.stringify(k)} is not a string`);
        metadata[k] = v;
      }
      continue;
    }
    const { dtype, shape, data_offsets: offsets } = value;
    if (typeof dtype !== "string" || !Object.hasOwn(ITEM_BYTES, dtype)) {
      throw new AffuseError(
        "ERR_AFFUSE_DTYPE",
        `${name}: tensor ${key} has type ${JSON.stringify(dtype)}, expected one of ${Object.keys(ITEM_BYTES).join(", ")}.`,
      );
    }
    if (!Array.isArray(shape) || shape.length > 32 || !shape.every(isSize))
      throw bad(`tensor ${key} has no valid shape`);
    if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isSize))
      throw bad(`tensor ${key} has no valid data_offsets`);
    const [begin, end] = offsets as [number, number];
    const count = shape.includes(0) ? 0 : shape.reduce((product, n) => product * n, 1);
    if (begin > end || end > size) throw bad(`tensor ${key} lies outside the file`);
    if (count * ITEM_BYTES[dtype as SafeDType] !== end - begin) {
      throw bad(`tensor ${key} of shape [${shape.join(",")}] does not fill its ${end - begin} bytes`);
    }
    entries.push({ name: key, dtype: dtype as SafeDType, shape, begin, end });
  }
  let covered = 0;
  for (const entry of [...entries].sort((a, b) => a.begin - b.begin || a.end - b.end)) {
    if (entry.begin !== covered)
      throw bad(`the tensors overlap or leave a hole at byte ${covered} (tensor ${entry.name})`);
    covered = entry.end;
  }
  if (covered !== size) throw bad(`${size - covered} bytes follow the last tensor`);
  const tensors = new Map<string, SafeTensor>();
  for (const { name: key, dtype, shape, begin, end } of entries) {
    // A copy: typed arrays need alignment, which the format does not promise.
    const raw = new Uint8Array(bytes.subarray(8 + length + begin, 8 + length + end));
    tensors.set(key, { dtype, shape, data: decode(dtype, raw) });
  }
  return { tensors, metadata };
}

function decode(dtype: SafeDType, raw: Uint8Array): SafeData {
  const { buffer, byteOffset } = raw;
  const count = raw.length / ITEM_BYTES[dtype];
  switch (dtype) {
    case "F64":
      return new Float64Array(buffer, byteOffset, count);
    case "F32":
      return new Float32Array(buffer, byteOffset, count);
    case "I64":
      return new BigInt64Array(buffer, byteOffset, count);
    case "I32":
      return new Int32Array(buffer, byteOffset, count);
    case "I16":
      return new Int16Array(buffer, byteOffset, count);
    case "U16":
      return new Uint16Array(buffer, byteOffset, count);
    case "I8":
      return new Int8Array(buffer, byteOffset, count);
    case "F16":
      return Float32Array.from(new Uint16Array(buffer, byteOffset, count), halfToNumber);
    case "BF16": {
      const words = new Uint32Array(count);
      const halves = new Uint16Array(buffer, byteOffset, count);
      for (let i = 0; i < count; i++) words[i] = (halves[i] as number) << 16;
      return new Float32Array(words.buffer);
    }
    default:
      return raw;
  }
}

/** Reads a file. Errors as parseSafetensors and readBytes. */
export function readSafetensors(file: string): SafeTensors {
  return parseSafetensors(readBytes(file), file);
}

/** What is written: F32, F64, I32, I64, U8 … by the array's class. */
export interface WritableTensor {
  shape: readonly number[];
  data: SafeData;
}

const DTYPE = new Map<unknown, SafeDType>([
  [Float32Array, "F32"],
  [Float64Array, "F64"],
  [Int32Array, "I32"],
  [BigInt64Array, "I64"],
  [Int16Array, "I16"],
  [Uint16Array, "U16"],
  [Int8Array, "I8"],
  [Uint8Array, "U8"],
]);

/**
 * A file's bytes, in pieces (header, then one piece per tensor, not copied). Wider types come first and data
 * starts at a multiple of 8, so that readers may map the file. The same tensors in the same order give the
 * same bytes.
 * @throws ERR_AFFUSE_SHAPE, ERR_AFFUSE_DTYPE
 */
export function encodeSafetensors(
  tensors: Iterable<readonly [string, WritableTensor]>,
  metadata: Readonly<Record<string, string>> = {},
): Uint8Array[] {
  const list = [...tensors].map(([name, { shape, data }]) => {
    const dtype = DTYPE.get(data.constructor);
    if (!dtype)
      throw new AffuseError(
        "ERR_AFFUSE_DTYPE",
        `tensor ${name}: arrays of class ${data.constructor.name} cannot be stored.`,
      );
    const count = shape.reduce((product, n) => product * n, 1);
    if (count !== data.length) {
      throw new AffuseError(
        "ERR_AFFUSE_SHAPE",
        `tensor ${name}: expected ${count} elements for shape [${shape.join(",")}], got ${data.length}.`,
      );
    }
    return { name, dtype, shape, data };
  });
  list.sort((a, b) => ITEM_BYTES[b.dtype] - ITEM_BYTES[a.dtype]); // stable
  const header: Record<string, unknown> = Object.create(null);
  if (Object.keys(metadata).length > 0) header.__metadata__ = metadata;
  let offset = 0;
  for (const { name, dtype, shape, data } of list) {
    if (name === "__metadata__" || name in header)
      throw new AffuseError("ERR_AFFUSE_FORMAT", `tensor name ${name} occurs twice or is reserved.`);
    header[name] = { dtype, shape, data_offsets: [offset, offset + data.byteLength] };
    offset += data.byteLength;
  }
  let text = Buffer.from(JSON.stringify(header));
  text = Buffer.concat([text, Buffer.alloc((8 - (text.length % 8)) % 8, " ")]);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  return [
    length,
    text,
    ...list.map(({ data }) => new Uint8Array(data.buffer, data.byteOffset, data.byteLength)),
  ];
}

/** Writes a file atomically. */
export function writeSafetensors(
  file: string,
  tensors: Iterable<readonly [string, WritableTensor]>,
  metadata: Readonly<Record<string, string>> = {},
  what = "the tensors",
  durable = true,
): void {
  writeFileAtomic(file, encodeSafetensors(tensors, metadata), what, durable);
}
