/** Configuration from the command line: a YAML file or a data folder, with flags on top. */
import path from "node:path";
import { parse as parseYamlText } from "yaml";
import { readYaml } from "../data/yaml.ts";
import { AffuseError } from "../errors.ts";
import { z } from "zod";
import { parseTrainConfig, readTrainConfig, type TrainConfig } from "./config.ts";

/** Flags that stand for configuration keys. */
export interface TrainFlags {
  structure?: string[];
  epochs?: number;
  folds?: number;
  by?: string;
  batch?: number;
  lr?: number;
  seed?: number;
  split?: string;
  stream?: string[];
  modality?: Record<string, string>;
  /** Any key: ["train.lr", "0.01"]; the value is read as YAML. */
  set?: [string, string][];
  precision?: string;
  threads?: number;
  device?: string;
}

type Tree = { [key: string]: unknown };

function assign(tree: Tree, key: string, value: unknown): void {
  const parts = key.split(".");
  const bad = parts.some(
    (part) => part === "" || part === "__proto__" || part === "constructor" || part === "prototype",
  );
  if (bad)
    throw new AffuseError("ERR_AFFUSE_CONFIG", `expected a key like train.lr, got ${JSON.stringify(key)}.`);
  let at = tree;
  for (const part of parts.slice(0, -1)) {
    const next = at[part];
    if (typeof next === "object" && next !== null && !Array.isArray(next)) at = next as Tree;
    else {
      const made: Tree = {};
      at[part] = made;
      at = made;
    }
  }
  at[parts.at(-1) as string] = value;
}

/** Puts values, read as YAML, at keys like "train.lr" of a tree. @throws ERR_AFFUSE_CONFIG */
export function assignKeys(tree: Tree, pairs: readonly (readonly [string, string])[]): void {
  for (const [key, text] of pairs) {
    let value: unknown;
    try {
      value = parseYamlText(text, { maxAliasCount: 0, customTags: [] });
    } catch (error) {
      throw new AffuseError("ERR_AFFUSE_CONFIG", `--set ${key}: ${(error as Error).message}.`, "", {
        cause: error,
      });
    }
    assign(tree, key, value);
  }
}

/**
 * @param source YAML file, or a folder with labels and features
 * @throws ERR_AFFUSE_CONFIG, ERR_AFFUSE_NOT_FOUND
 */
export function loadTrainConfig(source: string, isFolder: boolean, flags: TrainFlags): TrainConfig {
  // Read once through the schema: complaints about the file name its lines; flags are then laid over what the
  // file says.
  const base: Tree = isFolder
    ? { data: path.resolve(source) }
    : { ...(readYaml(source, z.record(z.string(), z.unknown())) as Tree) };
  if (!isFolder) {
    const checked = readTrainConfig(source);
    for (const key of ["data", "features", "labels"] as const)
      if (checked[key] !== null) base[key] = checked[key];
  }
  const put = (key: string, value: unknown) => {
    if (value !== undefined) assign(base, key, value);
  };
  put("structures", flags.structure);
  put("train.epochs", flags.epochs);
  put("train.folds", flags.folds);
  put("train.foldsBy", flags.by);
  put("train.batchSize", flags.batch);
  put("train.lr", flags.lr);
  put("train.seed", flags.seed);
  put("train.precision", flags.precision);
  put("split", flags.split);
  put("streams", flags.stream);
  put("modalities", flags.modality);
  put("run.threads", flags.threads);
  put("run.device", flags.device);
  assignKeys(base, flags.set ?? []);
  return parseTrainConfig(base);
}
