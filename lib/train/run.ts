/**
 * A training run: every structure on every fold, in one folder.
 *
 *     RUN/config.yaml                        the complete configuration
 *     RUN/folds.json                         who trains, validates and tests in each fold
 *     RUN/<structure>/fold<k>/last.safetensors   training state    best.safetensors   model
 *                             history.jsonl  predictions.json  predictions.csv
 *     RUN/results.json                       scores on the held-out folds with intervals
 */
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { packageRoot } from "#root";
import { describeMatch, type Match, matchClips } from "../data/dataset.ts";
import { FeatureFolders, type FeatureSource, findStreams } from "../data/features.ts";
import { removeTemporaries, writeFileAtomic, writeJson } from "../data/files.ts";
import { type Folds, makeFolds, readFolds } from "../data/folds.ts";
import { type ClipLabel, type LabelSet, readLabels } from "../data/labels.ts";
import { readYaml } from "../data/yaml.ts";
import { combinePresent, align } from "../ensemble/combine.ts";
import { AffuseError } from "../errors.ts";
import { argmax, type Evaluation, evaluate } from "../metrics/evaluate.ts";
import { hasValence } from "../metrics/scores.ts";
import { differences, formatTrainConfig, type TrainConfig, trainConfigSchema } from "./config.ts";
import { trainFold } from "./fold.ts";
import type { FoldResult, ModelFactory, TrainEvent } from "./fold-job.ts";
import { nativeModels } from "./native-models.ts";
import type { ClipPrediction } from "./predict.ts";

/** A data set ready for training or evaluation. */
export interface LoadedData {
  labels: LabelSet;
  /** Labelled clips of the wanted split with features. */
  clips: ClipLabel[];
  features: FeatureSource;
  match: Match;
  /** What did not fit together, one sentence each; empty when everything did. */
  notes: string[];
}

/**
 * Labels and features of one split, matched. Label files of other splits that cannot be read are noted and left out.
 * @throws the errors of readLabels, FeatureFolders, matchClips
 */
export function loadData(config: TrainConfig, split: string): LoadedData {
  const notes: string[] = [];
  const labels = readLabels(config.labels ?? config.data, {
    ...(config.classes && { classes: config.classes }),
    needed: [split],
    onNote: (text) => notes.push(text),
  });
  const ofSplit = labels.clips.filter((clip) => clip.split === split);
  if (ofSplit.length === 0) {
    const splits = [...new Set(labels.clips.map((clip) => clip.split))];
    throw new AffuseError(
      "ERR_AFFUSE_NOT_FOUND",
      `${config.labels ?? config.data}: no clip of the split ${JSON.stringify(split)}; there are ${splits.join(", ") || "no labels at all"}.`,
      ["Choose one of them.", ...notes].join("\n"),
    );
  }
  const folders = findStreams(config.features ?? config.data, config.modalities, config.streams);
  const features = new FeatureFolders(folders, { cacheBytes: config.run.cacheMiB * 2 ** 20 });
  const match = matchClips(ofSplit, features);
  // Features of other splits' clips are no surprise; only clips that no label file knows are reported.
  const known = new Set(labels.clips.map((clip) => clip.name));
  match.withoutLabel = match.withoutLabel.filter((name) => !known.has(name));
  notes.push(...describeMatch(match));
  // A misspelled column would otherwise go unnoticed.
  const noValence = match.clips.every(({ valence }) => !hasValence(valence));
  const noEmotion = match.clips.every(({ emotion }) => emotion < 0);
  if (match.clips.length > 0 && noValence && noEmotion)
    notes.push("no clip has an emotion or a valence (columns discrete, valence)");
  else if (match.clips.length > 0 && noValence)
    notes.push("no clip has a valence (column valence): emotions alone are learned");
  else if (match.clips.length > 0 && noEmotion)
    notes.push("no clip has an emotion (column discrete): valence alone is learned");
  return { labels, clips: match.clips, features, match, notes };
}

export interface RunOptions {
  /** Run folder. */
  out: string;
  /** Continue what is in `out`; without it a folder that holds a run is refused. */
  resume?: boolean;
  /** Stops after the running step; the state is saved and ERR_AFFUSE_INTERRUPTED thrown. */
  signal?: AbortSignal;
  onEvent?: (event: TrainEvent) => void;
  /** Told once about labels and features that do not fit together. */
  onNote?: (text: string) => void;
  /** Data in memory instead of files; config.data is then only a name. */
  data?: Omit<LoadedData, "match" | "notes"> & Partial<LoadedData>;
  /** Makes the models. Default: the native ones. */
  createModel?: ModelFactory;
}

/** What is reported about one system (a structure, or the mean of several). */
export interface SystemResult {
  /**
   * Scores on the held-out clips of all folds together; null when there is one fold only, which holds nothing
   * out.
   */
  heldOut: Evaluation | null;
  /** Scores on the validation clips of all folds together: they chose the epoch, so they flatter. */
  validation: Evaluation;
}

export interface RunResults {
  version: string;
  classes: readonly string[];
  /** Structures, and "ensemble" (mean of the posteriors) when there are several. */
  systems: Record<string, SystemResult>;
  folds: Record<
    string,
    { fold: number; bestEpoch: number; epochs: number; metric: string; value: number | null }[]
  >;
  clips: { used: number; withoutFeatures: string[]; withoutLabel: string[]; lacking: Record<string, number> };
}

function packageVersion(): string {
  return (JSON.parse(readFileSync(path.join(packageRoot, "package.json"), "utf8")) as { version: string })
    .version;
}

function refuseUnlabelled(clips: readonly ClipLabel[]): void {
  if (clips.some(({ emotion, valence }) => emotion >= 0 || hasValence(valence))) return;
  const others = Object.keys(clips[0]?.groups ?? {});
  throw new AffuseError(
    "ERR_AFFUSE_LABEL",
    `expected labels to learn from (columns discrete, valence), got none for any of ${clips.length} clips` +
      `${others.length > 0 ? `; their other columns are ${others.join(", ")}` : ""}.`,
    "Add what is known of the clips; without labels they can be predicted only.",
  );
}

/** Configuration and folds of the folder: written when new, compared when resuming. */
function prepareFolder(
  out: string,
  config: TrainConfig,
  clips: readonly ClipLabel[],
  resume: boolean,
): Folds {
  const configFile = path.join(out, "config.yaml");
  const foldsFile = path.join(out, "folds.json");
  if (existsSync(configFile)) {
    if (!resume)
      throw new AffuseError(
        "ERR_AFFUSE_EXISTS",
        `${out} already holds a run.`,
        "Continue it with --resume, or choose another --out.",
      );
    const old = readYaml(configFile, trainConfigSchema);
    // Where the data lies and how it is computed may change; what is computed may not.
    const essential = ({ data: _d, features: _f, labels: _l, run: _r, ...rest }: TrainConfig) => rest;
    const changed = differences(essential(old), essential(config));
    if (changed.length > 0) {
      throw new AffuseError(
        "ERR_AFFUSE_RESUME",
        `${out} was trained with another configuration: ${changed.join(", ")} differ.`,
        "Give the same settings, or train into another folder.",
      );
    }
  } else writeFileAtomic(configFile, formatTrainConfig(config), "the configuration");
  const { folds, foldsBy, seed, validation } = config.train;
  const fresh = makeFolds(clips, { count: folds, by: foldsBy, seed, validation });
  if (!existsSync(foldsFile)) {
    writeJson(foldsFile, fresh, "the folds");
    return fresh;
  }
  const saved = readFolds(foldsFile);
  const known = new Set(clips.map((clip) => clip.name));
  for (const fold of saved.folds) {
    for (const name of [...fold.train, ...fold.validation, ...fold.test]) {
      if (!known.has(name))
        throw new AffuseError(
          "ERR_AFFUSE_RESUME",
          `${foldsFile} names the clip ${name}, which the data no longer has.`,
          "Restore the data, or train into another folder.",
        );
    }
  }
  const changed = differences(saved, JSON.parse(JSON.stringify(fresh)));
  if (changed.length > 0) {
    throw new AffuseError(
      "ERR_AFFUSE_RESUME",
      `${foldsFile} does not fit the data any more: the set of clips or their classes changed.`,
      "Restore the data, or train into another folder.",
    );
  }
  return saved;
}

/**
 * Trains every structure on every fold and writes the run folder.
 * @throws ERR_AFFUSE_EXISTS, ERR_AFFUSE_RESUME, ERR_AFFUSE_INTERRUPTED, ERR_AFFUSE_NONFINITE_LOSS,
 * ERR_AFFUSE_WRITE, ERR_AFFUSE_LABEL when no clip has any label, and those of the data
 */
export async function trainRun(config: TrainConfig, options: RunOptions): Promise<RunResults> {
  const { out, resume = false, signal, onEvent } = options;
  const data = options.data ?? loadData(config, config.split);
  for (const note of data.notes ?? []) options.onNote?.(note);
  refuseUnlabelled(data.clips);
  const createModel = options.createModel ?? (await nativeModels({ ...config.run, precision: config.train.precision }));
  if (resume) removeTemporaries(out);
  const folds = prepareFolder(out, config, data.clips, resume);
  const labels = new Map(data.clips.map((clip) => [clip.name, clip]));
  const { classes } = data.labels;
  const results = new Map<string, FoldResult[]>();
  const version = packageVersion();
  for (const structure of config.structures) {
    const done: FoldResult[] = [];
    results.set(structure, done);
    for (const [index, fold] of folds.folds.entries()) {
      const folder = path.join(out, structure, `fold${index}`);
      const job = {
        createModel,
        features: data.features,
        labels,
        classes,
        fold,
        index,
        folds: folds.folds.length,
        structure,
        config,
        folder,
        version,
        resume,
      };
      done.push(await trainFold({ ...job, ...(signal && { signal }), ...(onEvent && { onEvent }) }));
    }
  }
  const summary = summarise(results, classes, labels, config.train.seed);
  const { match } = data;
  const value: RunResults = {
    version,
    classes,
    systems: summary,
    folds: Object.fromEntries(
      [...results].map(([structure, list]) => [
        structure,
        list.map(({ bestEpoch, epochs, metric, value }, fold) => ({
          fold,
          bestEpoch,
          epochs,
          metric,
          value: Number.isFinite(value) ? value : null,
        })),
      ]),
    ),
    clips: {
      used: data.clips.length,
      withoutFeatures: match?.withoutFeatures ?? [],
      withoutLabel: match?.withoutLabel ?? [],
      lacking: Object.fromEntries(
        Object.entries(match?.lacking ?? {}).map(([name, list]) => [name, list.length]),
      ),
    },
  };
  writeJson(path.join(out, "results.json"), value, "the results");
  return value;
}

/** Scores of predictions against labels, by name. Predictions must be in the order of `classes`. */
export function evaluatePredictions(
  predictions: readonly ClipPrediction[],
  labels: ReadonlyMap<string, ClipLabel>,
  classes: readonly string[],
  seed = 0,
): Evaluation {
  const known = predictions.filter(({ name }) => labels.has(name));
  const truth = known.map(({ name }) => labels.get(name) as ClipLabel);
  return evaluate(
    {
      classes,
      truth: truth.map((label) => label.emotion),
      predicted: known.map(({ posteriors }) => argmax(posteriors)),
      valenceTruth: truth.map((label) => label.valence),
      valencePredicted: known.map(({ valence }) => valence),
    },
    { seed },
  );
}

function summarise(
  results: ReadonlyMap<string, FoldResult[]>,
  classes: readonly string[],
  labels: ReadonlyMap<string, ClipLabel>,
  seed: number,
): Record<string, SystemResult> {
  const out: Record<string, SystemResult> = {};
  const score = (members: ClipPrediction[][]): Evaluation | null => {
    const { clips } = align(members.map((clips, s) => ({ name: `member ${s}`, classes, clips })));
    if (clips.length === 0) return null;
    return evaluatePredictions(
      clips.map(({ answers }) => combinePresent(answers)),
      labels,
      classes,
      seed,
    );
  };
  // A clip tests in exactly one fold but may validate in several: there each fold is a member of its own.
  const parts = (structures: string[]): SystemResult => {
    const ofPart = (part: string) =>
      structures.flatMap((s) =>
        (results.get(s) ?? []).map((fold) => fold.predictions.filter((p) => p.part === part)),
      );
    return { heldOut: score(ofPart("test")), validation: score(ofPart("validation")) as Evaluation };
  };
  const names = [...results.keys()];
  for (const name of names) out[name] = parts([name]);
  if (names.length > 1) out.ensemble = parts(names);
  return out;
}
