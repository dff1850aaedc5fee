import { z } from "zod";
import { AffuseError } from "../errors.ts";

/**
 * What a model is, as plain JSON: stored in every checkpoint, accepted from YAML. Defaults are the specification's
 * (2.1, 1.2, 1.4, 1.5). Unknown keys are refused, so that a misspelt option is never silently ignored.
 */
export const modelConfigSchema = z.strictObject({
  /** Wiring (spec 2.1, 2.2). `audio` and `visual` are the concat wiring over one modality's streams. */
  structure: z.enum(["concat", "weighted", "hierarchical", "gfbp", "audio", "visual"]),
  /** Seed of the initial parameters and of every dropout mask. */
  seed: z.int().min(0).max(Number.MAX_SAFE_INTEGER).default(0),
  attention: z
    .strictObject({
      /** Width A of the attention space; null: A = D of the stream. */
      dim: z.int().min(1).nullable().default(null),
      /** λ, the factor on the scores before the softmax. */
      scale: z.number().positive().default(0.3),
      /** false: the compatibility variant in which zero padding takes part in the softmax. */
      masked: z.boolean().default(true),
    })
    .prefault({}),
  mlp: z
    .strictObject({
      /** Output widths of the [Linear → ReLU → Dropout] blocks; the last one is the embedding's width. */
      widths: z.array(z.int().min(1)).min(1).max(8).default([256, 128]),
      /** Probability of dropping an element, [0, 1). */
      dropout: z.number().min(0).lt(1).default(0.3),
    })
    .prefault({}),
  /** G-FBP only (spec 1.2, 2.2). */
  fbp: z
    .strictObject({
      /** Summed products per output. */
      k: z.int().min(1).max(64).default(4),
      /** Outputs o: the width of the fused embedding. */
      outputs: z.int().min(1).default(256),
      /** Dropout inside the operator, on the products. */
      dropout: z.number().min(0).lt(1).default(0.1),
      normalize: z.enum(["none", "l2", "power", "power-l2"]).default("power-l2"),
      activation: z.enum(["none", "relu", "tanh"]).default("none"),
      /** Width both modalities are mapped to before pooling; null: the gathered vectors as they are. */
      commonWidth: z.int().min(1).nullable().default(null),
      /** How the visual streams are gathered over time. */
      visualGather: z.enum(["ratio", "afg"]).default("ratio"),
      /** Dropout on the frames ahead of the ratio attention; what it gathers is the dropped frames. Off by default. */
      frameDropout: z.number().min(0).lt(1).default(0),
      /** Dropout between the pooled vector and the heads. */
      outputDropout: z.number().min(0).lt(1).default(0.3),
    })
    .prefault({}),
  valence: z
    .strictObject({
      /** f in v_e = tanh(w·f(e) + b), spec 1.4. */
      transform: z.enum(["identity", "softmax", "prelu"]).default("identity"),
    })
    .prefault({}),
  loss: z
    .strictObject({
      form: z.enum(["kendall", "half", "log1p", "sum"]).default("kendall"),
      labelSmoothing: z.number().min(0).lt(1).default(0),
      /** One weight per class, or null for none. */
      classWeights: z.array(z.number().nonnegative()).nullable().default(null),
    })
    .prefault({}),
  optimizer: z
    .strictObject({
      /** adam: weight decay is added to the gradient; adamw: decoupled. */
      type: z.enum(["adam", "adamw"]).default("adam"),
      beta1: z.number().min(0).lt(1).default(0.9),
      beta2: z.number().min(0).lt(1).default(0.999),
      eps: z.number().positive().default(1e-8),
      weightDecay: z.number().nonnegative().default(1e-5),
      /** Largest global 2-norm of the gradient; null: no clipping. */
      maxNorm: z.number().positive().nullable().default(null),
    })
    .prefault({}),
  /** Probability that a training clip loses one whole modality in a step (spec 2.3), [0, 1). */
  modalityDropout: z.number().min(0).lt(1).default(0),
});

/** A complete configuration: every default filled in. */
export type ModelConfig = z.output<typeof modelConfigSchema>;
/** What a user writes: only `structure` is required. */
export type ModelConfigInput = z.input<typeof modelConfigSchema>;
export type Structure = ModelConfig["structure"];

/**
 * Checks a configuration and fills in the defaults.
 * @throws AffuseError ERR_AFFUSE_CONFIG naming every offending key
 */
export function parseModelConfig(value: unknown): ModelConfig {
  const parsed = modelConfigSchema.safeParse(value);
  if (parsed.success) return parsed.data;
  const problems = parsed.error.issues.map((issue) => {
    const where = issue.path.length > 0 ? issue.path.join(".") : "(top level)";
    return `${where}: ${issue.message}`;
  });
  throw new AffuseError(
    "ERR_AFFUSE_CONFIG",
    `expected a valid model configuration, got problems in ${problems.join("; ")}.`,
    "Correct these keys; unknown keys are refused.",
  );
}
