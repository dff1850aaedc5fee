/** Cases of the operators that gather, project and fuse: linear, AFG and its relatives, FBP. */
import { Random } from "../../lib/data/random.ts";
import { loadAddon, type OperatorInfo } from "../../lib/native/index.ts";
import type { Case, Entry } from "./cases.ts";
import {
  edge,
  elements,
  type Inputs,
  inferred,
  integers,
  normal,
  runReference,
  tensor,
  type Values,
} from "./run.ts";

const KINDS = ["none", "relu", "gelu", "tanh", "sigmoid"] as const;

/** Xavier-like scale, so that deep sums keep values near 1. */
function weight(random: Random, shape: number[]): Values {
  return normal(random, shape, 1 / Math.sqrt(Math.max(1, shape.at(-1) as number)));
}

const linear: Entry = {
  operands: ["x", "W"],
  misfits: [
    ["x", 1],
    ["W", 1],
    ["b", 0],
  ],
  cases: (random) => {
    const list: Case[] = [];
    const add = (shape: number[], O: number, activation: string, bias: boolean, large = false) => {
      const D = shape.at(-1) as number;
      const inputs: Inputs = { x: normal(random, shape), W: weight(random, [O, D]) };
      if (bias) inputs.b = normal(random, [O], 0.3);
      const terms = Math.max(D, O, elements(shape) / D);
      list.push({
        label: `[${shape}] to ${O} ${activation}${bias ? " bias" : ""}`,
        inputs,
        attributes: { activation },
        terms,
        large,
      });
    };
    for (const activation of KINDS) {
      add([3, 4], 2, activation, true);
      add([2, 2, 3], 4, activation, false);
      for (let i = 0; i < 5; i++)
        add([edge(random), edge(random)], edge(random), activation, i % 2 === 0, true);
      add([7], 5, activation, true);
      add([0, 8], 3, activation, true);
      add([1, 1], 1, activation, true);
      add([2, 0, 8], 3, activation, false);
    }
    add([130, 257], 129, "none", true, true);
    add([70, 300], 200, "relu", true, true);
    add([1, 1500], 9, "gelu", true, true);
    add([400, 33], 17, "none", true, true);
    return [...list, ...reduced(list.slice(0, -4), 2), ...reduced(list.slice(-4), 1)];
  },
  floor: (output, inputs) => (output.startsWith("d") ? largest(inputs.dy) : 0),
};

function largest(values: Values | undefined): number {
  let most = 0;
  for (const x of values?.data ?? []) if (Math.abs(x) > most) most = Math.abs(x);
  return most;
}

/** Every so many of the cases once more with operands rounded to bf16. */
export function reduced(cases: Case[], every: number): Case[] {
  return cases
    .filter((_, i) => i % every === 1 % every)
    .map((c) => ({ ...c, label: `${c.label} bf16`, attributes: { ...c.attributes, precision: "bf16" } }));
}

/** Frames with NaN in the padding, lengths among them 0 and T, and now and then a mask. */
function frames(random: Random, B: number, T: number, D: number, masks: boolean, lengthsGiven: boolean) {
  const lengths = integers([B], (b) => (b === 0 ? T : b === 1 ? 0 : random.integer(T + 1)));
  const mask = integers([B, T], () => (random.bernoulli(0.75) ? 1 : 0));
  const valid = (b: number, t: number) =>
    (!lengthsGiven || t < (lengths.data[b] as number)) && (!masks || mask.data[b * T + t] !== 0);
  const inputs: Inputs = {
    x: tensor([B, T, D], (i) =>
      valid(Math.floor(i / (T * D)), Math.floor(i / D) % T) ? random.normal() : Number.NaN,
    ),
  };
  if (lengthsGiven) inputs.lengths = lengths;
  if (masks) inputs.mask = mask;
  return { inputs, valid };
}

const afg: Entry = {
  operands: ["x", "W"],
  // c adds up x as it is; padding, which counts as 0, holds NaN in these cases.
  exact: ({ c, alpha }, { x }) => {
    if (!c || !alpha || !x || c.data.length === 0) return;
    const [B = 0, T = 0, D = 0] = x.shape;
    const J = alpha.shape[1] as number;
    for (let at = 0; at < B * J * D; at++) {
      const [row, d] = [Math.floor(at / D), at % D];
      let sum = 0;
      for (let t = 0; t < T; t++) {
        const frame = x.data[(Math.floor(row / J) * T + t) * D + d] as number;
        if (!Number.isNaN(frame)) sum += (alpha.data[row * T + t] as number) * frame;
      }
      (c.data as Float64Array)[at] = sum;
    }
  },
  misfits: [
    ["lengths", 0],
    ["W", 1],
    ["b", 0],
  ],
  cases: (random) => {
    const list: Case[] = [];
    const add = (B: number, T: number, D: number, A: number, J: number, large = false) => {
      const masks = list.length % 3 === 2;
      const lengthsGiven = list.length % 4 !== 3;
      const { inputs, valid } = frames(random, B, T, D, masks, lengthsGiven);
      inputs.W = weight(random, [A, D]);
      inputs.b = normal(random, [A], 0.2);
      if (J === 0) inputs.u = normal(random, [A]);
      else inputs.q = normal(random, [B, J, A]);
      const masked = list.length % 5 !== 4;
      list.push({
        label: [
          `B ${B} T ${T} D ${D} A ${A} J ${J || "learned"}`,
          ...(masks ? ["mask"] : []),
          ...(lengthsGiven ? [] : ["no lengths"]),
          ...(masked ? [] : ["unmasked"]),
        ].join(" "),
        inputs,
        attributes: list.length % 2 ? { masked, scale: 0.8 } : { masked },
        terms: Math.max(D, A, B * T),
        large,
        unread: (input, i) => {
          const queries = Math.max(1, J);
          if (input === "dalpha") return masked && !valid(Math.floor(i / (queries * T)), i % T);
          if (input === "k") return !valid(Math.floor(i / (T * A)), Math.floor(i / A) % T);
          return false;
        },
      });
    };
    for (let i = 0; i < 12; i++)
      add(1 + random.integer(3), 1 + random.integer(4), 1 + random.integer(4), 1 + random.integer(3), i % 3);
    add(0, 3, 4, 5, 0);
    add(0, 3, 4, 5, 2);
    add(2, 0, 4, 5, 0);
    add(3, 0, 4, 5, 1);
    for (let i = 0; i < 24; i++)
      add(1 + random.integer(4), edge(random, 33), edge(random), edge(random), i % 4, true);
    add(5, 65, 33, 31, 0, true);
    add(3, 130, 100, 70, 1, true);
    add(2, 70, 257, 129, 2, true);
    add(4, 120, 64, 48, 0, true);
    // Enough frames for two spans of the backward; samples that begin in one and end in the other.
    add(26, 130, 40, 30, 0, true);
    add(25, 140, 33, 47, 1, true);
    add(24, 150, 70, 17, 3, true);
    // More columns of W than a pass takes, and frames that shared memory does not hold (kernels/afg/cuda).
    add(2, 5, 12, 300, 2, true);
    add(2, 6, 16, 150, 0, true);
    add(2, 2, 600, 3, 1, true);
    add(1, 3, 601, 3, 5, true);
    add(1, 6, 66, 67, 1, true);
    add(2, 40, 33, 66, 0, true);
    add(2, 65, 66, 9, 1, true);
    // With bf16 operands: few frames (pairs are expanded), an odd depth that is cut, and many.
    const small = list.length;
    add(2, 13, 33, 21, 0, true);
    add(1, 40, 1301, 35, 2, true);
    add(6, 33, 70, 47, 1, true);
    const full = list.length;
    // D in pieces, a whole number of vectors and not.
    add(3, 37, 1301, 20, 0, true);
    add(2, 30, 2080, 9, 2, true);
    return [...list, ...reduced(list.slice(0, small), 3), ...reduced(list.slice(small, full), 1)];
  },
  // 1 − k² is rounded at 1 and multiplied by the sum over J of s̄ q.
  floor: (output, inputs) => (output.startsWith("d") ? largest(inputs.dc) + largest(inputs.dalpha) : 0),
};

const ratio: Entry = {
  misfits: [
    ["lengths", 0],
    ["q", 0],
    ["beta", 0],
  ],
  cases: (random) => {
    const list: Case[] = [];
    const add = (B: number, T: number, D: number, sd: number, large = false) => {
      const { inputs, valid } = frames(random, B, T, D, list.length % 3 === 1, list.length % 4 !== 3);
      inputs.q = normal(random, [D], sd);
      inputs.beta = normal(random, [1]);
      list.push({
        label: `B ${B} T ${T} D ${D} sd ${sd}`,
        inputs,
        attributes: {},
        terms: Math.max(D, B * T),
        large,
        unread: (input, i) => input === "dalpha" && !valid(Math.floor(i / T), i % T),
      });
    };
    for (let i = 0; i < 8; i++)
      add(1 + random.integer(4), 1 + random.integer(4), 1 + random.integer(5), i % 2 ? 1 : 0.3);
    add(0, 3, 4, 1);
    add(2, 0, 4, 1);
    for (let i = 0; i < 12; i++)
      add(1 + random.integer(4), edge(random), edge(random), i % 4 === 3 ? 8 : 0.4, true);
    add(6, 130, 257, 0.1, true);
    return list;
  },
  floor: (output, inputs) => (output.startsWith("d") ? largest(inputs.dc) + largest(inputs.dalpha) : 0),
};

const weightedSum: Entry = {
  misfits: [["w", 1]],
  cases: (random) => {
    const list: Case[] = [];
    const add = (B: number, J: number, D: number, large = false) =>
      list.push({
        label: `B ${B} J ${J} D ${D}`,
        inputs: { x: normal(random, [B, J, D]), w: normal(random, [B, J]) },
        attributes: {},
        terms: Math.max(J, D),
        large,
      });
    for (const [B, J, D] of [
      [1, 1, 1],
      [2, 3, 4],
      [0, 3, 4],
      [2, 0, 4],
      [3, 2, 17],
      [2, 5, 8],
    ] as const)
      add(B, J, D);
    for (let i = 0; i < 8; i++) add(1 + random.integer(4), 1 + random.integer(7), edge(random), true);
    add(40, 5, 700, true);
    return list;
  },
};

/**
 * dr = (dz − z Σ z dz) / N cancels, with one output per row completely. Its rounding error is of the size of
 * (|dz| + |z| Σ |z dz|) / N; the backward without the L2 normalisation carries it on to the gradients.
 */
function projectionRounding(inputs: Inputs, c: Case): Record<string, Float64Array> {
  const { dz, ds: _, ...rest } = inputs;
  const normalize = String(c.attributes.normalize);
  if (!dz || dz.data.length === 0 || !normalize.endsWith("l2")) return {};
  const attributes = { ...c.attributes, normalize: normalize === "l2" ? "none" : "power" };
  const addon = loadAddon();
  const forward = addon.operators().find((info) => info.name === "fbp") as OperatorInfo;
  const backward = addon.operators().find((info) => info.name === "fbp.backward") as OperatorInfo;
  const r = runReference(
    addon.call,
    forward,
    c.inputs,
    attributes,
    inferred(addon, forward, c.inputs, attributes),
  ).z?.data;
  if (!r) return {};
  const group =
    (dz.shape[1] as number) * (c.attributes.l2Scope === "group" ? Number(c.attributes.rowsPerGroup) : 1);
  const size = new Float64Array(r.length);
  for (let from = 0; from < size.length; from += group) {
    let squares = 1e-12;
    let dot = 0;
    for (let i = from; i < from + group; i++) squares += (r[i] as number) ** 2;
    const N = Math.sqrt(squares);
    for (let i = from; i < from + group; i++)
      dot += Math.abs(((r[i] as number) / N) * (dz.data[i] as number));
    for (let i = from; i < from + group; i++)
      size[i] = (Math.abs(dz.data[i] as number) + (Math.abs(r[i] as number) / N) * dot) / N;
  }
  const { z: _z, ...saved } = rest;
  const random = new Random(5, c.label);
  const squares: Record<string, Float64Array> = {};
  for (let sample = 0; sample < 8; sample++) {
    const signed = { shape: dz.shape, data: size.map((x) => (random.bernoulli(0.5) ? x : -x)) };
    const at = { ...saved, dz: signed };
    const gradients = runReference(
      addon.call,
      backward,
      at,
      attributes,
      inferred(addon, backward, at, attributes),
    );
    for (const [name, values] of Object.entries(gradients)) {
      if (!values) continue;
      squares[name] ??= new Float64Array(values.data.length);
      squares[name] = squares[name].map((sum, i) => sum + (values.data[i] as number) ** 2 / 8);
    }
  }
  return Object.fromEntries(Object.entries(squares).map(([name, sum]) => [name, sum.map(Math.sqrt)]));
}

/** All gradients of a run come from one computation. */
const roundings = new WeakMap<Inputs, Record<string, Float64Array>>();

const fbp: Entry = {
  operands: ["a", "v", "U", "V"],
  misfits: [
    ["a", 0],
    ["v", 0],
    ["U", 1],
    ["V", 1],
    ["bu", 0],
    ["bv", 0],
  ],
  floor: (output, inputs, c) => {
    const known = roundings.get(inputs) ?? projectionRounding(inputs, c);
    roundings.set(inputs, known);
    return known[output] ?? 0;
  },
  // z alone is badly conditioned where s is near 0 (a square root): compared as z|z|.
  transform: (name, values) => (name === "z" ? values.map((z) => z * Math.abs(z)) : values),
  cases: (random) => {
    const list: Case[] = [];
    const normalizations = ["power-l2", "none", "l2", "power"];
    const activations = ["none", "relu", "tanh"];
    const add = (B: number, m: number, n: number, o: number, k: number, large: boolean, rows = 1) => {
      const i = list.length;
      const inputs: Inputs = {
        a: normal(random, [B / rows, m]),
        v: normal(random, [B, n]),
        U: weight(random, [o * k, m]),
        V: weight(random, [o * k, n]),
      };
      if (i % 3 !== 1) inputs.bu = normal(random, [o * k], 0.3);
      if (i % 3 !== 2) inputs.bv = normal(random, [o * k], 0.3);
      const attributes: Case["attributes"] = {
        k,
        normalize: normalizations[i % 4] as string,
        activation: activations[Math.floor(i / 4) % 3] as string,
        dropout: i % 5 === 4 ? 0.3 : 0,
      };
      if (attributes.dropout) Object.assign(attributes, { seed: 0x123456789abcdef0n, step: i, instance: 2 });
      if (rows > 1) Object.assign(attributes, { rowsPerGroup: rows, l2Scope: i % 2 ? "sample" : "group" });
      const note = Object.entries(attributes).map((e) => e.join(" "));
      list.push({
        label: [
          `a ${B / rows}x${m} v ${B}x${n} o ${o}`,
          ...note,
          ...["bu", "bv"].filter((b) => inputs[b]),
        ].join(" "),
        inputs,
        attributes,
        terms: Math.max(m, n, o * k, B),
        large,
      });
    };
    const few = (n: number) => 1 + random.integer(n);
    for (let i = 0; i < 24; i++) add(few(2), few(3), few(3), few(3), 1 + (i % 4), false);
    for (let i = 0; i < 8; i++) add(6, few(3), few(3), 2, 1 + (i % 3), false, i < 4 ? 2 : 3);
    for (let k = 1; k <= 8; k++) {
      add(edge(random, 33), edge(random), edge(random), edge(random, 33), k, true);
      if (k % 2) add(few(4), edge(random), edge(random), edge(random), k, true);
      else add(4 * few(4), edge(random, 33), edge(random), edge(random, 17), k, true, k % 4 ? 2 : 4);
    }
    add(0, 3, 4, 5, 2, true);
    add(1, 1, 1, 1, 1, true);
    add(66, 130, 100, 40, 4, true);
    add(33, 257, 129, 64, 5, true);
    // All zero: s = 0 everywhere, and every gradient must be finite.
    for (const normalize of normalizations)
      list.push({
        label: `all zero ${normalize}`,
        inputs: {
          a: tensor([2, 3], () => 0),
          v: tensor([2, 3], () => 0),
          U: tensor([4, 3], () => 0),
          V: tensor([4, 3], () => 0),
        },
        attributes: { k: 2, normalize, dropout: 0 },
        terms: 4,
        large: true,
      });
    return [...list, ...reduced(list.slice(0, -6), 2), ...reduced(list.slice(-6), 1)];
  },
};

export const gatherEntries: Record<string, Entry> = {
  linear,
  afg,
  ratio_attention: ratio,
  weighted_sum: weightedSum,
  fbp,
};
