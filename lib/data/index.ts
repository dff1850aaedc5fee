/** Files, features, labels, folds and seeded random numbers. */
export * from "./csv.ts";
export * from "./dataset.ts";
export * from "./features.ts";
export * from "./files.ts";
export * from "./folds.ts";
export * from "./labels.ts";
export * from "./npy.ts";
export * from "./npz.ts";
export * from "./random.ts";
export * from "./safetensors.ts";
export * from "./yaml.ts";
