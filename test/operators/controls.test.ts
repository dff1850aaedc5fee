// Positive controls: the checkers of the operator suites must notice results that are deliberately wrong.
// Each control hands a check a saboteur that calls the real operator and then spoils what came out (or what
// the kernel left alone).
import { test } from "uvu";
import * as assert from "uvu/assert";
import { Random } from "../../lib/data/random.ts";
import type { HostTensor, OperatorInfo, TypedArray } from "../../lib/native/index.ts";
import { type Case, casesOf } from "./cases.ts";
import { checkGradients } from "./derivative.ts";
import { type Call, inferred, runReference } from "./run.ts";
import { addon, checkRun, forwards, operator, type Run, runsOf } from "./suite.ts";

interface Called {
  op: string;
  inputs: (HostTensor | null)[];
  outputs: (TypedArray | boolean | null)[];
  threads: number;
}

/** The real operator, then `spoil` on the arrays it wrote, provided that output `output` is among them. */
function sabotage(device: string, spoil: (called: Called) => void, output = 0): Call {
  return (where, op, inputs, attributes, outputs, threads) => {
    const results = addon.call(where, op, inputs, attributes, outputs, threads);
    if (where === device) {
      const arrays = where === "reference" ? results.map((r) => r?.data ?? null) : outputs;
      if (arrays[output]) spoil({ op, inputs, outputs: arrays, threads: threads ?? 1 });
    }
    return results;
  };
}

function caseOf(name: string, accept: (c: Case) => boolean): Case {
  const found = casesOf(operator(name)).find(accept);
  if (!found) throw new Error(`no such case of ${name}`);
  return found;
}

function runOf(name: string, accept: (c: Case) => boolean, backward = false): Run {
  const runs = runsOf(addon.call, operator(name), caseOf(name, accept));
  const found = runs.find((r) => r.info.name.endsWith(".backward") === backward);
  if (!found) throw new Error(`no such run of ${name}`);
  return found;
}

const array = (called: Called, i = 0) => called.outputs[i] as Float32Array;

/** Passes untouched, and fails with `message` when spoiled: both halves are needed. */
function caught(run: Run, spoil: (called: Called) => void, message: RegExp, threads = [1], output = 0): void {
  assert.equal(checkRun(addon.call, run, threads), [], "the untouched operator must pass");
  const found = checkRun(sabotage("cpu", spoil, output), run, threads);
  assert.ok(found.length > 0, "nothing was noticed");
  assert.match(found.join("\n"), message);
}

const wide = (c: Case) => (c.inputs.x?.data.length ?? 0) >= 99;

test("one element slightly off", () => {
  caught(
    runOf("softmax", (c) => c.label.startsWith("[5,33]")),
    (called) => {
      const y = array(called);
      const top = y.indexOf(Math.max(...y));
      y[top] = (y[top] as number) * (1 + 1e-4);
    },
    /softmax .*: y: 1 of 165 beyond the bound/,
  );
  caught(
    runOf("linear", (c) => c.label.startsWith("[130,257]")),
    (called) => {
      array(called)[999] = (array(called)[999] as number) + 2e-4;
    },
    /linear .*: y: 1 of .*element 999/,
  );
});

test("an element left unwritten", () => {
  caught(
    runOf("activation", wide),
    (called) => {
      array(called)[98] = Number.NaN;
    },
    /y: 1 of .*got NaN/,
  );
});

test("the last column missing", () => {
  caught(
    runOf("linear", (c) => c.label.startsWith("[130,257]")),
    (called) => {
      const y = array(called);
      for (let i = 128; i < y.length; i += 129) y[i] = 0;
    },
    /beyond the bound/,
  );
});

test("the last term of a long sum missing", () => {
  const run = runOf("linear", (c) => c.label.startsWith("[130,257]"));
  caught(
    run,
    (called) => {
      const [x, W] = called.inputs.map((input) => (input as HostTensor).data) as [TypedArray, TypedArray];
      const y = array(called);
      for (let i = 0; i < y.length; i++) {
        const r = Math.floor(i / 129);
        const o = i % 129;
        y[i] = (y[i] as number) - (x[r * 257 + 256] as number) * (W[o * 257 + 256] as number);
      }
    },
    /y: \d{3,} of/,
  );
});

test("bf16 operands: not rounded in the forward, the last term of an odd sum missing in the backward", () => {
  const reduced = (c: Case) => c.label.startsWith("[130,257]") && c.label.endsWith("bf16");
  caught(
    runOf("linear", reduced),
    (called) => {
      const [x, W, b] = called.inputs as HostTensor[];
      const [exact] = addon.call("cpu", "linear", [x ?? null, W ?? null, b ?? null], {}, [true]);
      array(called).set(exact?.data as Float32Array);
    },
    /y: \d{3,} of/,
  );
  caught(
    runOf("linear", reduced, true),
    (called) => {
      const [W, dy] = [1, 5].map((i) => (called.inputs[i] as HostTensor).data) as [TypedArray, TypedArray];
      const dx = array(called);
      for (let i = 0; i < dx.length; i++) {
        const r = Math.floor(i / 257);
        dx[i] = (dx[i] as number) - (dy[r * 129 + 128] as number) * (W[128 * 257 + (i % 257)] as number);
      }
    },
    /dx: \d{3,} of/,
  );
});

test("float16 accuracy instead of float32", () => {
  for (const name of ["linear", "afg", "layer_norm", "fbp"]) {
    const run = runOf(
      name,
      (c) => Boolean(c.large) && c.terms > 30 && !c.label.includes("all zero") && !/B 0|x0/.test(c.label),
    );
    caught(
      run,
      (called) => {
        const y = array(called);
        for (let i = 0; i < y.length; i++) {
          const x = y[i] as number;
          const unit = 2 ** (Math.floor(Math.log2(Math.abs(x) || 1)) - 10);
          y[i] = Math.round(x / unit) * unit;
        }
      },
      /beyond the bound/,
    );
  }
});

test("a write before and after an output", () => {
  for (const at of [-1, 0]) {
    caught(
      runOf("mul", (c) => c.label === "[17] with [17]"),
      (called) => {
        const y = array(called);
        const around = new Float32Array(y.buffer);
        around[y.byteOffset / 4 + (at < 0 ? -1 : y.length)] = 1;
      },
      /wrote outside the output/,
    );
  }
});

test("an input changed", () => {
  caught(
    runOf("mul", (c) => c.label === "[17] with [17]"),
    (called) => {
      (called.inputs[1] as HostTensor).data[3] = 7;
    },
    /changed an input/,
  );
});

test("one bit different with another number of threads", () => {
  caught(
    runOf("grad_norm", (c) => c.label.startsWith("[70001]")),
    (called) => {
      if (called.threads !== 3) return;
      const y = array(called);
      const bits = new Uint32Array(y.buffer, y.byteOffset, 1);
      bits[0] = (bits[0] as number) ^ 1;
    },
    /differs between 1 and 3 threads/,
    [1, 2, 3],
  );
});

test("an output that is wrong only when it is asked for alone", () => {
  caught(
    runOf("mul", (c) => c.label === "[3,33] with [33]", true),
    (called) => {
      if (!called.outputs[0]) array(called, 1)[32] = 0;
    },
    /asked for alone: db: 1 of 33/,
    [1],
    1,
  );
});

test("one dropped element kept", () => {
  caught(
    runOf("dropout", (c) => c.label.startsWith("p 0.5 [3,33]")),
    (called) => {
      const y = array(called);
      const x = called.inputs[0] as HostTensor;
      const i = y.indexOf(0);
      y[i] = 2 * (x.data[i] as number);
    },
    /y: 1 of 99/,
  );
});

test("a gradient on padding", () => {
  caught(
    runOf("ratio_attention", (c) => Boolean(c.inputs.lengths) && c.terms > 60, true),
    (called) => {
      const x = called.inputs[0] as HostTensor;
      array(called)[x.data.findIndex(Number.isNaN)] = 1e-3;
    },
    /dx: 1 of/,
  );
});

test("a count off by one", () => {
  caught(
    runOf("masked_mse", (c) => c.label.startsWith("[17] 40")),
    (called) => {
      const count = called.outputs[1] as Int32Array;
      count[0] = (count[0] as number) + 1;
    },
    /count: 1 of 1/,
    [1],
    1,
  );
});

// --- gradients ---------------------------------------------------------------------------------------------------------

function gradientCaught(
  name: string,
  accept: (c: Case) => boolean,
  spoil: (gradients: Float64Array[]) => void,
): void {
  const info = operator(name);
  const c = caseOf(name, (x) => !x.large && accept(x));
  const check = (call: Call) => checkGradients(call, info, c, new Random(1, "controls"), 64);
  const honest = check(addon.call);
  assert.equal(honest.found, [], "the untouched gradient must pass");
  assert.ok(honest.checked > 0);
  const spoiled = check(
    sabotage("reference", (called) => spoil(called.outputs as unknown as Float64Array[])),
  );
  assert.ok(spoiled.found.length > 0, `${name}: nothing was noticed`);
}

test("a gradient with a factor 1 + 1e-6", () => {
  for (const name of ["softmax", "layer_norm", "afg", "linear", "fbp", "softmax_cross_entropy"]) {
    gradientCaught(
      name,
      (c) => c.terms > 2 && !/\b0,|B 0|all zero|no label/.test(c.label),
      (g) => {
        const dx = g[0] as Float64Array;
        for (let i = 0; i < dx.length; i++) dx[i] = (dx[i] as number) * (1 + 1e-6);
      },
    );
  }
});

test("a gradient with the wrong sign in one element", () => {
  gradientCaught(
    "layer_norm",
    (c) => c.label.startsWith("[3,17]"),
    (g) => {
      const dx = g[0] as Float64Array;
      dx[40] = -(dx[40] as number);
    },
  );
});

test("a term of a gradient forgotten", () => {
  // The mean(d) part of layer norm's dx: without it every element of a row is off by the same amount.
  gradientCaught(
    "layer_norm",
    (c) => c.label.startsWith("[3,17]"),
    (g) => {
      const dx = g[0] as Float64Array;
      for (let i = 0; i < 17; i++) dx[i] = (dx[i] as number) + 1e-4;
    },
  );
});

test("dslope, dbeta, db: gradients of the last input", () => {
  for (const [name, index] of [
    ["prelu", 1],
    ["layer_norm", 2],
    ["linear", 2],
  ] as const) {
    gradientCaught(
      name,
      (c) => c.terms > 1 && !/\b0,|\[0\]/.test(c.label) && Object.keys(c.inputs).length > index,
      (g) => {
        const d = g[index] as Float64Array;
        d[0] = (d[0] as number) * 1.00001 + 1e-6;
      },
    );
  }
});

/** The first run of an operator whose first output is not everywhere near 0. */
function firstRun(info: OperatorInfo, backward: boolean): Run | null {
  for (const c of casesOf(info)) {
    if (c.terms > 4000) continue;
    for (const run of runsOf(addon.call, info, c)) {
      if (run.info.name.endsWith(".backward") !== backward) continue;
      const shapes = inferred(addon, run.info, run.inputs, c.attributes);
      const name = run.info.outputs[0]?.name as string;
      const y = runReference(addon.call, run.info, run.inputs, c.attributes, shapes)[name];
      if (y?.data.some((value) => Math.abs(value) > 1e-3)) return run;
    }
  }
  return null;
}

test("every operator's first output, off by one part in a hundred, is noticed", () => {
  for (const info of forwards) {
    for (const backward of info.backward ? [false, true] : [false]) {
      const run = firstRun(info, backward);
      if (!run) throw new Error(`${info.name}: no run with a result that is not 0`);
      const found = checkRun(
        sabotage("cpu", (called) => {
          const y = array(called);
          for (let i = 0; y && i < y.length; i++) y[i] = (y[i] as number) * 1.01;
        }),
        run,
      );
      assert.ok(found.length > 0, `${run.info.name} (${run.label}): 1 % off and nothing noticed`);
    }
  }
});

test.run();
