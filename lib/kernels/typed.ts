/**
 * The operators with their tensors and attributes in the type. Each runs synchronously and zero-copy; `.async` runs on the
 * runtime's threads. Shapes are in the letters of docs/specification.md; numbers like (1.1) are its sections. Each
 * operator's backward is op("<name>.backward", …).
 */
import type { AttributeValue, TypedArray } from "../native/addon.ts";
import { type OpOptions, type Outputs, op, opAsync, type TensorLike } from "./op.ts";

type Given<Required extends string, Optional extends string> = Readonly<
  Record<Required, TensorLike> & Partial<Record<Optional, TensorLike | null>>
>;
type Options<Name extends string> = Omit<OpOptions, "outputs"> & {
  outputs?: readonly Name[] | Readonly<Partial<Record<Name, TypedArray | boolean>>>;
};

/** An operator with its types; `Saved` are the optional outputs that training keeps. */
export interface TypedOperator<
  Required extends string,
  Optional extends string,
  Made extends string,
  Saved extends string,
  Attributes,
> {
  (
    inputs: Given<Required, Optional>,
    attributes?: Attributes,
    options?: Options<Made | Saved>,
  ): Outputs<Made> & Partial<Outputs<Saved>>;
  async(
    inputs: Given<Required, Optional>,
    attributes?: Attributes,
    options?: Options<Made | Saved>,
  ): Promise<Outputs<Made> & Partial<Outputs<Saved>>>;
}

function typed<
  Required extends string,
  Optional extends string,
  Made extends string,
  Saved extends string = never,
  Attributes extends object = Record<string, never>,
>(name: string): TypedOperator<Required, Optional, Made, Saved, Attributes> {
  type Call = TypedOperator<Required, Optional, Made, Saved, Attributes>;
  const given = (attributes?: Attributes) => (attributes ?? {}) as Record<string, AttributeValue>;
  const call = (inputs: object, attributes?: Attributes, options?: object) =>
    op(name, inputs as Record<string, TensorLike>, given(attributes), options);
  const later = (inputs: object, attributes?: Attributes, options?: object) =>
    opAsync(name, inputs as Record<string, TensorLike>, given(attributes), options);
  return Object.assign(call, { async: later }) as unknown as Call;
}

export type ActivationName = "none" | "relu" | "gelu" | "tanh" | "sigmoid";
/** Any 64-bit unsigned integer; a bigint beyond 2^53. */
export type Seed = number | bigint;

/**
 * Attention-guided feature gathering (1.1): x [B,T,D], lengths int32 [B], W [A,D], b [A] and either u [A] or q [B,J,A] →
 * c [B,J,D], alpha [B,J,T]; saved: k [B,T,A]. mask int32 [B,T]: 0 treats a frame like padding. `masked: false` lets
 * zero-filled padding take part in the softmax.
 */
export const afg = typed<
  "x" | "W" | "b",
  "lengths" | "u" | "q" | "mask",
  "c" | "alpha",
  "k",
  { scale?: number; masked?: boolean }
>("afg");

/** Ratio attention (1.1): x [B,T,D], lengths int32 [B], q [D], beta [1] → c [B,D], the gates alpha [B,T]. */
export const ratioAttention = typed<"x" | "q" | "beta", "lengths" | "mask", "c" | "alpha">("ratio_attention");

/**
 * Factorized bilinear pooling (1.2): a [B/rowsPerGroup,m], v [B,n], U [o·k,m], V [o·k,n], biases bu, bv [o·k] → z [B,o],
 * s [B,o]. Defaults: k 4, power + L2 normalisation, no activation, no dropout, rowsPerGroup 1 (how many consecutive rows of v
 * share a row of a). l2Scope "group" takes the L2 norm over all rows of a group instead of each row.
 * Optional outputs hu [B/rowsPerGroup,o·k], hv [B,o·k]: the activated projections, for fbp.backward; there only if both take
 * at most 64 MiB together.
 */
export const fbp = typed<
  "a" | "v" | "U" | "V",
  "bu" | "bv",
  "z" | "s",
  "hu" | "hv",
  {
    k?: number;
    normalize?: "none" | "l2" | "power" | "power-l2";
    activation?: "none" | "relu" | "tanh";
    dropout?: number;
    seed?: Seed;
    instance?: number;
    step?: number;
    rowsPerGroup?: number;
    l2Scope?: "sample" | "group";
    eps?: number;
    eps2?: number;
  }
>("fbp");

/** y = activation(x Wᵀ + b): x […,D], W [O,D], b [O] → y […,O]. */
export const linear = typed<"x" | "W", "b", "y", "pre", { activation?: ActivationName }>("linear");

/** Element-wise activation: x → y of the same shape. Default relu. */
export const activation = typed<"x", never, "y", never, { activation?: ActivationName }>("activation");

/** y = x where x > 0, slope·x elsewhere: x of any shape, slope [1]. */
export const prelu = typed<"x" | "slope", never, "y">("prelu");

/** Layer norm over the last dimension: x […,C], gamma [C], beta [C] → y. */
export const layerNorm = typed<"x" | "gamma" | "beta", never, "y", "mean" | "rstd", { eps?: number }>("layer_norm");

/** Softmax over the last dimension: x […,C] → y. */
export const softmax = typed<"x", never, "y">("softmax");

/** Inverted dropout with the Philox mask of section 0: x → y. p in [0,1). */
export const dropout = typed<
  "x",
  never,
  "y",
  never,
  { p?: number; seed?: Seed; instance?: number; step?: number }
>("dropout");

/** Concatenation of up to eight tensors along `axis` (default the last): x0, x1 … → y. */
export const concat = typed<"x0", "x1" | "x2" | "x3" | "x4" | "x5" | "x6" | "x7", "y", never, { axis?: number }>("concat");

/** a + b, element by element, equal shapes → y. */
export const add = typed<"a" | "b", never, "y">("add");

/** a · b, element by element, equal shapes → y. */
export const mul = typed<"a" | "b", never, "y">("mul");

/** factor · x → y. */
export const scale = typed<"x", never, "y", never, { factor?: number }>("scale");

/** y_b = Σ_j w_bj x_bj: x [B,J,D], w [B,J] → y [B,D]. */
export const weightedSum = typed<"x" | "w", never, "y">("weighted_sum");

/** Mean cross-entropy over the labelled rows: logits [B,C], labels int32 [B] (-1: missing) → loss [1], posteriors [B,C]. */
export const softmaxCrossEntropy = typed<
  "logits" | "labels",
  "classWeights",
  "loss" | "posteriors",
  "count",
  { labelSmoothing?: number }
>("softmax_cross_entropy");

/** Mean squared error over the targets that are not NaN: prediction, target of equal shape → loss [1]. */
export const maskedMse = typed<"prediction" | "target", never, "loss", "count">("masked_mse");

/** Multi-task loss under uncertainty (1.5): ce, mse, s_e, s_v, each [1] → loss [1]. Tasks with count 0 add nothing. */
export const uncertaintyLoss = typed<
  "ce" | "mse" | "s_e" | "s_v",
  "countE" | "countV",
  "loss",
  never,
  { form?: "kendall" | "half" | "log1p" | "sum" }
>("uncertainty_loss");

/** Euclidean norm of all elements: g of any shape → norm [1]. The same for any thread count. */
export const gradNorm = typed<"g", never, "norm">("grad_norm");

/** g · min(1, maxNorm / norm): g, norm [1] → g. May write onto its input. */
export const clipByNorm = typed<"g" | "norm", never, "g", never, { maxNorm?: number }>("clip_by_norm");

interface AdamAttributes {
  lr?: number;
  beta1?: number;
  beta2?: number;
  eps?: number;
  weightDecay?: number;
  /** Counts from 1. */
  step?: number;
}

/** One Adam step (weight decay added to the gradient): p, g, m, v → p, m, v. May write onto its inputs. */
export const adam = typed<"p" | "g" | "m" | "v", never, "p" | "m" | "v", never, AdamAttributes>("adam");

/** One AdamW step (decoupled weight decay): p, g, m, v → p, m, v. May write onto its inputs. */
export const adamw = typed<"p" | "g" | "m" | "v", never, "p" | "m" | "v", never, AdamAttributes>("adamw");

type MapLayout = "nchw" | "nhwc";

/**
 * 2-D convolution (1.6): x [B,C,H,W], W [O,C,kh,kw], b [O] → y [B,O,OH,OW]; with layout "nhwc" maps are [B,H,W,C] and
 * [B,OH,OW,O], the faster order. widths int32 [B]: columns that are each item's own; the others count as zeros, may hold
 * NaN, and give columns of zeros beyond yWidths. Defaults: stride 1, pad 0, no activation, nchw.
 */
export const conv2d = typed<
  "x" | "W",
  "b" | "widths",
  "y",
  "yWidths",
  { stride?: number; pad?: number; activation?: "none" | "relu"; layout?: MapLayout }
>("conv2d");

/** Largest element of each size×size window, no padding: x [B,C,H,W] → y [B,C,OH,OW]. Default size 2, stride = size. */
export const maxPool2d = typed<
  "x",
  "widths",
  "y",
  "yWidths",
  { size?: number; stride?: number; layout?: MapLayout }
>("max_pool2d");

/** Mean of each size×size window, no padding: x [B,C,H,W] → y [B,C,OH,OW]. Default size 2, stride = size. */
export const avgPool2d = typed<
  "x",
  "widths",
  "y",
  "yWidths",
  { size?: number; stride?: number; layout?: MapLayout }
>("avg_pool2d");

/**
 * Local response normalisation across `size` channels (1.6): x [B,C,H,W] → y. Defaults as in the specification: size 5,
 * alpha 1e-4 (not divided by size unless alphaOverN), beta 0.75, k 2.
 */
export const lrn = typed<
  "x",
  "widths",
  "y",
  never,
  { size?: number; alpha?: number; beta?: number; k?: number; alphaOverN?: boolean; layout?: MapLayout }
>("lrn");

/** Two axes of x change places → y; negative axes count from the end. Default: the last two. */
export const transpose = typed<"x", never, "y", never, { axis0?: number; axis1?: number }>("transpose");
