/** Metrics of the specification's section 3, with bootstrap intervals and a paired test. */
export * from "./evaluate.ts";
export * from "./scores.ts";
