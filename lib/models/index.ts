export { bucket } from "./bucket.ts";
export {
  type ModelConfig,
  type ModelConfigInput,
  modelConfigSchema,
  parseModelConfig,
  type Structure,
} from "./config.ts";
export {
  defaultFcn,
  type FcnConfig,
  fcnExtent,
  type FcnFeatures,
  type FcnLayer,
  fcnLeast,
  fcnTrunk,
} from "./fcn.ts";
export { buildModelGraph, createModel, type ModelGraph, type ModelMode, type ModelShape } from "./model.ts";
export type {
  Batch,
  Inference,
  Model,
  ModelOptions,
  ModelState,
  NamedTensor,
  StepOptions,
  StepResult,
  StreamBatch,
  StreamSpec,
} from "./types.ts";
