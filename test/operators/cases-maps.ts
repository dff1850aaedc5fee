/** Cases of the operators over maps: convolution, pooling, LRN. */
import type { Random } from "../../lib/data/random.ts";
import type { Case, Entry } from "./cases.ts";
import { reduced } from "./cases-gather.ts";
import { elements, type Inputs, integers, normal, tensor, type Values } from "./run.ts";

/** [B,C,H,W] in the order of a layout. */
function mapShape(layout: string, [B, C, H, W]: readonly [number, number, number, number]): number[] {
  return layout === "nhwc" ? [B, H, W, C] : [B, C, H, W];
}

/** Item and column of an element of a map. */
function placeOf(layout: string, shape: readonly number[], index: number): { b: number; w: number } {
  const b = Math.floor(index / Math.max(1, elements(shape.slice(1))));
  const [W, C] = layout === "nhwc" ? [shape[2], shape[3]] : [shape[3], 1];
  return { b, w: Math.floor(index / (C as number)) % (W as number) };
}

/** Random widths, 0 and W among them. */
function widthsOf(random: Random, B: number, W: number): Values {
  return integers([B], (b) => (b === 0 ? W : b === 1 ? 0 : random.integer(W + 1)));
}

const windows = (n: number, size: number, stride: number, pad: number) =>
  n === 0 || n + 2 * pad < size ? 0 : Math.floor((n + 2 * pad - size) / stride) + 1;

type Dims = readonly [B: number, C: number, H: number, W: number];

/** A map whose columns beyond widths hold NaN; and which elements of dy and of the saved y belong to no item. */
function mapCase(
  random: Random,
  layout: string,
  dims: Dims,
  masked: boolean,
  windowOf: { size: number; stride: number; pad: number },
  values: (random: Random) => number = (r) => r.normal(),
) {
  const shape = mapShape(layout, dims);
  const widths = widthsOf(random, dims[0], dims[3]);
  const own = (b: number) => (masked ? (widths.data[b] as number) : dims[3]);
  const inputs: Inputs = {
    x: tensor(shape, (i) => {
      const { b, w } = placeOf(layout, shape, i);
      return w < own(b) ? values(random) : Number.NaN;
    }),
  };
  if (masked) inputs.widths = widths;
  const { size, stride, pad } = windowOf;
  const unread = (outputs: readonly number[]) => (input: string, index: number) => {
    if (input !== "dy" && input !== "y") return false;
    const { b, w } = placeOf(layout, outputs, index);
    return w >= windows(own(b), size, stride, pad);
  };
  return { inputs, unread };
}

const LAYOUTS = ["nchw", "nhwc"] as const;

const conv2d: Entry = {
  operands: ["x", "W"],
  misfits: [
    ["W", 1],
    ["b", 0],
    ["widths", 0],
  ],
  cases: (random) => {
    const list: Case[] = [];
    const add = (
      dims: Dims,
      [O, kh, kw]: readonly [number, number, number],
      [stride, pad]: readonly [number, number],
      large: boolean,
    ) => {
      const i = list.length;
      const layout = LAYOUTS[i % 2] as string;
      const activation = i % 4 < 2 ? "none" : "relu";
      const masked = i % 3 === 2;
      const [B, C, H, W] = dims;
      const { inputs, unread } = mapCase(random, layout, dims, masked, { size: kw, stride, pad });
      inputs.W = normal(random, [O, C, kh, kw], 1 / Math.sqrt(C * kh * kw));
      if (i % 5 !== 4) inputs.b = normal(random, [O], 0.3);
      const y: Dims = [B, O, windows(H, kh, stride, pad), windows(W, kw, stride, pad)];
      list.push({
        label: [
          `${layout} [${dims}] to ${O} by ${kh}x${kw} stride ${stride} pad ${pad} ${activation}`,
          ...Object.keys(inputs).slice(1),
        ].join(" "),
        inputs,
        attributes: { stride, pad, layout, activation },
        terms: Math.max(C * kh * kw, O * kh * kw, B * y[2] * y[3]),
        large,
        unread: unread(mapShape(layout, y)),
      });
    };
    // Every combination of layout, activation, widths and bias on small odd shapes.
    const few = (n: number) => 1 + random.integer(n);
    for (let i = 0; i < 30; i++) {
      const [kh, kw] = [few(3), few(3)];
      const pad = random.integer(3);
      add(
        [few(3), few(3), kh + random.integer(4), kw + random.integer(5)],
        [few(3), kh, kw],
        [few(3), pad],
        false,
      );
    }
    // Stride beyond the kernel, pad beyond the kernel, the window as large as the padded map, one position.
    for (const [dims, kernel, step] of [
      [
        [2, 2, 7, 6],
        [2, 2, 1],
        [4, 0],
      ],
      [
        [2, 1, 3, 4],
        [2, 1, 1],
        [1, 2],
      ],
      [
        [3, 2, 2, 3],
        [2, 2, 2],
        [2, 4],
      ],
      [
        [2, 3, 4, 5],
        [2, 6, 7],
        [1, 1],
      ],
      [
        [3, 2, 5, 4],
        [3, 5, 4],
        [2, 0],
      ],
      [
        [1, 1, 1, 1],
        [1, 1, 1],
        [1, 0],
      ],
    ] as const) {
      for (let i = 0; i < 4; i++) add(dims, kernel, step, false);
    }
    for (let i = 0; i < 4; i++) add([0, 3, 5, 4], [2, 3, 3], [1, 1], false);
    // Around the edges of vectors, tiles and pieces of K.
    for (const [dims, kernel, step] of [
      [
        [2, 17, 9, 15],
        [33, 3, 3],
        [1, 1],
      ],
      [
        [1, 16, 12, 31],
        [32, 5, 5],
        [1, 2],
      ],
      [
        [3, 31, 6, 17],
        [15, 1, 1],
        [1, 0],
      ],
      [
        [2, 1, 40, 45],
        [24, 11, 11],
        [4, 0],
      ],
      [
        [2, 65, 5, 9],
        [64, 3, 3],
        [1, 1],
      ],
      [
        [3, 8, 13, 23],
        [7, 4, 3],
        [3, 2],
      ],
      [
        [1, 230, 4, 9],
        [40, 3, 3],
        [1, 1],
      ],
      [
        [2, 7, 3, 130],
        [9, 2, 5],
        [2, 1],
      ],
      // Patch rows of whole lines; positions in several pieces and slices.
      [
        [2, 16, 33, 45],
        [24, 3, 3],
        [1, 1],
      ],
      // Rows of the kernel that lie beside the map for many positions: some of K, whole pieces and parts of them are left out.
      [
        [5, 16, 3, 211],
        [18, 7, 3],
        [1, 3],
      ],
      [
        [3, 9, 4, 301],
        [17, 5, 2],
        [2, 4],
      ],
    ] as const) {
      for (let i = 0; i < 3; i++) add(dims, kernel, step, true);
    }
    return [...list, ...reduced(list, 2)];
  },
  floor: (output, inputs) => (output === "dW" || output === "db" || output === "dx" ? largest(inputs.dy) : 0),
};

function largest(values: Values | undefined): number {
  let most = 0;
  for (const x of values?.data ?? []) if (Math.abs(x) > most) most = Math.abs(x);
  return most;
}

function pool(values: (random: Random) => number): Entry {
  return {
    misfits: [["widths", 0]],
    cases: (random) => {
      const list: Case[] = [];
      const add = (dims: Dims, size: number, stride: number, large: boolean) => {
        const layout = LAYOUTS[list.length % 2] as string;
        const masked = list.length % 4 > 1;
        const step = stride || size;
        const { inputs, unread } = mapCase(
          random,
          layout,
          dims,
          masked,
          { size, stride: step, pad: 0 },
          values,
        );
        const y: Dims = [dims[0], dims[1], windows(dims[2], size, step, 0), windows(dims[3], size, step, 0)];
        list.push({
          label: `${layout} [${dims}] size ${size} stride ${stride}${masked ? " widths" : ""}`,
          inputs,
          attributes: { size, stride, layout },
          terms: size * size,
          large,
          unread: unread(mapShape(layout, y)),
        });
      };
      for (const [dims, size, stride] of [
        [[2, 3, 5, 7], 3, 2],
        [[3, 2, 4, 6], 2, 0],
        [[2, 1, 7, 8], 2, 3],
        [[3, 2, 4, 4], 4, 1],
        [[2, 2, 3, 5], 1, 1],
        [[3, 3, 6, 9], 3, 1],
        [[0, 2, 5, 5], 3, 2],
        [[1, 1, 1, 1], 1, 0],
      ] as const) {
        for (let i = 0; i < 4; i++) add(dims, size, stride, false);
      }
      for (const [dims, size, stride] of [
        [[2, 17, 9, 33], 3, 2],
        [[1, 96, 11, 25], 3, 2],
        [[3, 65, 8, 15], 2, 2],
        [[1, 2, 4, 2100], 3, 1],
      ] as const) {
        for (let i = 0; i < 4; i++) add(dims, size, stride, true);
      }
      return list;
    },
  };
}

const lrn: Entry = {
  misfits: [["widths", 0]],
  cases: (random) => {
    const list: Case[] = [];
    const add = (dims: Dims, attributes: Case["attributes"], sd: number, large = false) => {
      const layout = LAYOUTS[list.length % 2] as string;
      const masked = list.length % 4 > 1;
      const window = { size: 1, stride: 1, pad: 0 };
      const { inputs, unread } = mapCase(random, layout, dims, masked, window, (r) => r.normal(0, sd));
      list.push({
        label: `${layout} [${dims}] ${JSON.stringify(attributes)} sd ${sd}${masked ? " widths" : ""}`,
        inputs,
        attributes: { ...attributes, layout },
        terms: Number(attributes.size ?? 5),
        large,
        unread: unread(mapShape(layout, dims)),
      });
    };
    const settings: Case["attributes"][] = [
      {},
      { alphaOverN: true, alpha: 0.5, k: 1 },
      { size: 4, alpha: 0.3 },
      { size: 1, alpha: 1, beta: 0.5 },
      { size: 3, alpha: 0.7, beta: 1.3, k: 0.5 },
      { size: 9, alpha: 0.2, beta: 1 },
      { alpha: 0 },
      { beta: 0, alpha: 1 },
    ];
    for (const attributes of settings)
      for (let i = 0; i < 4; i++) add([3, 4, 2, 3], attributes, 1 + 2 * (i % 2));
    for (const dims of [
      [2, 1, 3, 2],
      [2, 2, 1, 5],
      [0, 4, 2, 2],
      [1, 1, 1, 1],
    ] as Dims[])
      for (let i = 0; i < 4; i++) add(dims, {}, 30);
    for (const dims of [
      [2, 17, 5, 33],
      [1, 96, 7, 31],
      [3, 64, 3, 15],
      [1, 33, 2, 300],
    ] as Dims[])
      for (const attributes of settings.slice(0, 5)) add(dims, attributes, 5, true);
    // Channel-last rows of whole groups of vectors, and others, with every kind of power.
    for (const C of [32, 40, 256])
      for (const attributes of [
        { beta: 0.5 },
        { beta: 1.3, alpha: 0.3 },
        { alpha: 0.3 },
      ] as Case["attributes"][])
        for (let i = 0; i < 2; i++) add([1, C, 3, 5], attributes, 5, true);
    // Sums that are little beside k / alpha, some of them, and none.
    for (const C of [32, 96])
      for (const attributes of [
        {},
        { beta: 0.5, k: 1 },
        { beta: 3, alphaOverN: true },
      ] as Case["attributes"][])
        for (const sd of [1, 8, 14, 60]) for (let i = 0; i < 2; i++) add([1, C, 2, 5], attributes, sd, true);
    // The same in planes: groups of positions, more than one block of them, what is left of a group, few channels.
    for (const dims of [
      [2, 1, 1, 33],
      [1, 4, 2, 63],
      [2, 6, 3, 300],
      [1, 33, 1, 590],
    ] as Dims[])
      for (const attributes of [
        {},
        { beta: 0.5, k: 1 },
        { beta: 3, alphaOverN: true },
      ] as Case["attributes"][])
        for (const sd of [1, 10, 60]) for (let i = 0; i < 4; i++) add(dims, attributes, sd, true);
    // The same, where float32 does not hold the coefficients of a series in the sum.
    add([1, 32, 2, 5], { beta: 6, alpha: 1, k: 1e6 }, 22, true);
    return list;
  },
  // The two terms of dx may cancel: rounded at the larger one, which is at most (1 + 2 beta sqrt n) |dy| d^-beta.
  floor: (output, inputs, c) => {
    if (output !== "dx") return 0;
    const { beta = 0.75, k = 2, size = 5 } = c.attributes as Record<string, number>;
    return largest(inputs.dy) * (1 + 2 * beta * Math.sqrt(size)) * k ** -beta;
  },
};

const transpose: Entry = {
  misfits: [],
  cases: (random) =>
    (
      [
        [[3, 4], -2, -1],
        [[2, 3, 5], 1, 2],
        [[2, 3, 5], 2, 0],
        [[2, 3, 4, 5, 2], 1, 3],
        [[2, 3, 4], 1, 1],
        [[0, 3, 4], 0, 2],
        [[2, 17, 33, 3], 1, 2],
        [[2, 40, 65], 1, 2],
        [[3, 5, 9, 70], 1, 2],
      ] as const
    ).map(([shape, axis0, axis1]) => ({
      label: `[${shape}] axes ${axis0} ${axis1}`,
      inputs: { x: normal(random, [...shape]) },
      attributes: { axis0, axis1 },
      terms: 1,
      large: shape.length > 2 && shape[1] > 16,
    })),
};

export const mapEntries: Record<string, Entry> = {
  conv2d,
  max_pool2d: pool((random) => random.normal()),
  avg_pool2d: pool((random) => random.normal()),
  lrn,
  transpose,
};
