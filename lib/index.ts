export { AffuseError, isAffuseError } from "./errors.ts";
export * as data from "./data/index.ts";
export * as metrics from "./metrics/index.ts";
export * as synth from "./synth/index.ts";
