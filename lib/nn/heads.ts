import { constantInit, type Initializer } from "../graph/parameters.ts";
import type { Value } from "../graph/value.ts";
import type { Builder } from "./builder.ts";
import { concat, linear } from "./layers.ts";

/**
 * Joint decoding (spec 1.4): h [B,H] → logits e [B,C] and valence v [B,1] = m₁ tanh(w·f(e) + b) + m₂ (w_v·h + b_v) + m₀.
 * m₁ = m₂ = ½ and m₀ = 0 at the start *(chosen)*; PReLU's slope starts at ¼ as in He et al. 2015. Nothing is detached:
 * the valence loss reaches W_e.
 */
export function jointDecoding(
  b: Builder,
  name: string,
  h: Value,
  config: { classes: number; transform: "identity" | "softmax" | "prelu" },
): { logits: Value; valence: Value } {
  const logits = linear(b, `${name}.e`, h, config.classes);
  let transformed = logits;
  if (config.transform === "softmax") transformed = b.graph.op("softmax", { x: logits }).y as Value;
  if (config.transform === "prelu") {
    const slope = b.parameter(`${name}.slope`, [1], constantInit(0.25));
    transformed = b.graph.op("prelu", { x: logits, slope }).y as Value;
  }
  const implied = linear(b, `${name}.ev`, transformed, 1, { activation: "tanh" });
  const direct = linear(b, `${name}.v`, h, 1);
  const m = b.parameter(`${name}.m`, [1, 2], constantInit(0.5));
  const m0 = b.parameter(`${name}.m0`, [1], constantInit(0));
  const mixed = b.graph.op(
    "linear",
    { x: concat(b, [implied, direct]), W: m, b: m0 },
    { activation: "none" },
  );
  return { logits, valence: mixed.y as Value };
}

export interface LossConfig {
  form: "kendall" | "half" | "log1p" | "sum";
  labelSmoothing: number;
  classWeights: readonly number[] | null;
}

export interface MultiTaskLoss {
  /** [1] each. */
  loss: Value;
  ce: Value;
  mse: Value;
  sE: Value;
  sV: Value;
  /** [B,C] */
  posteriors: Value;
}

const zero: Initializer = constantInit(0);

/**
 * Multi-task loss under uncertainty (spec 1.5). labels int32 [B], −1 = missing; target [B], NaN = missing. s_e and s_v
 * start at 0 and are exempt from weight decay. A batch without a label of a task gives that task no weight: its term is 0
 * and its s gets gradient 0.
 */
export function multiTaskLoss(
  b: Builder,
  name: string,
  heads: { logits: Value; valence: Value },
  truth: { labels: Value; target: Value },
  config: LossConfig,
): MultiTaskLoss {
  const weights = config.classWeights
    ? b.graph.constant(
        { dtype: "f32", shape: [config.classWeights.length] },
        Float32Array.from(config.classWeights),
      )
    : null;
  const {
    loss: ce,
    posteriors,
    count: countE,
  } = b.graph.op(
    "softmax_cross_entropy",
    { logits: heads.logits, labels: truth.labels, classWeights: weights },
    { labelSmoothing: config.labelSmoothing },
  ) as { loss: Value; posteriors: Value; count: Value };
  const prediction = b.graph.reshape(heads.valence, truth.target.shape);
  const { loss: mse, count: countV } = b.graph.op("masked_mse", { prediction, target: truth.target }) as {
    loss: Value;
    count: Value;
  };
  const sE = b.parameter(`${name}.s_e`, [1], zero, { decay: false });
  const sV = b.parameter(`${name}.s_v`, [1], zero, { decay: false });
  const loss = b.graph.op(
    "uncertainty_loss",
    { ce, mse, s_e: sE, s_v: sV, countE, countV },
    { form: config.form },
  ).loss as Value;
  return { loss, ce, mse, sE, sV, posteriors };
}
