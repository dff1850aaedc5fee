/** The demonstration: the whole way from clips to an ensemble's predictions, on data with known truth. */
export { type AttentionContrast, attentionContrast } from "./attention.ts";
export { type DemoOptions, type DemoResult, type DemoStage, runDemo } from "./run.ts";
export { DEFAULT_SETTINGS, type DemoSettings, SYSTEMS, type SystemName } from "./settings.ts";
