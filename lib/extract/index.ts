/** From clips to feature files, and from clips to predictions. */
export { clipOfFile, findClips } from "./discover.ts";
export {
  DEFAULT_ENCODERS,
  type EncoderSummary,
  extract,
  type ExtractFailure,
  type ExtractOptions,
  type ExtractSummary,
} from "./extract.ts";
export { clipFeatures } from "./features.ts";
export { type FeatureManifest, featureManifestSchema, FeatureStore, fingerprint } from "./store.ts";
export {
  attentionRanges,
  type ClipError,
  type ClipResult,
  encodersOf,
  predictClips,
  type PredictClipsOptions,
  type StreamAttention,
  type TimeRange,
} from "./predict.ts";
