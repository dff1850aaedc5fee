// Files that are damaged, cut off, lying about their size or malicious: each must give its coded error,
// quickly and without large allocations.
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { zipSync } from "fflate";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { z } from "zod";
import { encodeNpy, parseNpy, readNpyFloat32, readNpyHeader } from "../../lib/data/npy.ts";
import { readNpz, readPickledNpz, writeNpz } from "../../lib/data/npz.ts";
import { encodeSafetensors, parseSafetensors } from "../../lib/data/safetensors.ts";
import { unpickle } from "../../lib/data/unpickle.ts";
import { parseYaml } from "../../lib/data/yaml.ts";

const folder = mkdtempSync(path.join(tmpdir(), "affuse-hostile-"));
test.after(() => rmSync(folder, { recursive: true, force: true }));
process.on("exit", () => rmSync(folder, { recursive: true, force: true }));

function codeOf(f: () => unknown): string {
  const before = process.memoryUsage().arrayBuffers;
  try {
    f();
  } catch (error) {
    const grown = process.memoryUsage().arrayBuffers - before;
    assert.ok(grown < 50e6, `allocated ${grown} bytes`);
    const { code, message } = error as { code?: string; message: string };
    if (!code?.startsWith("ERR_AFFUSE_")) throw error;
    assert.ok(message.length > 10);
    return code;
  }
  return "none";
}

/** A .npy file with any header text. */
function npy(header: string, payload = 0, version = 1): Uint8Array {
  const text = Buffer.from(`${header}\n`, "latin1");
  const head = Buffer.alloc(version === 1 ? 10 : 12);
  head.write("\x93NUMPY", 0, "latin1");
  head[6] = version;
  if (version === 1) head.writeUInt16LE(text.length, 8);
  else head.writeUInt32LE(text.length, 8);
  return Buffer.concat([head, text, Buffer.alloc(payload)]);
}

const F4 = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }";
const npyTable: [string, Uint8Array, string][] = [
  ["empty", new Uint8Array(0), "ERR_AFFUSE_FORMAT"],
  ["text", Buffer.from("hello world, not an array"), "ERR_AFFUSE_FORMAT"],
  ["signature only", Buffer.from("\x93NUMPY", "latin1"), "ERR_AFFUSE_FORMAT"],
  ["version 9", npy(F4, 24, 9), "ERR_AFFUSE_FORMAT"],
  ["header cut off", npy(F4, 0).subarray(0, 30), "ERR_AFFUSE_FORMAT"],
  ["data cut off", npy(F4, 23), "ERR_AFFUSE_FORMAT"],
  ["data too long", npy(F4, 25), "ERR_AFFUSE_FORMAT"],
  [
    "huge header length",
    Buffer.from([...Buffer.from("\x93NUMPY\x02\x00", "latin1"), 255, 255, 255, 255, 123]),
    "ERR_AFFUSE_FORMAT",
  ],
  ["huge shape", npy(F4.replace("(2, 3)", "(999999999, 999999999)"), 24), "ERR_AFFUSE_FORMAT"],
  [
    "overflowing shape",
    npy(F4.replace("(2, 3)", "(4294967296, 4294967296, 4294967296)"), 24),
    "ERR_AFFUSE_FORMAT",
  ],
  ["shape too long a number", npy(F4.replace("(2, 3)", "(99999999999999999999,)"), 24), "ERR_AFFUSE_FORMAT"],
  ["negative shape", npy(F4.replace("(2, 3)", "(-2, -3)"), 24), "ERR_AFFUSE_FORMAT"],
  ["fractional shape", npy(F4.replace("(2, 3)", "(2.5,)"), 24), "ERR_AFFUSE_FORMAT"],
  ["rank 100", npy(F4.replace("(2, 3)", `(${"1,".repeat(100)})`), 4), "ERR_AFFUSE_FORMAT"],
  [
    "code in the header",
    npy(F4.replace("(2, 3)", "__import__('os').system('true')"), 24),
    "ERR_AFFUSE_FORMAT",
  ],
  ["missing key", npy("{'descr': '<f4', 'shape': (2, 3), }", 24), "ERR_AFFUSE_FORMAT"],
  [
    "repeated key",
    npy("{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }", 24),
    "ERR_AFFUSE_FORMAT",
  ],
  [
    "unknown key",
    npy("{'descr': '<f4', 'x': 1, 'fortran_order': False, 'shape': (2, 3), }", 24),
    "ERR_AFFUSE_FORMAT",
  ],
  ["no dictionary", npy("[1, 2]", 24), "ERR_AFFUSE_FORMAT"],
  ["objects", npy(F4.replace("<f4", "|O"), 24), "ERR_AFFUSE_PICKLE"],
  ["strings", npy(F4.replace("<f4", "<U3"), 72), "ERR_AFFUSE_DTYPE"],
  ["complex", npy(F4.replace("<f4", "<c8"), 48), "ERR_AFFUSE_DTYPE"],
  ["dates", npy(F4.replace("<f4", "<M8[s]"), 48), "ERR_AFFUSE_DTYPE"],
  ["structured", npy(F4.replace("'<f4'", "[('a', '<f4')]"), 24), "ERR_AFFUSE_DTYPE"],
];
for (const [name, bytes, code] of npyTable) {
  test(`npy: ${name}`, () => {
    assert.is(
      codeOf(() => parseNpy(bytes, "x.npy")),
      code,
    );
    const file = path.join(folder, "hostile.npy");
    writeFileSync(file, bytes);
    assert.is(
      codeOf(() => readNpyHeader(file)),
      code,
    );
  });
}

test("npy: every single-byte change of a good file is read or refused with a code", () => {
  const good = encodeNpy([2, 3], Float32Array.of(1, 2, 3, 4, 5, 6));
  for (let i = 0; i < good.length; i++) {
    for (const value of [0, 0x27, 0x39, 0xff]) {
      const bytes = good.slice();
      bytes[i] = value;
      codeOf(() => parseNpy(bytes, "x.npy")); // throws here if an uncoded error escapes
    }
  }
});

/** Small programs run by NumPy write the files that real users bring. */
const python = (script: string) => execFileSync("python3", ["-c", script, folder], { stdio: "pipe" });
let numpy = true;
try {
  python("import numpy");
} catch {
  numpy = false; // the other tests stand on their own; this one needs a NumPy to compare with
}

if (numpy) {
  test("npy: NumPy's own files of every type, order, endianness and version", () => {
    python(`
import numpy as np, sys, os
d = sys.argv[1]
a = (np.arange(24).reshape(2, 3, 4) - 5)
for t in ['f2','f4','f8','i1','i2','i4','i8','>f4','>f8','>i4','>i8','>f2']:
    np.save(os.path.join(d, 'c_' + t.replace('>', 'be') + '.npy'), a.astype(t))
    np.save(os.path.join(d, 'f_' + t.replace('>', 'be') + '.npy'), np.asfortranarray(a.astype(t)))
for t in ['u1','u2','u4','u8','>u2']:
    np.save(os.path.join(d, 'c_' + t.replace('>', 'be') + '.npy'), (a + 5).astype(t))
np.save(os.path.join(d, 'bool.npy'), a > 3)
np.save(os.path.join(d, 'scalar.npy'), np.float32(3.5))
np.save(os.path.join(d, 'empty.npy'), np.zeros((0, 7), np.float32))
for v in [(1,0),(2,0),(3,0)]:
    with open(os.path.join(d, 'v%d.npy' % v[0]), 'wb') as f: np.lib.format.write_array(f, a.astype('f4'), version=v)
`);
    const want = Array.from({ length: 24 }, (_, i) => i - 5);
    for (const order of ["c", "f"]) {
      for (const type of ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "bef4", "bef8", "bei4", "bei8", "bef2"]) {
        const array = readNpyFloat32(path.join(folder, `${order}_${type}.npy`));
        assert.equal(array.shape, [2, 3, 4]);
        assert.equal([...array.data], want, `${order}_${type}`);
      }
    }
    for (const type of ["u1", "u2", "u4", "u8", "beu2"]) {
      assert.equal(
        [...readNpyFloat32(path.join(folder, `c_${type}.npy`)).data],
        want.map((x) => x + 5),
        type,
      );
    }
    assert.equal(
      [...readNpyFloat32(path.join(folder, "bool.npy")).data],
      want.map((x) => (x > 3 ? 1 : 0)),
    );
    assert.equal(readNpyFloat32(path.join(folder, "scalar.npy")), { shape: [], data: Float32Array.of(3.5) });
    assert.equal(readNpyFloat32(path.join(folder, "empty.npy")).shape, [0, 7]);
    for (const v of [1, 2, 3]) assert.equal([...readNpyFloat32(path.join(folder, `v${v}.npy`)).data], want);
  });

  test("NumPy reads what is written here", () => {
    writeFileSync(path.join(folder, "ours.npy"), encodeNpy([2, 3], Float32Array.of(1, 2, 3, 4, 5, 6.5)));
    writeNpz(path.join(folder, "ours.npz"), {
      a: { shape: [3], data: Int32Array.of(1, 2, 3) },
      b: { shape: [1, 1], data: Float64Array.of(0.1) },
    });
    python(`
import numpy as np, sys
a = np.load(sys.argv[1] + '/ours.npy'); assert a.dtype == np.float32 and a.shape == (2, 3) and a[1, 2] == 6.5
z = np.load(sys.argv[1] + '/ours.npz'); assert list(z['a']) == [1, 2, 3] and z['b'][0, 0] == 0.1
`);
    assert.equal(readNpz(path.join(folder, "ours.npz")).get("a")?.data, Int32Array.of(1, 2, 3));
  });

  test("npz: MER's pickled label file through the allow-list, with any pickle protocol", () => {
    for (const protocol of [2, 3, 4, 5]) {
      python(`
import numpy as np, sys, pickle, zipfile, io
corpus = {'sample_%d' % i: {'emo': e, 'val': v} for i, (e, v) in enumerate([('happy', 1.5), ('sad', np.float64(-2.25)), ('neutral', -10)])}
def member(obj):
    f = io.BytesIO(); a = np.array(obj, dtype=object)
    np.lib.format.write_array_header_1_0(f, np.lib.format.header_data_from_array_1_0(a)); pickle.dump(a, f, protocol=${protocol}); return f.getvalue()
with zipfile.ZipFile(sys.argv[1] + '/label.npz', 'w', zipfile.ZIP_DEFLATED) as z:
    z.writestr('train_corpus.npy', member(corpus)); z.writestr('test3_corpus.npy', member({'x': {'emo': 'angry'}}))
`);
      const members = readPickledNpz(path.join(folder, "label.npz"));
      const train = members.get("train_corpus") as Map<string, Map<string, unknown>>;
      assert.equal([...train.keys()], ["sample_0", "sample_1", "sample_2"]);
      assert.is(train.get("sample_1")?.get("val"), -2.25);
      assert.is(train.get("sample_2")?.get("val"), -10);
      assert.is(
        codeOf(() => readNpz(path.join(folder, "label.npz"))),
        "ERR_AFFUSE_PICKLE",
      );
    }
  });

  test("a pickle that would run a command is refused, and the command does not run", () => {
    python(`
import pickle, sys, os
class Evil:
    def __reduce__(self): return (os.system, ('touch ' + sys.argv[1] + '/owned',))
for p in range(0, 6): open(sys.argv[1] + '/evil%d' % p, 'wb').write(pickle.dumps({'a': Evil()}, protocol=p))
`);
    for (let p = 0; p < 6; p++) {
      const bytes = new Uint8Array(execFileSync("cat", [path.join(folder, `evil${p}`)]));
      assert.is(
        codeOf(() => unpickle(bytes, "evil")),
        "ERR_AFFUSE_PICKLE",
        `protocol ${p}`,
      );
    }
    assert.throws(() => execFileSync("ls", [path.join(folder, "owned")], { stdio: "pipe" }));
  });
}

test("pickle: rubbish and cut-off input give codes", () => {
  const good = Buffer.from("8004951a000000000000007d94288c0161944b018c016294473ff8000000000000752e", "hex");
  assert.equal(
    unpickle(good, "x"),
    new Map<string, number>([
      ["a", 1],
      ["b", 1.5],
    ]) as never,
  );
  for (let n = 0; n < good.length; n++)
    assert.ok(codeOf(() => unpickle(good.subarray(0, n), "x")).startsWith("ERR_AFFUSE_"));
  for (let i = 0; i < good.length; i++) {
    for (let value = 0; value < 256; value += 5) {
      const bytes = Uint8Array.from(good);
      bytes[i] = value;
      codeOf(() => unpickle(bytes, "x"));
    }
  }
});

test("npz: bombs, lies and damage", () => {
  const file = path.join(folder, "bomb.npz");
  const zeros = new Uint8Array(64 * 1024 * 1024);
  const bomb = zipSync({ "a.npy": [zeros, { level: 9 }] });
  writeFileSync(file, bomb);
  assert.is(
    codeOf(() => readNpz(file, { maxBytes: 1024 * 1024 })),
    "ERR_AFFUSE_TOO_LARGE",
  );
  const lie = zipSync({ "a.npy": [encodeNpy([1], Float32Array.of(1)), { level: 0 }] });
  const at = Buffer.from(lie).lastIndexOf(Buffer.from("PK\x01\x02", "latin1"));
  new DataView(lie.buffer, lie.byteOffset).setUint32(at + 24, 0x3fffffff, true); // claims 1 GiB
  writeFileSync(file, lie);
  assert.is(
    codeOf(() => readNpz(file)),
    "ERR_AFFUSE_FORMAT",
  );
  const many = zipSync(
    Object.fromEntries(Array.from({ length: 30 }, (_, i) => [`${i}.npy`, new Uint8Array(0)])),
  );
  writeFileSync(file, many);
  assert.is(
    codeOf(() => readNpz(file, { maxMembers: 10 })),
    "ERR_AFFUSE_TOO_LARGE",
  );
  for (const bytes of [
    new Uint8Array(0),
    Buffer.from("PK rubbish"),
    bomb.subarray(0, bomb.length - 30),
    bomb.subarray(100),
  ]) {
    writeFileSync(file, bytes);
    assert.is(
      codeOf(() => readNpz(file)),
      "ERR_AFFUSE_FORMAT",
    );
  }
});

/** A safetensors file with any header. */
function safe(header: unknown, payload = 0, length?: number): Uint8Array {
  const text = Buffer.from(typeof header === "string" ? header : JSON.stringify(header));
  const head = Buffer.alloc(8);
  head.writeBigUInt64LE(BigInt(length ?? text.length));
  return Buffer.concat([head, text, Buffer.alloc(payload)]);
}
const t = (begin: number, end: number, shape: unknown = [(end - begin) / 4], dtype: unknown = "F32") => ({
  dtype,
  shape,
  data_offsets: [begin, end],
});
const safeTable: [string, Uint8Array, string][] = [
  ["empty", new Uint8Array(0), "ERR_AFFUSE_FORMAT"],
  ["short", new Uint8Array(7), "ERR_AFFUSE_FORMAT"],
  ["huge header", safe("{}", 0, 2 ** 50), "ERR_AFFUSE_FORMAT"],
  ["header beyond the file", safe("{}", 0, 100), "ERR_AFFUSE_FORMAT"],
  ["not JSON", safe("{nope}"), "ERR_AFFUSE_FORMAT"],
  ["not UTF-8", safe(`{"a\xff"`, 0), "ERR_AFFUSE_FORMAT"],
  ["an array", safe("[]"), "ERR_AFFUSE_FORMAT"],
  ["deep nesting", safe("[".repeat(100000)), "ERR_AFFUSE_FORMAT"],
  ["unknown type", safe({ a: t(0, 8, [2], "F33") }, 8), "ERR_AFFUSE_DTYPE"],
  ["inherited type", safe({ a: t(0, 8, [2], "constructor") }, 8), "ERR_AFFUSE_DTYPE"],
  ["no shape", safe({ a: { dtype: "F32", data_offsets: [0, 8] } }, 8), "ERR_AFFUSE_FORMAT"],
  ["negative shape", safe({ a: t(0, 8, [-2]) }, 8), "ERR_AFFUSE_FORMAT"],
  ["overflowing shape", safe({ a: t(0, 8, [2 ** 52, 2 ** 52]) }, 8), "ERR_AFFUSE_FORMAT"],
  ["shape against bytes", safe({ a: t(0, 8, [3]) }, 8), "ERR_AFFUSE_FORMAT"],
  ["outside the file", safe({ a: t(0, 16) }, 8), "ERR_AFFUSE_FORMAT"],
  ["end before begin", safe({ a: t(8, 0, [0]) }, 8), "ERR_AFFUSE_FORMAT"],
  ["overlap", safe({ a: t(0, 8), b: t(4, 12) }, 12), "ERR_AFFUSE_FORMAT"],
  ["hole", safe({ a: t(0, 4), b: t(8, 12) }, 12), "ERR_AFFUSE_FORMAT"],
  ["rest after the last", safe({ a: t(0, 4) }, 8), "ERR_AFFUSE_FORMAT"],
  ["cut off", safe({ a: t(0, 8) }, 7), "ERR_AFFUSE_FORMAT"],
  ["metadata of numbers", safe({ __metadata__: { a: 1 } }), "ERR_AFFUSE_FORMAT"],
];
for (const [name, bytes, code] of safeTable) {
  test(`safetensors: ${name}`, () => {
    assert.is(
      codeOf(() => parseSafetensors(bytes, "x.safetensors")),
      code,
    );
  });
}

test("safetensors: round trip of every type, odd order, metadata, hostile names", () => {
  const tensors = [
    ["bytes", { shape: [3], data: Uint8Array.of(1, 2, 3) }],
    ["__proto__", { shape: [2, 1], data: Float32Array.of(1.5, -0.25) }],
    ["d", { shape: [1], data: Float64Array.of(Math.PI) }],
    ["i", { shape: [], data: Int32Array.of(-7) }],
    ["l", { shape: [1], data: BigInt64Array.of(-(2n ** 60n)) }],
    ["none", { shape: [0, 5], data: new Float32Array(0) }],
  ] as const;
  const bytes = Buffer.concat(encodeSafetensors(tensors, { classes: '["a"]', __proto__x: "y" }));
  const read = parseSafetensors(bytes, "x");
  for (const [name, { shape, data }] of tensors) {
    assert.equal(read.tensors.get(name)?.shape, [...shape], name);
    assert.equal(read.tensors.get(name)?.data, data, name);
  }
  assert.is(read.metadata.classes, '["a"]');
  assert.equal(Buffer.concat(encodeSafetensors(tensors, { classes: '["a"]', __proto__x: "y" })), bytes);
  const half = safe({ h: t(0, 4, [2], "F16"), b: t(4, 8, [2], "BF16") }, 8);
  half.set([0, 0x3c, 0, 0xc0, 0x80, 0x3f, 0, 0xc0], half.length - 8);
  const floats = parseSafetensors(half, "x").tensors;
  assert.equal([...(floats.get("h")?.data ?? [])], [1, -2]);
  assert.equal([...(floats.get("b")?.data ?? [])], [1, -2]);
});

const schema = z.strictObject({
  epochs: z.int().optional(),
  model: z.strictObject({ dropout: z.number() }).optional(),
  list: z.array(z.number()).optional(),
});
const bombLines = ["a: &a [x,x,x,x,x,x,x,x,x]"];
for (let i = 1; i < 9; i++)
  bombLines.push(
    `${"abcdefghij"[i]}: &${"abcdefghij"[i]} [${Array(9)
      .fill(`*${"abcdefghij"[i - 1]}`)
      .join(",")}]`,
  );
const yamlTable: [string, string, RegExp][] = [
  ["unknown key", "epochs: 3\nepocs: 4\n", /line 2: unknown key epocs/],
  ["unknown nested key", "model:\n  dropout: 0.1\n  droput: 0.3\n", /line 3: unknown key model\.droput/],
  ["wrong type", "epochs: 3\nmodel:\n  dropout: lots\n", /line 3: model\.dropout/],
  ["wrong item", "list: [1, 2, x]\n", /line 1: list\.2/],
  ["missing key", "model: {}\n", /line 1: model\.dropout/],
  ["syntax", "epochs: [1, 2\nmodel: 3\n", /line \d/],
  ["duplicate key", "epochs: 1\nepochs: 2\n", /line 2/],
  ["not a mapping", "- 1\n- 2\n", /top level/],
  ["alias bomb", bombLines.join("\n"), /alias/i],
  ["code tag", "epochs: !!js/function 'function () {}'\n", /tag/i],
  ["deep flow", "[".repeat(100000), /nesting/],
  ["deep block", "- ".repeat(5000), /nesting/],
];
for (const [name, text, message] of yamlTable) {
  test(`yaml: ${name}`, () => {
    try {
      parseYaml(text, "x.yaml", schema);
    } catch (error) {
      assert.is((error as { code: string }).code, "ERR_AFFUSE_CONFIG");
      assert.match((error as Error).message, message);
      return;
    }
    assert.unreachable();
  });
}
test("yaml: prototype keys stay data and are refused", () => {
  assert.is(
    codeOf(() => parseYaml("__proto__: {polluted: 1}\n", "x", schema)),
    "ERR_AFFUSE_CONFIG",
  );
  assert.is(({} as Record<string, unknown>).polluted, undefined);
});

test.run();
