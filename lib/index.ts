export { AffuseError, isAffuseError } from "./errors.ts";
export * as data from "./data/index.ts";
export * as metrics from "./metrics/index.ts";
export * as synth from "./synth/index.ts";
export * as graph from "./graph/index.ts";
export * as models from "./models/index.ts";
export * as nn from "./nn/index.ts";
