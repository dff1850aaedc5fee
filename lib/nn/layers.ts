import { constantInit, uniformInit, xavierNormalInit } from "../graph/parameters.ts";
import type { Value } from "../graph/value.ts";
import type { Builder } from "./builder.ts";

export type Activation = "none" | "relu" | "gelu" | "tanh" | "sigmoid";

const last = (value: Value) => value.shape[value.shape.length - 1] as number;
const output = (outputs: Record<string, Value>, name: string) => outputs[name] as Value;

/** y = act(x Wᵀ + b): x [B,in] → [B,width]. W and b start uniform on ±1/√in. */
export function linear(
  b: Builder,
  name: string,
  x: Value,
  width: number,
  options: { bias?: boolean; activation?: Activation } = {},
): Value {
  const fanIn = last(x);
  const W = b.parameter(`${name}.W`, [width, fanIn], uniformInit(fanIn));
  const bias = options.bias === false ? null : b.parameter(`${name}.b`, [width], uniformInit(fanIn));
  return output(b.graph.op("linear", { x, W, b: bias }, { activation: options.activation ?? "none" }), "y");
}

/** Inverted dropout while training, else the identity. */
export function dropout(b: Builder, x: Value, p: number): Value {
  if (!b.training || p === 0) return x;
  return output(b.graph.op("dropout", { x }, { p, ...b.dropoutAttributes() }), "y");
}

/** [Linear → ReLU → Dropout] per width (spec 2.1). */
export function mlp(
  b: Builder,
  name: string,
  x: Value,
  config: { widths: readonly number[]; dropout: number },
): Value {
  let value = x;
  config.widths.forEach((width, i) => {
    value = dropout(b, linear(b, `${name}.${i}`, value, width, { activation: "relu" }), config.dropout);
  });
  return value;
}

/** Joins along the last dimension; up to 8 values. One value is returned as it is. */
export function concat(b: Builder, values: readonly Value[]): Value {
  if (values.length === 1) return values[0] as Value;
  const joined: Value[] = [];
  for (let i = 0; i < values.length; i += 8) {
    const part = values.slice(i, i + 8);
    const inputs = Object.fromEntries(part.map((value, j) => [`x${j}`, value]));
    const axis = (part[0] as Value).shape.length - 1;
    joined.push(part.length === 1 ? (part[0] as Value) : output(b.graph.op("concat", inputs, { axis }), "y"));
  }
  return concat(b, joined);
}

/** J values [B,D] as one [B,J,D]. */
export function stack(b: Builder, values: readonly Value[]): Value {
  const [batch, width] = (values[0] as Value).shape as [number, number];
  return b.graph.reshape(concat(b, values), [batch, values.length, width]);
}

/** Σ_j w_j x_j: x [B,J,D], w [B,J] → [B,D]. */
export function weightedSum(b: Builder, x: Value, w: Value): Value {
  return output(b.graph.op("weighted_sum", { x, w }), "y");
}

/** Scales every row of x [B,D] by its own factor w [B,1]. */
export function scaleRows(b: Builder, x: Value, w: Value): Value {
  return output(b.graph.op("mul", { a: x, b: w }), "y");
}

export interface GatherInput {
  /** [B,T,D] */
  x: Value;
  /** int32 [B]; absent: all T frames. */
  lengths?: Value | null;
  /** int32 [B,T]; 0: treat like padding. AFG only. */
  mask?: Value | null;
  /** g [B,G]: another stream's vector that guides the gathering, q = W_q g. Absent: the learned u. AFG only. */
  guide?: Value | null;
}

export interface Gathered {
  /** [B,D] */
  c: Value;
  /** [B,T] */
  alpha: Value;
}

/**
 * Attention-guided feature gathering (spec 1.1). `dim` is A, null: A = D. W and b start uniform on ±1/√D, u
 * Xavier-normal, W_q (no bias) uniform on ±1/√G.
 */
export function afgGather(
  b: Builder,
  name: string,
  input: GatherInput,
  config: { dim: number | null; scale: number; masked: boolean },
): Gathered {
  const [batch, frames, width] = input.x.shape as [number, number, number];
  const dim = config.dim ?? width;
  const W = b.parameter(`${name}.W`, [dim, width], uniformInit(width));
  const bias = b.parameter(`${name}.b`, [dim], uniformInit(width));
  const query: { u?: Value; q?: Value } = {};
  if (input.guide) {
    query.q = b.graph.reshape(linear(b, `${name}.q`, input.guide, dim, { bias: false }), [batch, 1, dim]);
  } else {
    query.u = b.parameter(`${name}.u`, [dim], xavierNormalInit(dim, 1));
  }
  const { c, alpha } = b.graph.op(
    "afg",
    { x: input.x, lengths: input.lengths, mask: input.mask, W, b: bias, ...query },
    { scale: config.scale, masked: config.masked },
  );
  return {
    c: b.graph.reshape(c as Value, [batch, width]),
    alpha: b.graph.reshape(alpha as Value, [batch, frames]),
  };
}

/**
 * Ratio attention (spec 1.1): c = Σ α_t x_t / Σ α_t with α_t = σ(q·x_t + β). q starts uniform on ±1/√D, β at 0. `alpha`
 * is the gate, not normalised.
 */
export function ratioGather(b: Builder, name: string, input: GatherInput): Gathered {
  const width = last(input.x);
  const q = b.parameter(`${name}.q`, [width], uniformInit(width));
  const beta = b.parameter(`${name}.beta`, [1], constantInit(0));
  const { c, alpha } = b.graph.op("ratio_attention", { x: input.x, lengths: input.lengths, q, beta });
  return { c: c as Value, alpha: alpha as Value };
}

export interface FbpConfig {
  k: number;
  outputs: number;
  dropout: number;
  normalize: "none" | "l2" | "power" | "power-l2";
  activation: "none" | "relu" | "tanh";
}

/**
 * Factorized bilinear pooling (spec 1.2) with biased projections: a [B,m], v [B,n] → z [B,o]. The biases let an all-zero
 * (absent) modality still yield a vector of the other one. All weights start uniform on ±1/√fan-in.
 */
export function fbp(b: Builder, name: string, a: Value, v: Value, config: FbpConfig): Value {
  const { k, outputs, normalize, activation } = config;
  const side = (letter: string, x: Value) => ({
    weight: b.parameter(`${name}.${letter}`, [outputs * k, last(x)], uniformInit(last(x))),
    bias: b.parameter(`${name}.b${letter.toLowerCase()}`, [outputs * k], uniformInit(last(x))),
  });
  const left = side("U", a);
  const right = side("V", v);
  const inputs = { a, v, U: left.weight, V: right.weight, bu: left.bias, bv: right.bias };
  const random =
    b.training && config.dropout > 0 ? { dropout: config.dropout, ...b.dropoutAttributes() } : {};
  return output(b.graph.op("fbp", inputs, { k, normalize, activation, ...random }), "z");
}
