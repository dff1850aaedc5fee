import { test } from "uvu";
import * as assert from "uvu/assert";
import { compile, plan } from "../../lib/graph/compile.ts";
import { gradients } from "../../lib/graph/gradients.ts";
import { Graph, scalar } from "../../lib/graph/graph.ts";
import { interpret } from "../../lib/graph/interpret.ts";
import { constantInit, ParameterStore, uniformInit, xavierNormalInit } from "../../lib/graph/parameters.ts";
import type { Value } from "../../lib/graph/value.ts";
import { loadAddon } from "../../lib/native/index.ts";

const addon = loadAddon();
const f32 = (...shape: number[]) => ({ dtype: "f32" as const, shape });
const i32 = (...shape: number[]) => ({ dtype: "i32" as const, shape });

function code(action: () => unknown): string {
  try {
    action();
  } catch (error) {
    return (error as { code?: string }).code ?? String(error);
  }
  return "no error";
}

async function asyncCode(action: () => Promise<unknown>): Promise<string> {
  try {
    await action();
  } catch (error) {
    return (error as { code?: string }).code ?? String(error);
  }
  return "no error";
}

/** mse(relu(x Wᵀ) + x·x …): small, with a value used three times and a reshape in the middle. */
function small() {
  const graph = new Graph(addon);
  const x = graph.input("x", f32(3, 2));
  const W = graph.input("W", f32(2, 2));
  const target = graph.input("target", f32(6));
  const y = graph.op("linear", { x, W }, { activation: "tanh" }).y as Value;
  const square = graph.op("mul", { a: y, b: y }).y as Value;
  const sum = graph.op("add", { a: square, b: x }).y as Value;
  const flat = graph.reshape(sum, [6]);
  const loss = graph.op("masked_mse", { prediction: flat, target }).loss as Value;
  return { graph, x, W, target, y, loss };
}

const feeds = {
  x: Float32Array.from([0.3, -0.2, 0.5, 0.9, -0.7, 0.1]),
  W: Float32Array.from([0.4, -0.6, 0.2, 0.8]),
  target: Float32Array.from([1, 0, -1, 0.5, 0.2, Number.NaN]),
};

test("gradients of values used several times, through a reshape, against central differences", () => {
  const { graph, x, W, loss } = small();
  const found = gradients(graph, loss, [x, W]);
  const [dx, dW] = interpret(addon, graph, found as Value[], { feeds });
  for (const [name, gradient] of [
    ["x", dx],
    ["W", dW],
  ] as const) {
    const base = feeds[name];
    base.forEach((_, i) => {
      const at = (h: number) => {
        const moved = Float64Array.from(base);
        moved[i] = (moved[i] as number) + h;
        return interpret(addon, graph, [loss], { feeds: { ...feeds, [name]: moved } })[0]?.[0] as number;
      };
      const numeric = (at(1e-6) - at(-1e-6)) / 2e-6;
      assert.ok(Math.abs(numeric - (gradient?.[i] as number)) < 1e-8, `d${name}[${i}]`);
    });
  }
});

test("what the loss does not depend on has no gradient; integers have none either", () => {
  const { graph, loss, W } = small();
  const other = graph.input("other", f32(2));
  const [none, some] = gradients(graph, loss, [other, W]);
  assert.is(none, null);
  assert.ok(some);
});

test("a loss must be a scalar, an operator between must be differentiable", () => {
  const { graph, y, x } = small();
  assert.is(
    code(() => gradients(graph, y, [x])),
    "ERR_AFFUSE_SHAPE",
  );
  const norm = graph.op("grad_norm", { g: graph.reshape(x, [6]) }).norm as Value;
  assert.is(
    code(() => gradients(graph, norm, [x])),
    "ERR_AFFUSE_GRADIENT",
  );
});

test("only what is fetched runs, and gradients that nobody wants are not made", () => {
  const { graph, y, W, loss } = small();
  assert.is(plan(graph, { y }).nodes.length, 1);
  const [dW] = gradients(graph, loss, [W]);
  const decided = plan(graph, { dW: dW as Value });
  const backward = decided.nodes.find((node) => node.info.name === "linear.backward");
  const names = backward?.info.outputs.filter((_, i) => {
    const output = backward.outputs[i];
    return output && decided.values.includes(output);
  });
  assert.equal(
    names?.map((rule) => rule.name),
    ["dW"],
  );
});

test("a program gives what the interpreter gives; constants and scalars are bound", async () => {
  const { graph, y, loss, W } = small();
  const [dW] = gradients(graph, loss, [W]);
  const dropped = graph.op("dropout", { x: y }, { p: 0.5, seed: 7n, instance: 2, step: scalar("step") })
    .y as Value;
  const constant = graph.constant(f32(3, 2), Float32Array.from([1, 2, 3, 4, 5, 6]));
  const shifted = graph.op("add", { a: dropped, b: constant }).y as Value;
  const fetches = {
    loss,
    dW: dW as Value,
    shifted,
    again: graph.reshape(shifted, [6]),
    x: graph.values[0] as Value,
  };
  const program = compile(addon, graph, { fetches });
  assert.equal(program.feedNames, ["x", "W", "target"]);
  for (const step of [1, 2]) {
    const results = await program.run({ feeds, scalars: { step } });
    const expected = interpret(addon, graph, Object.values(fetches), {
      feeds,
      scalars: { step },
      device: "cpu",
    });
    Object.keys(fetches).forEach((name, i) => {
      assert.equal(results[name], expected[i], `${name} in step ${step}`);
    });
  }
  program.dispose();
  assert.is(await asyncCode(() => program.run({ feeds, scalars: { step: 1 } })), "ERR_AFFUSE_DISPOSED");
});

test("wrong feeds and scalars are refused with a code", async () => {
  const { graph, y } = small();
  const program = compile(addon, graph, { fetches: { y } });
  const { x, W } = feeds;
  assert.is(await asyncCode(() => program.run({ feeds: { x } })), "ERR_AFFUSE_FEED");
  assert.is(await asyncCode(() => program.run({ feeds: { ...feeds } })), "ERR_AFFUSE_FEED");
  assert.is(await asyncCode(() => program.run({ feeds: { x: new Float32Array(5), W } })), "ERR_AFFUSE_FEED");
  assert.is(await asyncCode(() => program.run({ feeds: { x: Float64Array.from(x), W } })), "ERR_AFFUSE_FEED");
  assert.is(await asyncCode(() => program.run({ feeds: { x, W }, scalars: { lr: 1 } })), "ERR_AFFUSE_SCALAR");
  program.dispose();
  const scaled = graph.op("dropout", { x: y }, { p: 0.5, step: scalar("step") }).y as Value;
  const second = compile(addon, graph, { fetches: { scaled } });
  assert.is(await asyncCode(() => second.run({ feeds: { x, W } })), "ERR_AFFUSE_SCALAR");
  assert.is(
    await asyncCode(() => second.run({ feeds: { x, W }, scalars: { step: Number.NaN } })),
    "ERR_AFFUSE_SCALAR",
  );
  second.dispose();
});

test("building refuses what cannot run", () => {
  const { graph, x, W } = small();
  assert.is(
    code(() => graph.op("no_such_operator", { x })),
    "ERR_AFFUSE_UNKNOWN_OPERATOR",
  );
  assert.is(
    code(() => graph.op("linear", { x, W, nonsense: x })),
    "ERR_AFFUSE_GRAPH",
  );
  assert.is(
    code(() => graph.op("linear", { x, W }, { nonsense: 1 })),
    "ERR_AFFUSE_ATTRIBUTE",
  );
  assert.is(
    code(() => graph.op("linear", { x })),
    "ERR_AFFUSE_MISSING",
  );
  assert.is(
    code(() => graph.op("linear", { x, W: graph.input("bad", f32(2, 3)) })),
    "ERR_AFFUSE_SHAPE",
  );
  assert.is(
    code(() => graph.op("linear", { x: graph.input("ints", i32(3, 2)), W })),
    "ERR_AFFUSE_DTYPE",
  );
  assert.is(
    code(() => graph.input("x", f32(1))),
    "ERR_AFFUSE_GRAPH",
  );
  assert.is(
    code(() => graph.reshape(x, [7])),
    "ERR_AFFUSE_SHAPE",
  );
  assert.is(
    code(() => new Graph(addon).op("linear", { x, W })),
    "ERR_AFFUSE_GRAPH",
  );
});

test("parameters: seeded by name, laid out with the exempt ones last, refused when they do not fit", () => {
  const make = (seed: number, order: readonly string[]) => {
    const store = new ParameterStore(addon, seed);
    for (const name of order)
      store.declare(name, [4, 5], name === "u" ? xavierNormalInit(20, 1) : uniformInit(16));
    store.declare("s", [1], constantInit(0), { decay: false });
    store.declare("late", [3], constantInit(2));
    return store;
  };
  const a = make(1, ["W", "u"]);
  const b = make(1, ["u", "W"]);
  const c = make(2, ["W", "u"]);
  assert.equal(a.get("W"), b.get("W"), "the order of declaration does not matter");
  assert.not.equal(a.get("W"), c.get("W"), "the seed does");
  assert.ok(a.get("W").data.every((x) => Math.abs(x) <= 0.25));
  assert.equal(
    a.layout().map(({ decay }) => decay),
    [true, false],
  );
  assert.is(a.count(), 44);
  a.set("late", { shape: [3], data: Float32Array.from([7, 8, 9]) });
  assert.equal([...a.get("late").data], [7, 8, 9]);
  assert.is(
    code(() => a.set("late", { shape: [4], data: new Float32Array(4) })),
    "ERR_AFFUSE_PARAMETER",
  );
  assert.is(
    code(() => a.get("nobody")),
    "ERR_AFFUSE_PARAMETER",
  );
  assert.is(
    code(() => a.declare("W", [5, 4], constantInit(0))),
    "ERR_AFFUSE_PARAMETER",
  );
  assert.is(
    code(() => a.declare("new", [1], constantInit(0))),
    "ERR_AFFUSE_PARAMETER",
  );
  for (const store of [a, b, c]) store.dispose();
  assert.is(
    code(() => a.get("W")),
    "ERR_AFFUSE_DISPOSED",
  );
});

test("golden initial values: the same on every machine", () => {
  const store = new ParameterStore(addon, 42);
  store.declare("uniform", [3], uniformInit(1));
  store.declare("normal", [3], xavierNormalInit(1, 1));
  const golden = {
    uniform: [0.41994741559028625, -0.6331149935722351, 0.1486363708972931],
    normal: [0.6543878316879272, -0.879340410232544, -0.510158360004425],
  };
  for (const [name, expected] of Object.entries(golden)) {
    assert.equal([...store.get(name).data], expected, name);
  }
  store.dispose();
});

test.run();
