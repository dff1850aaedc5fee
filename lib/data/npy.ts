/**
 * NumPy's `.npy` format (NEP 1), versions 1 to 3, read without Python.
 *
 * Read: float16, float32, float64, bool and every integer width, little or big endian, C or Fortran order.
 * Refused: object arrays, whose payload is a pickle (ERR_AFFUSE_PICKLE), structured, string, date and complex
 * types (ERR_AFFUSE_DTYPE). Nothing is allocated before the header's figures have been checked against the
 * file's real size.
 */
import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { AffuseError } from "../errors.ts";
import { readBytes, writeFileAtomic } from "./files.ts";

/** Typed arrays that `.npy` data is returned in; 64-bit integers come as Float64Array (exact up to 2^53). */
export type NpyData =
  | Float32Array
  | Float64Array
  | Int8Array
  | Uint8Array
  | Int16Array
  | Uint16Array
  | Int32Array
  | Uint32Array;

export interface NpyArray<Data extends NpyData = NpyData> {
  /** Row-major after reading, whatever the file's order was. */
  shape: number[];
  data: Data;
}

export interface NpyHeader {
  shape: number[];
  /** NumPy's descriptor, e.g. "<f4". */
  descr: string;
  fortranOrder: boolean;
  /** Byte offset of the first element. */
  offset: number;
}

const MAX_HEADER_BYTES = 64 * 1024;
const MAX_RANK = 32;

function bad(name: string, what: string): AffuseError {
  return new AffuseError(
    "ERR_AFFUSE_FORMAT",
    `${name}: ${what}.`,
    "The file is damaged or is not a .npy file.",
  );
}

/** Reads the header's Python dictionary literal; only the three keys that the format allows. */
function parseDictionary(
  text: string,
  name: string,
): { descr: string; fortranOrder: boolean; shape: number[] } {
  let rest = text.trim();
  if (!rest.startsWith("{") || !rest.endsWith("}")) throw bad(name, "the header is not a dictionary");
  rest = rest.slice(1, -1);
  let descr: string | undefined;
  let fortranOrder: boolean | undefined;
  let shape: number[] | undefined;
  const take = (pattern: RegExp): RegExpExecArray | null => {
    const match = pattern.exec(rest);
    if (match) rest = rest.slice(match[0].length);
    return match;
  };
  while (rest.trim() !== "") {
    const key = take(/^\s*(['"])(descr|fortran_order|shape)\1\s*:\s*/)?.[2];
    if (key === "descr" && descr === undefined) {
      const value = take(/^(['"])([^'"\\]{0,64})\1/);
      if (!value) {
        if (/^[[(]/.test(rest)) {
          throw new AffuseError(
            "ERR_AFFUSE_DTYPE",
            `${name}: expected numbers, got a structured array.`,
            "Save one plain array.",
          );
        }
        throw bad(name, "the header's descr is not a string");
      }
      descr = value[2];
    } else if (key === "fortran_order" && fortranOrder === undefined) {
      const value = take(/^(True|False)/);
      if (!value) throw bad(name, "the header's fortran_order is not True or False");
      fortranOrder = value[1] === "True";
    } else if (key === "shape" && shape === undefined) {
      const value = take(/^\(([\dL,\s]*)\)/);
      if (!value) throw bad(name, "the header's shape is not a tuple of non-negative whole numbers");
      const items = (value[1] ?? "").split(",").map((item) => item.trim());
      if (items.at(-1) === "") items.pop();
      if (items.length > MAX_RANK || !items.every((item) => /^\d{1,15}L?$/.test(item))) {
        throw bad(name, "the header's shape is not a tuple of non-negative whole numbers");
      }
      shape = items.map((item) => Number.parseInt(item, 10));
    } else {
      throw bad(name, "the header has a missing, unknown or repeated key");
    }
    if (!take(/^\s*,/) && rest.trim() !== "") throw bad(name, "the header's dictionary is malformed");
  }
  if (descr === undefined || fortranOrder === undefined || shape === undefined) {
    throw bad(name, "the header lacks descr, fortran_order or shape");
  }
  return { descr, fortranOrder, shape };
}

/** Parses the header only. @param bytes at least the whole header @param name for messages */
export function parseNpyHeader(bytes: Uint8Array, name: string): NpyHeader {
  if (bytes.length < 10 || Buffer.from(bytes.subarray(0, 6)).toString("latin1") !== "\x93NUMPY") {
    throw bad(name, "expected the .npy signature at the start");
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const major = bytes[6] as number;
  if (major < 1 || major > 3) throw bad(name, `expected format version 1 to 3, got ${major}`);
  const start = major === 1 ? 10 : 12;
  if (bytes.length < start) throw bad(name, "the header is cut off");
  const length = major === 1 ? view.getUint16(8, true) : view.getUint32(8, true);
  if (length > MAX_HEADER_BYTES)
    throw bad(name, `a header of ${length} bytes is longer than ${MAX_HEADER_BYTES}`);
  if (start + length > bytes.length) throw bad(name, "the header is cut off");
  const text = Buffer.from(bytes.buffer, bytes.byteOffset + start, length).toString(
    major === 3 ? "utf8" : "latin1",
  );
  return { ...parseDictionary(text, name), offset: start + length };
}

type Reader = {
  bytes: number;
  make: (n: number) => NpyData;
  get: (view: DataView, at: number, little: boolean) => number;
};

const READERS: Record<string, Reader> = {
  f2: { bytes: 2, make: (n) => new Float32Array(n), get: (v, at, le) => halfToNumber(v.getUint16(at, le)) },
  f4: { bytes: 4, make: (n) => new Float32Array(n), get: (v, at, le) => v.getFloat32(at, le) },
  f8: { bytes: 8, make: (n) => new Float64Array(n), get: (v, at, le) => v.getFloat64(at, le) },
  b1: { bytes: 1, make: (n) => new Uint8Array(n), get: (v, at) => (v.getUint8(at) ? 1 : 0) },
  i1: { bytes: 1, make: (n) => new Int8Array(n), get: (v, at) => v.getInt8(at) },
  u1: { bytes: 1, make: (n) => new Uint8Array(n), get: (v, at) => v.getUint8(at) },
  i2: { bytes: 2, make: (n) => new Int16Array(n), get: (v, at, le) => v.getInt16(at, le) },
  u2: { bytes: 2, make: (n) => new Uint16Array(n), get: (v, at, le) => v.getUint16(at, le) },
  i4: { bytes: 4, make: (n) => new Int32Array(n), get: (v, at, le) => v.getInt32(at, le) },
  u4: { bytes: 4, make: (n) => new Uint32Array(n), get: (v, at, le) => v.getUint32(at, le) },
  i8: { bytes: 8, make: (n) => new Float64Array(n), get: (v, at, le) => Number(v.getBigInt64(at, le)) },
  u8: { bytes: 8, make: (n) => new Float64Array(n), get: (v, at, le) => Number(v.getBigUint64(at, le)) },
};

/** IEEE half precision to a number; exact. */
export function halfToNumber(half: number): number {
  const sign = half & 0x8000 ? -1 : 1;
  const exponent = (half >> 10) & 31;
  const fraction = half & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

function readerOf(header: NpyHeader, name: string): { reader: Reader; little: boolean } {
  const match = /^([<>|=])?([a-zA-Z])(\d*)$/.exec(header.descr);
  if (match?.[2] === "O") {
    throw new AffuseError(
      "ERR_AFFUSE_PICKLE",
      `${name} holds pickled Python objects, expected plain numbers; unpickling can run any code and is refused.`,
      "Save a float32 array instead, e.g. np.save(path, np.asarray(x, dtype=np.float32)).",
    );
  }
  const reader = READERS[`${match?.[2]}${match?.[3]}`];
  if (!reader) {
    throw new AffuseError(
      "ERR_AFFUSE_DTYPE",
      `${name}: expected a real or integer type, got ${JSON.stringify(header.descr)}.`,
      "Save it as float32.",
    );
  }
  return { reader, little: match?.[1] !== ">" };
}

/** Number of elements, or an error before anything is allocated if the file cannot hold that many. */
function checkedCount(header: NpyHeader, itemBytes: number, available: number, name: string): number {
  let count = header.shape.includes(0) ? 0 : 1;
  for (const size of header.shape) {
    count *= size;
    if (count * itemBytes > available) {
      throw bad(
        name,
        `shape (${header.shape.join(", ")}) needs more than the ${available} bytes that follow the header`,
      );
    }
  }
  if (count * itemBytes !== available) {
    throw bad(
      name,
      `shape (${header.shape.join(", ")}) needs ${count * itemBytes} bytes, ${available} follow the header`,
    );
  }
  return count;
}

/**
 * Parses a whole `.npy` file.
 * @param name for messages
 * @throws ERR_AFFUSE_FORMAT damaged or cut off, ERR_AFFUSE_PICKLE object array, ERR_AFFUSE_DTYPE other types
 */
export function parseNpy(bytes: Uint8Array, name: string): NpyArray {
  const header = parseNpyHeader(bytes, name);
  const { reader, little } = readerOf(header, name);
  const count = checkedCount(header, reader.bytes, bytes.length - header.offset, name);
  const data = reader.make(count);
  if (
    little &&
    data.BYTES_PER_ELEMENT === reader.bytes &&
    !header.descr.endsWith("b1") &&
    !header.descr.endsWith("8")
  ) {
    // Same layout as the typed array on little-endian machines, the only ones that Node runs on here.
    new Uint8Array(data.buffer).set(bytes.subarray(header.offset));
  } else {
    const view = new DataView(bytes.buffer, bytes.byteOffset + header.offset, count * reader.bytes);
    for (let i = 0; i < count; i++) data[i] = reader.get(view, i * reader.bytes, little);
  }
  const { shape } = header;
  return {
    shape,
    data: header.fortranOrder && shape.length > 1 ? fromFortran(data, shape, reader.make(count)) : data,
  };
}

/** Column-major → row-major. */
function fromFortran(data: NpyData, shape: number[], out: NpyData): NpyData {
  const rank = shape.length;
  const index = new Array<number>(rank).fill(0);
  const strides: number[] = [];
  let stride = 1;
  for (const size of shape) {
    strides.push(stride);
    stride *= size;
  }
  let from = 0;
  for (let to = 0; to < out.length; to++) {
    out[to] = data[from] as number;
    for (let axis = rank - 1; axis >= 0; axis--) {
      index[axis] = (index[axis] as number) + 1;
      from += strides[axis] as number;
      if ((index[axis] as number) < (shape[axis] as number)) break;
      from -= (shape[axis] as number) * (strides[axis] as number);
      index[axis] = 0;
    }
  }
  return out;
}

/** Any real array as float32 (float64 and wide integers are rounded to nearest). */
export function toFloat32(array: NpyArray): NpyArray<Float32Array> {
  return {
    shape: array.shape,
    data: array.data instanceof Float32Array ? array.data : Float32Array.from(array.data),
  };
}

/** Reads a `.npy` file in its own type. Errors as parseNpy and readBytes. */
export function readNpy(file: string): NpyArray {
  return parseNpy(readBytes(file), file);
}

/** Reads a `.npy` file as float32. */
export function readNpyFloat32(file: string): NpyArray<Float32Array> {
  return toFloat32(readNpy(file));
}

/**
 * Reads only the header (a few hundred bytes) and checks the data's size: shape and type without loading the
 * array.
 */
export function readNpyHeader(file: string): NpyHeader {
  let handle: number;
  try {
    handle = openSync(file, "r");
  } catch (error) {
    throw new AffuseError(
      "ERR_AFFUSE_NOT_FOUND",
      `Could not open ${file}: ${(error as Error).message}.`,
      "",
      { cause: error },
    );
  }
  try {
    const { size } = fstatSync(handle);
    const head = new Uint8Array(Math.min(size, MAX_HEADER_BYTES + 12));
    let got = 0;
    for (let n = 1; n > 0 && got < Math.min(head.length, 512); got += n)
      n = readSync(handle, head, got, head.length - got, got);
    const header = parseNpyHeader(head.subarray(0, got), file);
    checkedCount(header, readerOf(header, file).reader.bytes, size - header.offset, file);
    return header;
  } finally {
    closeSync(handle);
  }
}

const DESCR = new Map<unknown, string>([
  [Float32Array, "<f4"],
  [Float64Array, "<f8"],
  [Int8Array, "|i1"],
  [Uint8Array, "|u1"],
  [Uint8ClampedArray, "|u1"],
  [Int16Array, "<i2"],
  [Uint16Array, "<u2"],
  [Int32Array, "<i4"],
  [Uint32Array, "<u4"],
]);

/**
 * A `.npy` file's bytes, version 1, C order.
 * @throws ERR_AFFUSE_SHAPE when the shape does not fit the data
 */
export function encodeNpy(shape: readonly number[], data: NpyData | Uint8ClampedArray): Uint8Array {
  const count = shape.reduce((product, size) => product * size, 1);
  if (count !== data.length) {
    throw new AffuseError(
      "ERR_AFFUSE_SHAPE",
      `expected ${count} elements for shape [${shape.join(",")}], got ${data.length}.`,
    );
  }
  const tuple = shape.length === 1 ? `${shape[0]},` : shape.join(", ");
  let text = `{'descr': '${DESCR.get(data.constructor)}', 'fortran_order': False, 'shape': (${tuple}), }`;
  text = text.padEnd(Math.ceil((text.length + 11) / 64) * 64 - 11); // data starts at a multiple of 64
  const out = new Uint8Array(10 + text.length + 1 + data.byteLength);
  out.set(Buffer.from(`\x93NUMPY\x01\x00`, "latin1"));
  new DataView(out.buffer).setUint16(8, text.length + 1, true);
  out.set(Buffer.from(`${text}\n`, "latin1"), 10);
  out.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), 11 + text.length);
  return out;
}

/** Writes a `.npy` file atomically. */
export function writeNpy(file: string, shape: readonly number[], data: NpyData | Uint8ClampedArray): void {
  writeFileAtomic(file, encodeNpy(shape, data), "the array");
}
