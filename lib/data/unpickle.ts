/**
 * Reads the one kind of pickle that public label files need: dictionaries, lists, strings and numbers,
 * wrapped in a NumPy object array (MER 2023's `label-6way.npz`, spec section 3).
 *
 * It is no general unpickler. A pickle names functions to be called; here the names are compared with a short
 * list and stand for nothing but data: nothing is looked up, imported or called. Anything else is
 * ERR_AFFUSE_PICKLE. Work and memory are bounded by the input's length.
 */
import { AffuseError } from "../errors.ts";

/** What comes out. Dictionaries become Maps, so no key can touch a prototype. */
export type Pickled = null | boolean | number | string | Uint8Array | Pickled[] | Map<Pickled, Pickled>;

const ALLOWED = new Set([
  "numpy.core.multiarray _reconstruct",
  "numpy._core.multiarray _reconstruct",
  "numpy.core.multiarray scalar",
  "numpy._core.multiarray scalar",
  "numpy ndarray",
  "numpy dtype",
  "_codecs encode",
]);

const MARK = Symbol("mark");
class Global {
  readonly name: string;
  constructor(name: string) {
    this.name = name;
  }
}
class DType {
  readonly code: string;
  constructor(code: string) {
    this.code = code;
  }
}
class ObjectArray {
  items: Pickled = null;
}
type Item = Pickled | Global | DType | ObjectArray | typeof MARK | Item[];

/**
 * Reads one pickle.
 * @param name for messages
 * @throws ERR_AFFUSE_PICKLE forbidden content, ERR_AFFUSE_FORMAT damage
 */
export function unpickle(bytes: Uint8Array, name: string): Pickled {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const stack: Item[] = [];
  const memo = new Map<number, Item>();
  let at = 0;
  const damaged = (what: string) =>
    new AffuseError("ERR_AFFUSE_FORMAT", `${name}: the pickle is damaged (${what}).`);
  const forbidden = (what: string) =>
    new AffuseError(
      "ERR_AFFUSE_PICKLE",
      `${name}: the pickle holds ${what}, which is refused; only dictionaries, lists, strings and numbers are read.`,
      "Convert it to CSV with columns name,discrete,valence.",
    );
  const take = (count: number): Uint8Array => {
    if (count < 0 || at + count > bytes.length) throw damaged("cut off");
    at += count;
    return bytes.subarray(at - count, at);
  };
  const u8 = () => take(1)[0] as number;
  const u16 = () => view.getUint16(take(2).byteOffset - bytes.byteOffset, true);
  const i32 = () => view.getInt32(take(4).byteOffset - bytes.byteOffset, true);
  const u32 = () => view.getUint32(take(4).byteOffset - bytes.byteOffset, true);
  const u64 = () => Number(view.getBigUint64(take(8).byteOffset - bytes.byteOffset, true));
  const text = (count: number) => Buffer.from(take(count)).toString("utf8");
  const line = () => {
    const end = bytes.indexOf(10, at);
    if (end < 0) throw damaged("cut off");
    const out = Buffer.from(bytes.subarray(at, end)).toString("latin1");
    at = end + 1;
    return out;
  };
  const pop = (): Item => {
    const item = stack.pop();
    if (item === undefined) throw damaged("empty stack");
    return item;
  };
  const popMarked = (): Item[] => {
    const mark = stack.lastIndexOf(MARK);
    if (mark < 0) throw damaged("no mark");
    const items = stack.splice(mark + 1);
    stack.pop();
    return items;
  };
  const global = (module: Item, attribute: Item): Global => {
    const wanted = `${String(module)} ${String(attribute)}`;
    if (!ALLOWED.has(wanted)) throw forbidden(`the Python object ${wanted.replace(" ", ".").slice(0, 100)}`);
    return new Global(wanted.split(" ")[1] as string);
  };
  const long = (count: number): number => {
    let value = 0n;
    const raw = take(count);
    for (let i = count - 1; i >= 0; i--) value = (value << 8n) | BigInt(raw[i] as number);
    return Number(count ? BigInt.asIntN(count * 8, value) : 0n);
  };
  const setItems = (items: Item[]) => {
    const target = stack.at(-1);
    if (!(target instanceof Map) || items.length % 2) throw damaged("no dictionary to fill");
    for (let i = 0; i < items.length; i += 2) target.set(items[i] as Pickled, items[i + 1] as Pickled);
  };
  const append = (items: Item[]) => {
    const target = stack.at(-1);
    if (!Array.isArray(target)) throw damaged("no list to fill");
    for (const item of items) (target as Item[]).push(item);
  };

  for (;;) {
    const op = u8();
    switch (op) {
      case 0x80:
        u8();
        break; // PROTO
      case 0x95:
        take(8);
        break; // FRAME
      case 0x2e: {
        // STOP
        const result = pop();
        return (result instanceof ObjectArray ? result.items : result) as Pickled;
      }
      case 0x28:
        stack.push(MARK);
        break;
      case 0x30:
        pop();
        break;
      case 0x4e:
        stack.push(null);
        break;
      case 0x88:
        stack.push(true);
        break;
      case 0x89:
        stack.push(false);
        break;
      case 0x4a:
        stack.push(i32());
        break;
      case 0x4b:
        stack.push(u8());
        break;
      case 0x4d:
        stack.push(u16());
        break;
      case 0x8a:
        stack.push(long(u8()));
        break;
      case 0x47:
        stack.push(view.getFloat64(take(8).byteOffset - bytes.byteOffset, false));
        break;
      case 0x58:
        stack.push(text(u32()));
        break;
      case 0x8c:
        stack.push(text(u8()));
        break;
      case 0x8d:
        stack.push(text(u64()));
        break;
      case 0x42:
        stack.push(take(u32()));
        break;
      case 0x43:
        stack.push(take(u8()));
        break;
      case 0x8e:
        stack.push(take(u64()));
        break;
      case 0x7d:
        stack.push(new Map());
        break;
      case 0x5d:
      case 0x29:
        stack.push([]);
        break;
      case 0x85:
        stack.push([pop()]);
        break;
      case 0x86: {
        const b = pop();
        stack.push([pop(), b]);
        break;
      }
      case 0x87: {
        const c = pop();
        const b = pop();
        stack.push([pop(), b, c]);
        break;
      }
      case 0x74:
        stack.push(popMarked());
        break;
      case 0x64: {
        const items = popMarked();
        stack.push(new Map());
        setItems(items);
        break;
      }
      case 0x6c:
        stack.push(popMarked());
        break;
      case 0x73: {
        const value = pop();
        setItems([pop(), value]);
        break;
      }
      case 0x75:
        setItems(popMarked());
        break;
      case 0x61:
        append([pop()]);
        break;
      case 0x65:
        append(popMarked());
        break;
      case 0x94:
        memo.set(memo.size, stack.at(-1) as Item);
        break;
      case 0x71:
        memo.set(u8(), stack.at(-1) as Item);
        break;
      case 0x72:
        memo.set(u32(), stack.at(-1) as Item);
        break;
      case 0x68:
      case 0x6a: {
        const item = memo.get(op === 0x68 ? u8() : u32());
        if (item === undefined) throw damaged("unknown memo entry");
        stack.push(item);
        break;
      }
      case 0x63: {
        const module = line();
        stack.push(global(module, line()));
        break;
      }
      case 0x93: {
        const attribute = pop();
        stack.push(global(pop(), attribute));
        break;
      }
      case 0x52: {
        const args = pop();
        stack.push(reduce(pop(), args));
        break;
      }
      case 0x62: {
        const state = pop();
        build(stack.at(-1), state);
        break;
      }
      default:
        throw forbidden(`instruction 0x${op.toString(16)}`);
    }
  }

  function reduce(callable: Item, args: Item): Item {
    if (!(callable instanceof Global) || !Array.isArray(args)) throw forbidden("a call");
    if (callable.name === "_reconstruct") return new ObjectArray();
    if (callable.name === "dtype" && typeof args[0] === "string") return new DType(args[0]);
    if (callable.name === "encode" && typeof args[0] === "string") return Buffer.from(args[0], "latin1");
    if (callable.name === "scalar" && args[0] instanceof DType) return scalar(args[0].code, args[1] as Item);
    throw forbidden(`a call of ${callable.name}`);
  }

  /** A NumPy scalar: little-endian bytes of a type that holds a number or a string. */
  function scalar(code: string, raw: Item): Pickled {
    if (!(raw instanceof Uint8Array)) throw damaged("a scalar without bytes");
    const data = new DataView(raw.buffer, raw.byteOffset, raw.byteLength);
    if (code === "f8" && raw.length === 8) return data.getFloat64(0, true);
    if (code === "f4" && raw.length === 4) return data.getFloat32(0, true);
    if (code === "i8" && raw.length === 8) return Number(data.getBigInt64(0, true));
    if (code === "i4" && raw.length === 4) return data.getInt32(0, true);
    if (/^U\d+$/.test(code) && raw.length % 4 === 0) {
      let out = "";
      for (let i = 0; i < raw.length; i += 4) {
        const point = data.getUint32(i, true);
        if (point > 0x10ffff) throw damaged("a bad character");
        if (point) out += String.fromCodePoint(point);
      }
      return out;
    }
    throw forbidden(`a NumPy scalar of type ${code}`);
  }

  function build(target: Item | undefined, state: Item): void {
    if (target instanceof DType) return; // byte order and flags: only native little-endian types are read
    if (!(target instanceof ObjectArray) || !Array.isArray(state) || state.length !== 5)
      throw forbidden("an object with state");
    const [, shape, type, , items] = state as Item[];
    if (
      !(type instanceof DType) ||
      !/^O8?$/.test(type.code) ||
      !Array.isArray(items) ||
      !Array.isArray(shape)
    ) {
      throw forbidden("an array that is not of objects");
    }
    target.items = (shape.length === 0 ? items[0] : items) as Pickled;
  }
}
