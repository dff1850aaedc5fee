// What users can get wrong about an operator: each mistake has its code, and the message says which tensor or
// attribute, what was expected and what came. The result must be an error, never a crash and never a number.
import { test } from "uvu";
import * as assert from "uvu/assert";
import type { AttributeValue, HostTensor, OperatorInfo } from "../../lib/native/index.ts";
import { type Case, casesOf, entryOf } from "./cases.ts";
import { backwardInputs, differentiable, operator, operators, addon } from "./suite.ts";
import { type Inputs, integers, type Values } from "./run.ts";

type Given = Record<string, HostTensor | null>;

function host(values: Values): HostTensor {
  const { shape, data } = values;
  if (data instanceof Int32Array) return { dtype: "i32", shape, data };
  return { dtype: "f32", shape, data: Float32Array.from(data) };
}

/** A case with every input it can have and no empty dimension, or the nearest to it. */
function typical(info: OperatorInfo): Case {
  const score = (c: Case) =>
    Object.keys(c.inputs).length * 10 -
    (Object.values(c.inputs).some((v) => v.shape.length === 0 || v.shape.includes(0)) ? 1000 : 0) -
    (Object.values(c.inputs).some((v) => v.data.length > 100000) ? 100 : 0) +
    Math.min(3, ...Object.values(c.inputs).map((v) => Math.max(0, ...v.shape)));
  return casesOf(info).reduce((best, c) => (score(c) > score(best) ? c : best));
}

const forwardOf = (info: OperatorInfo) => operator(info.name.replace(/\.backward$/, ""));

function given(info: OperatorInfo, c: Case): Given {
  const forward = forwardOf(info);
  const inputs: Inputs =
    forward === info ? c.inputs : backwardInputs(addon.call, forward, c, true, differentiable(forward));
  return Object.fromEntries(Object.entries(inputs).map(([name, values]) => [name, host(values)]));
}

function call(
  info: OperatorInfo,
  inputs: Given,
  attributes: Record<string, AttributeValue>,
  device = "cpu",
): void {
  addon.call(
    device,
    info.name,
    info.inputs.map((rule) => inputs[rule.name] ?? null),
    attributes,
    info.outputs.map(
      (rule) => !rule.optional && (!rule.name.startsWith("d") || Boolean(inputs[rule.name.slice(1)])),
    ),
  );
}

/** The letters of a tensor's dimensions: "[B,J,A] | [A]" of rank 1 → A; what "..." stands for has none. */
function lettersOf(text: string, rank: number): string[] {
  for (const [, inside] of text.matchAll(/\[([^\]]*)\]/g)) {
    const letters = (inside as string).split(",").map((letter) => letter.trim());
    if (letters.length === rank && !letters.includes("...")) return letters;
    if (letters[0] === "...") return [...Array(rank - letters.length + 1).fill("..."), ...letters.slice(1)];
  }
  return Array(rank).fill("");
}

function refused(code: string, mentions: string[], action: () => void): void {
  try {
    action();
  } catch (error) {
    const { code: got, message } = error as { code?: string; message: string };
    assert.is(got, code, `expected ${code}, got ${got}: ${message}`);
    for (const word of mentions) assert.ok(message.includes(word), `"${word}" is not in: ${message}`);
    assert.match(message, /expected .*got /s);
    return;
  }
  assert.unreachable(`expected ${code}, but it ran`);
}

for (const info of operators) {
  const c = typical(forwardOf(info));
  const inputs = given(info, c);
  const attributes = c.attributes;

  test(`${info.name}: as it should be`, () => call(info, inputs, attributes));

  test(`${info.name}: no output wanted`, () => {
    const list = info.inputs.map((rule) => inputs[rule.name] ?? null);
    const results = addon.call("cpu", info.name, list, attributes, []);
    assert.ok(results.every((result) => result === null));
  });

  test(`${info.name}: missing inputs`, () => {
    for (const rule of info.inputs) {
      if (rule.optional) continue;
      refused("ERR_AFFUSE_MISSING", [rule.name, info.name], () =>
        call(info, { ...inputs, [rule.name]: null }, attributes),
      );
    }
    if (!info.name.endsWith(".backward")) return;
    const none = Object.fromEntries(differentiable(forwardOf(info)).map((name) => [`d${name}`, null]));
    refused("ERR_AFFUSE_MISSING", Object.keys(none), () => call(info, { ...inputs, ...none }, attributes));
  });

  test(`${info.name}: wrong element types`, () => {
    for (const rule of info.inputs) {
      const tensor = inputs[rule.name];
      if (!tensor) continue;
      const wrong: HostTensor =
        rule.dtype === "i32"
          ? { ...tensor, dtype: "f32", data: Float32Array.from(tensor.data) }
          : { ...tensor, dtype: "i32", data: new Int32Array(tensor.data.length) };
      const [was, is] = rule.dtype === "i32" ? ["int32", "float32"] : ["float32", "int32"];
      refused("ERR_AFFUSE_DTYPE", [rule.name, was, is], () =>
        call(info, { ...inputs, [rule.name]: wrong }, attributes),
      );
      if (rule.dtype === "i32") continue;
      const wide: HostTensor = { ...tensor, dtype: "f64", data: Float64Array.from(tensor.data) };
      refused("ERR_AFFUSE_DTYPE", [rule.name, "float64"], () =>
        call(info, { ...inputs, [rule.name]: wide }, attributes),
      );
    }
  });

  test(`${info.name}: wrong ranks`, () => {
    for (const rule of info.inputs) {
      const tensor = inputs[rule.name];
      if (!tensor || rule.shape.includes("...") || tensor.shape.length > 4) continue;
      for (const shape of [[1, ...tensor.shape], tensor.shape.slice(1)]) {
        const n = shape.reduce((a, b) => a * b, 1);
        const Kind = tensor.data.constructor as Float32ArrayConstructor;
        const wrong = { ...tensor, shape, data: new Kind(n) };
        refused("ERR_AFFUSE_RANK", [rule.name, rule.shape, `[${shape}]`], () =>
          call(info, { ...inputs, [rule.name]: wrong }, attributes),
        );
      }
    }
  });

  test(`${info.name}: dimensions that do not fit together`, () => {
    const own = entryOf(forwardOf(info)).misfits;
    const derived = info.inputs
      .filter((rule) => rule.name.startsWith("d") && rule.name !== "data")
      .map((rule) => rule.name);
    const list = [
      ...own.filter(([name]) => !rule(info, name)?.doc.includes("never read")),
      ...(info.name.endsWith(".backward") ? derived.map((name) => [name, 0] as const) : []),
    ];
    for (const [name, dimension] of list) {
      const tensor = inputs[name];
      if (!tensor) continue;
      const shape = tensor.shape.map((n, d) => (d === dimension ? n + 1 : n));
      const Kind = tensor.data.constructor as Float32ArrayConstructor;
      const wrong = { ...tensor, shape, data: new Kind(shape.reduce((a, b) => a * b, 1)) };
      refused("ERR_AFFUSE_SHAPE", [name], () => call(info, { ...inputs, [name]: wrong }, attributes));
    }
  });

  test(`${info.name}: attributes`, () => {
    refused("ERR_AFFUSE_ATTRIBUTE", [info.name, "colour"], () =>
      call(info, inputs, { ...attributes, colour: 1 }),
    );
    for (const rule of info.attributes) {
      const wrong: AttributeValue[] = [];
      if (rule.kind === "real" || rule.kind === "integer") {
        if (rule.low > -1e299) wrong.push(rule.low - Math.max(1, Math.abs(rule.low)));
        if (rule.high < 1e299) wrong.push(rule.high + Math.max(1, Math.abs(rule.high)));
        wrong.push("one", true, Number.NaN);
        if (rule.kind === "integer") wrong.push(1.5);
      } else if (rule.kind === "choice") wrong.push("purple", 1, "");
      else if (rule.kind === "boolean") wrong.push("yes", 1);
      else wrong.push(-1, 1.5, -1n, "seed", 2 ** 60);
      for (const value of wrong)
        refused("ERR_AFFUSE_ATTRIBUTE", [rule.name], () =>
          call(info, inputs, { ...attributes, [rule.name]: value }),
        );
    }
  });

  test(`${info.name}: the work of shapes beyond all memory is refused or counted without overflow`, () => {
    const letters = info.inputs.map((r) => lettersOf(r.shape, inputs[r.name]?.shape.length ?? 0));
    const all = [...new Set(letters.flat())].filter((letter) => !/^\d+$/.test(letter));
    const work = (scale: (letter: string) => number) => {
      const shapes = info.inputs.map((r, i) => {
        const tensor = inputs[r.name];
        const shape = tensor?.shape.map((n, d) => n * scale(letters[i]?.[d] as string));
        return tensor && shape ? { dtype: tensor.dtype, shape } : null;
      });
      const { flops, bytes } = addon.cost(info.name, shapes, attributes);
      const made = addon.infer(info.name, shapes, attributes).filter((_, i) => !info.outputs[i]?.optional);
      const sum = [...shapes, ...made].reduce(
        (total, t) => total + (t ? t.shape.reduce((product, n) => product * n, 4) : 0),
        0,
      );
      return { flops, bytes, sum };
    };
    const least = work(() => 1).flops;
    let counted = 0;
    for (const one of all)
      for (const other of all)
        for (const power of [20, 33, 48])
          for (const first of [0, 2 ** power]) {
            const what = `${one} * ${first}, ${other} * 2^${power}`;
            try {
              const { flops, bytes, sum } = work((l) => (l === one ? first : l === other ? 2 ** power : 1));
              assert.ok(Math.abs(bytes - sum) <= 1e-9 * sum, `${what}: ${bytes} bytes, expected ${sum}`);
              assert.ok(
                Number.isFinite(flops) && flops >= (first === 0 ? 0 : least),
                `${what}: ${flops} FLOPs`,
              );
              counted++;
            } catch (error) {
              if ((error as { code?: string }).code !== "ERR_AFFUSE_SHAPE") throw error;
            }
          }
    assert.ok(counted > 0 || all.length === 0, "none counted");
  });
}

function rule(info: OperatorInfo, name: string) {
  return info.inputs.find((r) => r.name === name);
}

test("the range in a message is the one that holds, in full", () => {
  const x: HostTensor = { dtype: "f32", shape: [2], data: new Float32Array(2) };
  const moments = { p: x, g: x, m: x, v: x };
  for (const [name, inputs, attribute, value, range] of [
    ["dropout", { x }, "p", 1, "a number in [0, 1), got 1"],
    ["adam", moments, "beta1", 1, "a number in [0, 1), got 1"],
    ["adamw", moments, "beta2", 1, "a number in [0, 1), got 1"],
    ["dropout", { x }, "step", 2 ** 32, "an integer in [0, 4294967295], got 4294967296"],
    ["adam", moments, "step", 2 ** 53, "an integer in [1, 9007199254740991], got 9007199254740992"],
    ["adam", moments, "lr", -1, "a number in [0, 1e+30], got -1"],
  ] as const)
    refused("ERR_AFFUSE_ATTRIBUTE", [`attribute ${attribute} of ${name} as ${range}`], () =>
      call(operator(name), inputs, { [attribute]: value }),
    );
  call(operator("adam"), moments, { step: 2 ** 53 - 1 });
});

test("no items, and another dimension beyond all memory", () => {
  const empty = (...shape: number[]): HostTensor => ({ dtype: "f32", shape, data: new Float32Array(0) });
  const ones = (...shape: number[]): HostTensor => ({
    dtype: "f32",
    shape,
    data: new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(1),
  });
  const huge = 2 ** 33;
  for (const [name, inputs, gradients] of [
    [
      "ratio_attention.backward",
      { x: empty(0, huge, 4), q: ones(4), beta: ones(1), dc: empty(0, 4) },
      ["dq", "dbeta"],
    ],
    [
      "afg.backward",
      { x: empty(0, 0, 4), W: ones(2, 4), b: ones(2), q: empty(0, huge, 2), dc: empty(0, huge, 4) },
      ["dW", "db"],
    ],
    [
      "afg.backward",
      { x: empty(0, huge, 4), W: ones(2, 4), b: ones(2), u: ones(2), dc: empty(0, 1, 4) },
      ["dW", "db", "du"],
    ],
  ] as [string, Given, string[]][]) {
    const info = operator(name);
    const list = info.inputs.map((r) => inputs[r.name] ?? null);
    const wanted = info.outputs.map((r) => gradients.includes(r.name));
    const results = addon.call("cpu", name, list, {}, wanted);
    for (const [i, result] of results.entries())
      if (wanted[i])
        assert.ok(
          result?.data.every((v) => v === 0),
          `${name}: ${info.outputs[i]?.name}`,
        );
  }
});

test("an output beyond counting, of inputs within", () => {
  const wide = { dtype: "f32" as const, shape: [2 ** 40, 4] };
  for (const what of ["cost", "infer"] as const)
    refused("ERR_AFFUSE_SHAPE", ["output y of linear", "[1099511627776,1099511627776]"], () =>
      addon[what]("linear", [wide, wide], {}),
    );
});

test("lengths outside [0, T]", () => {
  let seen = 0;
  for (const info of operators) {
    const lengths = rule(info, "lengths");
    if (!lengths) continue;
    seen++;
    const c = casesOf(forwardOf(info)).find(
      (x) => x.inputs.lengths && (x.inputs.x?.shape[0] ?? 0) >= 2,
    ) as Case;
    const inputs = given(info, c);
    const [B, T] = (c.inputs.x as Values).shape as [number, number];
    for (const bad of [-1, T + 1, 2147483647, -2147483648]) {
      const wrong = host(integers([B], (b) => (b === 1 ? bad : T)));
      for (const device of ["cpu", "reference"])
        refused("ERR_AFFUSE_LENGTH", ["lengths[1]", `${T}`, `${bad}`], () =>
          call(info, { ...inputs, lengths: wrong }, c.attributes, device),
        );
    }
  }
  assert.ok(seen >= 4, `${seen} operators with lengths`);
});

test("widths outside [0, W]", () => {
  let seen = 0;
  for (const info of operators) {
    if (!rule(info, "widths")) continue;
    seen++;
    const c = casesOf(forwardOf(info)).find(
      (x) => x.inputs.widths && x.attributes.layout === "nhwc" && (x.inputs.x?.shape[0] ?? 0) >= 2,
    ) as Case;
    const inputs = given(info, c);
    const [B, , W] = (c.inputs.x as Values).shape as [number, number, number];
    for (const bad of [-1, W + 1, 2147483647, -2147483648]) {
      const widths = host(integers([B], (b) => (b === 1 ? bad : W)));
      for (const device of ["cpu", "reference"])
        refused("ERR_AFFUSE_LENGTH", ["widths[1]", `${W}`, `${bad}`], () =>
          call(info, { ...inputs, widths }, c.attributes, device),
        );
    }
  }
  assert.is(seen, 8);
});

test("a window larger than the map", () => {
  const map = (...shape: number[]): HostTensor => ({
    dtype: "f32",
    shape,
    data: new Float32Array(shape.reduce((a, b) => a * b, 1)),
  });
  const conv = operator("conv2d");
  for (const shape of [
    [1, 2, 4, 9],
    [1, 2, 9, 4],
  ])
    refused("ERR_AFFUSE_SHAPE", ["x", "pad", `[${shape}]`], () =>
      call(conv, { x: map(...shape), W: map(3, 2, 7, 7) }, { pad: 1 }),
    );
  call(conv, { x: map(1, 2, 5, 5), W: map(3, 2, 7, 7) }, { pad: 1 });
  refused("ERR_AFFUSE_SHAPE", ["W", "kh"], () => call(conv, { x: map(1, 2, 4, 9), W: map(3, 2, 0, 7) }, {}));
  refused("ERR_AFFUSE_SHAPE", ["W", "[3,2,1,1]"], () =>
    call(conv, { x: map(1, 1, 4, 9), W: map(3, 2, 1, 1) }, {}),
  );
  for (const name of ["max_pool2d", "avg_pool2d"])
    refused("ERR_AFFUSE_SHAPE", ["x with H >= 3 and W >= 3 (the window)", "[1,2,9,2]"], () =>
      call(operator(name), { x: map(1, 2, 9, 2) }, { size: 3 }),
    );
  for (const name of ["max_pool2d", "avg_pool2d", "lrn"])
    refused("ERR_AFFUSE_SHAPE", ["x", "[1,0,9,2]"], () =>
      call(operator(name), { x: map(1, 0, 9, 2) }, { size: 1 }),
    );
});

test("labels outside [-1, C)", () => {
  for (const name of ["softmax_cross_entropy", "softmax_cross_entropy.backward"]) {
    const info = operator(name);
    const c = casesOf(forwardOf(info)).find((x) => (x.inputs.logits?.shape[0] ?? 0) >= 2) as Case;
    const inputs = given(info, c);
    const [B, C] = (c.inputs.logits as Values).shape as [number, number];
    for (const bad of [-2, C, 2147483647, -2147483648]) {
      const labels = host(integers([B], (b) => (b === 1 ? bad : -1)));
      for (const device of ["cpu", "reference"])
        refused("ERR_AFFUSE_LABEL", ["labels[1]", `${C}`, `${bad}`], () =>
          call(info, { ...inputs, labels }, c.attributes, device),
        );
    }
  }
});

test("an empty last dimension", () => {
  for (const [name, input, shape] of [
    ["softmax", "x", [3, 0]],
    ["layer_norm", "x", [3, 0]],
    ["softmax_cross_entropy", "logits", [3, 0]],
    ["linear", "x", [3, 0]],
  ] as const) {
    const info = operator(name);
    const inputs: Given = {};
    for (const r of info.inputs) {
      if (r.optional) continue;
      const dims =
        r.name === input ? [...shape] : r.dtype === "i32" ? [3] : r.shape === "[O,D]" ? [2, 0] : [0];
      const n = dims.reduce((a, b) => a * b, 1);
      inputs[r.name] = {
        dtype: r.dtype,
        shape: dims,
        data: r.dtype === "i32" ? new Int32Array(n) : new Float32Array(n),
      };
    }
    refused("ERR_AFFUSE_SHAPE", [input, "[3,0]"], () => call(info, inputs, {}));
  }
});

test("unknown operators and devices", () => {
  refused("ERR_AFFUSE_UNKNOWN_OPERATOR", ["fpb"], () => addon.call("cpu", "fpb", [], {}, [true]));
  const x: HostTensor = { dtype: "f32", shape: [2], data: new Float32Array(2) };
  refused("ERR_AFFUSE_DEVICE", ["tpu"], () => addon.call("tpu", "softmax", [x], {}, [true]));
});

test("concat: an axis that is not there, inputs that do not fit", () => {
  const info = operator("concat");
  const make = (...shape: number[]): HostTensor => ({
    dtype: "f32",
    shape,
    data: new Float32Array(shape.reduce((a, b) => a * b, 1)),
  });
  for (const axis of [2, -3])
    refused("ERR_AFFUSE_ATTRIBUTE", ["axis", `${axis}`], () => call(info, { x0: make(2, 3) }, { axis }));
  refused("ERR_AFFUSE_SHAPE", ["x3", "[2,3]", "[3,3]"], () =>
    call(info, { x0: make(2, 3), x3: make(3, 3) }, { axis: 1 }),
  );
  refused("ERR_AFFUSE_SHAPE", ["x1"], () => call(info, { x0: make(2, 3), x1: make(2) }, { axis: 1 }));
});

test("afg: exactly one kind of query", () => {
  const info = operator("afg");
  const c = casesOf(info).find((x) => x.inputs.q && (x.inputs.x?.data.length ?? 0) > 0) as Case;
  const inputs = given(info, c);
  const A = c.inputs.b?.shape[0] as number;
  const u: HostTensor = { dtype: "f32", shape: [A], data: new Float32Array(A) };
  refused("ERR_AFFUSE_MISSING", ["u", "q"], () => call(info, { ...inputs, u }, c.attributes));
  refused("ERR_AFFUSE_MISSING", ["u", "q"], () => call(info, { ...inputs, q: null }, c.attributes));
});

test.run();
