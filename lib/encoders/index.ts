export { BUILTIN, builtinModel } from "./builtin.ts";
export {
  type EncoderManifest,
  type EncoderManifestInput,
  manifestSchema,
  parseManifest,
  readManifest,
} from "./manifest.ts";
export { type Attribute, type Dimension, OnnxGraph } from "./onnx.ts";
export {
  type ClipFeatures,
  EncoderPool,
  type PoolOptions,
  type ResolvedEncoder,
  resolveEncoder,
} from "./pool.ts";
export { PRESETS } from "./presets.ts";
export type { Provider, ProviderReport } from "./worker.ts";
