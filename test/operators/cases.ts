/**
 * The table of cases that drives the generic suites: one entry per operator that is not a `.backward` (those
 * follow from their forward). An operator without an entry fails the suites. Shapes and values are random but
 * seeded, so every run sees the same ones; dimensions come from around the edges of vectors and tiles.
 */
import { Random } from "../../lib/data/random.ts";
import type { AttributeValue, OperatorInfo } from "../../lib/native/addon.ts";
import { gatherEntries } from "./cases-gather.ts";
import { lossEntries } from "./cases-loss.ts";
import { mapEntries } from "./cases-maps.ts";
import type { Transform } from "./model.ts";
import { edge, type Inputs, normal, type Outputs, tensor } from "./run.ts";

export interface Case {
  label: string;
  inputs: Inputs;
  attributes: Record<string, AttributeValue>;
  /** Terms of the longest sum in the operator or its backward: K of the error model. */
  terms: number;
  /** Too many elements for finite differences. */
  large?: boolean;
  /** Elements of backward inputs that must not be read (padding): they get NaN. */
  unread?: (input: string, index: number) => boolean;
}

export interface Entry {
  cases(random: Random): Case[];
  /**
   * Magnitude at which the formula rounds a cancelling intermediate result of this output (or of each
   * element).
   */
  floor?(output: string, inputs: Inputs, c: Case): number | Float64Array;
  /** How outputs are compared. */
  transform?: Transform;
  /** Inputs that the attribute `precision` rounds: the operands of the products. */
  operands?: readonly string[];
  /** Corrects the outputs that rounded operands gave where the operator takes an operand unrounded as well. */
  exact?(outputs: Outputs, inputs: Inputs): void;
  /** Input and dimension that must agree with another input's: making it one longer is ERR_AFFUSE_SHAPE. */
  misfits: readonly (readonly [input: string, dimension: number])[];
}

function largest(values: { data: ArrayLike<number> } | undefined): number {
  let most = 0;
  for (const x of Array.from(values?.data ?? [])) if (Math.abs(x) > most) most = Math.abs(x);
  return most;
}

/** Normal values with some far out, where functions saturate. */
function wideRange(random: Random, shape: number[]) {
  return tensor(shape, () => (random.bernoulli(0.1) ? random.uniform(-30, 30) : random.normal(0, 2)));
}

const FLAT: number[][] = [[], [0], [1], [15], [16], [17], [3, 33], [2, 0, 5], [2, 3, 5, 2, 1], [65]];
const LONG: number[] = [3, 13001];

/** One case per shape: element-wise operators. */
function flat(random: Random, attributes: Case["attributes"], note: string, large = true): Case[] {
  return [...FLAT, ...(large ? [LONG] : [])].map((shape) => ({
    label: `${note} [${shape}]`,
    inputs: { x: wideRange(random, shape) },
    attributes,
    terms: shape === LONG ? 39003 : 65,
    large: shape === LONG,
  }));
}

const activation: Entry = {
  misfits: [],
  cases: (random) =>
    ["none", "relu", "gelu", "tanh", "sigmoid"].flatMap((kind) => flat(random, { activation: kind }, kind)),
  // 1 − y², y(1 − y) and Φ + xφ cancel against 1.
  floor: (output, inputs) => (output === "dx" ? largest(inputs.dy) : 0),
};

const prelu: Entry = {
  misfits: [["slope", 0]],
  cases: (random) =>
    flat(random, {}, "").map((c) => ({ ...c, inputs: { ...c.inputs, slope: normal(random, [1], 0.3) } })),
};

const scale: Entry = { misfits: [], cases: (random) => flat(random, { factor: -1.7 }, "factor −1.7") };

const dropout: Entry = {
  misfits: [],
  cases: (random) =>
    (
      [
        { p: 0, seed: 1n },
        { p: 0.1, seed: 0x0123456789abcdefn, step: 7, instance: 3 },
        { p: 0.5, seed: 0xffffffffffffffffn, step: 4294967295, instance: 4294967295 },
        { p: 0.97, seed: 5n },
      ] as Case["attributes"][]
    ).flatMap((attributes) => flat(random, attributes, `p ${attributes.p}`)),
};

const layerNorm: Entry = {
  misfits: [
    ["gamma", 0],
    ["beta", 0],
  ],
  cases: (random) => {
    const shapes = [[1], [17], [4, 1], [0, 8], [3, 17], [2, 3, 33], [5, 65], [2, 64], [1100, 16], [3, 1024]];
    return shapes.flatMap((shape, i) => {
      const C = shape.at(-1) as number;
      const make = (mean: number, sd: number, eps?: number): Case => ({
        label: `[${shape}] mean ${mean} sd ${sd}`,
        inputs: {
          x: normal(random, shape, sd, mean),
          gamma: normal(random, [C], 0.5, 1),
          beta: normal(random, [C]),
        },
        attributes: eps === undefined ? {} : { eps },
        terms: Math.max(C, shape.reduce((a, b) => a * b, 1) / C),
        large: i >= 8,
      });
      return i < 3 ? [make(0, 1), make(2, 0.01, 1e-3)] : [make(0, 1), make(-1, 2, 1e-3)];
    });
  },
  // dx = rstd (d − mean d − x̂ mean(d x̂)) cancels against |d|, d = dy γ; at C = 1 completely.
  floor: (output, inputs, c) => {
    if (output !== "dx") return 0;
    const { shape, data } = c.inputs.x as { shape: number[]; data: ArrayLike<number> };
    const C = shape.at(-1) as number;
    let rstd = 0;
    for (let from = 0; from < data.length; from += C) {
      const row = Array.from({ length: C }, (_, i) => data[from + i] as number);
      const mean = row.reduce((sum, x) => sum + x, 0) / C;
      const variance = row.reduce((sum, x) => sum + (x - mean) ** 2, 0) / C;
      rstd = Math.max(rstd, 1 / Math.sqrt(variance + Number(c.attributes.eps ?? 1e-5)));
    }
    return rstd * largest(inputs.dy) * largest(inputs.gamma);
  },
};

const softmax: Entry = {
  misfits: [],
  cases: (random) =>
    [[1], [1, 1], [0, 5], [3, 1], [4, 6], [2, 17], [5, 33], [2, 3, 65], [1, 4097], [700, 13]].flatMap(
      (shape, i) =>
        [0, 300].map((mean) => ({
          label: `[${shape}] mean ${mean}`,
          inputs: { x: normal(random, shape, 3, mean) },
          attributes: {},
          terms: shape.at(-1) as number,
          large: i >= 8,
        })),
    ),
  floor: (output, inputs) => (output === "dx" ? largest(inputs.dy) : 0),
};

const pairs: [number[], number[]][] = [
  [[], []],
  [[0], [0]],
  [[1], [1]],
  [[17], [17]],
  [[17], [1]],
  [
    [3, 33],
    [3, 33],
  ],
  [
    [3, 33],
    [3, 1],
  ],
  [[3, 33], [33]],
  [
    [3, 33],
    [1, 33],
  ],
  [[3, 33], []],
  [[0, 5], [5]],
  [
    [0, 5],
    [0, 1],
  ],
  [
    [2, 3, 5, 2, 3],
    [3, 1, 2, 1],
  ],
  [
    [2, 3, 5, 2, 3],
    [2, 1, 5, 1, 3],
  ],
  [
    [4, 3, 16],
    [4, 1, 16],
  ],
  [
    [150, 2, 17],
    [2, 17],
  ],
  [
    [7, 5000],
    [7, 1],
  ],
  [[5, 5001], [5001]],
  [[9, 4100], []],
];

function pair(): Entry {
  return {
    misfits: [["b", 0]],
    cases: (random) =>
      pairs.map(([a, b]) => {
        const n = a.reduce((x, y) => x * y, 1);
        return {
          label: `[${a}] with [${b}]`,
          inputs: { a: normal(random, a), b: normal(random, b) },
          attributes: {},
          terms: Math.max(
            1,
            n /
              Math.max(
                1,
                b.reduce((x, y) => x * y, 1),
              ),
          ),
          large: n > 3000,
        };
      }),
  };
}

const concat: Entry = {
  misfits: [["x1", 0]],
  cases: (random) => {
    const list: Case[] = [];
    for (let count = 1; count <= 8; count++) {
      for (const axis of [-1, 0, 1]) {
        const base = [edge(random, 8), edge(random, 8), edge(random, 17)];
        const at = axis < 0 ? 2 : axis;
        const inputs: Inputs = {};
        for (let i = 0; i < count; i++) {
          if (i === 1 && count > 3) continue; // a gap
          const shape = base.map((n, d) => (d === at ? random.integer(5) * (i + 1) : n));
          inputs[`x${i}`] = normal(random, shape);
        }
        list.push({ label: `${count} on axis ${axis}`, inputs, attributes: { axis }, terms: 1 });
      }
    }
    const long = { x0: normal(random, [300, 40]), x1: normal(random, [300, 70]) };
    list.push({ label: "long", inputs: long, attributes: {}, terms: 1, large: true });
    return [
      {
        label: "two rows",
        inputs: { x0: normal(random, [2, 3]), x1: normal(random, [2, 5]) },
        attributes: { axis: 1 },
        terms: 1,
      },
      ...list,
    ];
  },
};

const gradNorm: Entry = {
  misfits: [],
  cases: (random) =>
    [[], [0], [1], [17], [3, 33], [70001]].flatMap((shape) =>
      [1, 1e-20, 1e25].map((sd) => ({
        label: `[${shape}] of size ${sd}`,
        inputs: { g: normal(random, shape, sd) },
        attributes: {},
        terms: shape.reduce((a, b) => a * b, 1),
        large: true,
      })),
    ),
};

const clipByNorm: Entry = {
  misfits: [["norm", 0]],
  cases: (random) =>
    [[0], [1], [33], [40001]].flatMap((shape) =>
      [0, 0.5, 1, 7].map((norm) => ({
        label: `[${shape}] norm ${norm}`,
        inputs: { g: normal(random, shape), norm: tensor([1], () => norm) },
        attributes: { maxNorm: norm === 7 ? 2 : 1 },
        terms: 1,
        large: true,
      })),
    ),
};

function adam(): Entry {
  return {
    misfits: [
      ["g", 0],
      ["m", 0],
      ["v", 0],
    ],
    cases: (random) =>
      [[0], [1], [17], [3, 33], [17001]].flatMap((shape) =>
        (
          [
            { step: 1 },
            { step: 2, weightDecay: 0.1, lr: 0.01 },
            { step: 5000, beta1: 0.8, beta2: 0.99, eps: 1e-4, weightDecay: 0 },
          ] as Case["attributes"][]
        ).map((attributes) => ({
          label: `[${shape}] step ${attributes.step}`,
          inputs: {
            p: normal(random, shape),
            g: normal(random, shape, 0.1),
            m: normal(random, shape, attributes.step === 1 ? 0 : 0.05),
            v: tensor(shape, () => (attributes.step === 1 ? 0 : random.uniform(1e-6, 1e-2))),
          },
          attributes,
          terms: 4,
          large: true,
        })),
      ),
  };
}

export const table: Record<string, Entry> = {
  activation,
  prelu,
  scale,
  dropout,
  layer_norm: layerNorm,
  softmax,
  add: pair(),
  mul: pair(),
  concat,
  grad_norm: gradNorm,
  clip_by_norm: clipByNorm,
  adam: adam(),
  adamw: adam(),
  ...lossEntries,
  ...gatherEntries,
  ...mapEntries,
};

export function entryOf(info: OperatorInfo): Entry {
  const entry = table[info.name];
  if (!entry) throw new Error(`${info.name} has no entry in test/operators/cases.ts`);
  return entry;
}

/** The cases of an operator; always the same. */
export function casesOf(info: OperatorInfo): Case[] {
  return entryOf(info).cases(new Random(2024, `cases/${info.name}`));
}
