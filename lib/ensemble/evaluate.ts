/**
 * Trained runs against labels: on their own held-out folds (from files alone), or on another split of the
 * data.
 */
import path from "node:path";
import { streamFolders } from "../data/features.ts";
import { type ClipLabel, readLabels } from "../data/labels.ts";
import { readYaml } from "../data/yaml.ts";
import { AffuseError } from "../errors.ts";
import {
  argmax,
  type BootstrapOptions,
  type Evaluated,
  type Evaluation,
  evaluate,
  type PairedTest,
  pairedTest,
} from "../metrics/evaluate.ts";
import { type TrainConfig, trainConfigSchema } from "../train/config.ts";
import { type ClipPrediction, readPredictions } from "../train/predict.ts";
import { loadData } from "../train/run.ts";
import { align, type CombineOptions, combinePresent, reorderClasses } from "./combine.ts";
import { type EnsembleOptions, findMembers, loadEnsemble } from "./load.ts";

/** The configuration that a run was trained with. @throws ERR_AFFUSE_NOT_FOUND, ERR_AFFUSE_CONFIG */
export function readRunConfig(run: string): TrainConfig {
  return readYaml(path.join(run, "config.yaml"), trainConfigSchema);
}

export interface EvaluateOptions extends BootstrapOptions, Omit<EnsembleOptions, "labels"> {
  /** Split to predict and score; null: the held-out folds' predictions as saved in the runs. */
  on?: string | null;
  /** Where the data lies now. Default: as in the first run's configuration. */
  data?: string;
  features?: string;
  labels?: string;
}

export interface SystemAnswers {
  predictions: ClipPrediction[];
  /** Null when no clip has a label. */
  evaluation: Evaluation | null;
}

export interface RunEvaluation {
  classes: readonly string[];
  /** Split, or "held-out folds". */
  on: string;
  clips: number;
  /** Labels by clip name. */
  truth: ReadonlyMap<string, ClipLabel>;
  /** By structure, and "ensemble" (all members) when there are several structures. */
  systems: Record<string, SystemAnswers>;
  /** Weight of every member in the ensemble; null for per-clip weights and for held-out folds. */
  weights: { structure: string; fold: number; weight: number }[] | null;
  notes: string[];
}

function score(
  predictions: readonly ClipPrediction[],
  truth: ReadonlyMap<string, ClipLabel>,
  classes: readonly string[],
  options: BootstrapOptions,
): Evaluation | null {
  const data = toEvaluated(predictions, truth, classes);
  return Array.from(data.truth).some((emotion) => emotion >= 0) ? evaluate(data, options) : null;
}

function toEvaluated(
  predictions: readonly ClipPrediction[],
  truth: ReadonlyMap<string, ClipLabel>,
  classes: readonly string[],
): Evaluated {
  const labels = predictions.map(({ name }) => truth.get(name));
  return {
    classes,
    truth: labels.map((label) => label?.emotion ?? -1),
    predicted: predictions.map(({ posteriors }) => argmax(posteriors)),
    valenceTruth: labels.map((label) => label?.valence ?? Number.NaN),
    valencePredicted: predictions.map(({ valence }) => valence),
  };
}

function combineOptions({ method, temperature, clampValence }: EvaluateOptions): CombineOptions {
  return {
    ...(method && { method }),
    ...(temperature !== undefined && { temperature }),
    ...(clampValence && { clampValence }),
  };
}

/**
 * Scores runs: each structure (mean over its folds) and the ensemble of everything.
 * @param runs run folders; members of the same structure from several runs are pooled
 * @throws ERR_AFFUSE_NOT_FOUND, ERR_AFFUSE_CLASSES, ERR_AFFUSE_ENSEMBLE and those of the data
 */
export async function evaluateRuns(
  runs: readonly string[],
  options: EvaluateOptions = {},
): Promise<RunEvaluation> {
  const [first] = runs;
  if (first === undefined)
    throw new AffuseError("ERR_AFFUSE_ENSEMBLE", "expected at least one run, got none.");
  const saved = readRunConfig(first);
  const config: TrainConfig = {
    ...saved,
    ...(options.data !== undefined && { data: options.data, features: null, labels: null }),
    ...(options.features !== undefined && { features: options.features }),
    ...(options.labels !== undefined && { labels: options.labels }),
  };
  return options.on == null
    ? heldOut(runs, config, options)
    : await onSplit(runs, config, options.on, options);
}

/** @param needed splits without which nothing can be said; what is wrong with others is noted */
function readTruth(
  config: TrainConfig,
  needed: readonly string[],
  onNote: (text: string) => void = () => {},
): { classes: readonly string[]; truth: Map<string, ClipLabel> } {
  const { classes, clips } = readLabels(config.labels ?? config.data, {
    ...(config.classes && { classes: config.classes }),
    needed,
    onNote,
  });
  return { classes, truth: new Map(clips.map((clip) => [clip.name, clip])) };
}

/** Labels in a class order of names; refuses names that the models do not know. */
function inClassOrder(
  truth: ReadonlyMap<string, ClipLabel>,
  from: readonly string[],
  to: readonly string[],
): Map<string, ClipLabel> {
  const index = from.map((name) => to.indexOf(name));
  return new Map(
    [...truth].map(([name, label]) => {
      const emotion = label.emotion < 0 ? -1 : (index[label.emotion] as number);
      if (emotion < 0 && label.emotion >= 0) {
        throw new AffuseError(
          "ERR_AFFUSE_CLASSES",
          `the clip ${name} is labelled ${from[label.emotion]}, the models know ${to.join(", ")}.`,
        );
      }
      return [name, { ...label, emotion }];
    }),
  );
}

function heldOut(runs: readonly string[], config: TrainConfig, options: EvaluateOptions): RunEvaluation {
  if (options.method === "fitted")
    throw new AffuseError(
      "ERR_AFFUSE_ENSEMBLE",
      "fitted weights are for other splits: on held-out folds they would be fitted on what they are then scored with.",
      "Add --on SPLIT, or use the mean.",
    );
  const members = runs.flatMap((run) =>
    findMembers(run, options.structures).map(({ folder, structure }) => ({
      name: folder,
      structure,
      ...readPredictions(path.join(folder, "predictions.json")),
    })),
  );
  const { classes } = members[0] as { classes: string[] };
  const notes: string[] = [];
  const read = readTruth(config, [config.split], (text) => notes.push(text));
  const truth = inClassOrder(read.truth, read.classes, classes);
  const tests = members.map((member) => ({
    ...member,
    clips: member.clips.filter((clip) => clip.part === "test"),
  }));
  if (tests.every(({ clips }) => clips.length === 0)) {
    throw new AffuseError(
      "ERR_AFFUSE_NOT_FOUND",
      `${runs.join(", ")}: nothing was held out (one fold only).`,
      "Evaluate on another split: --on SPLIT.",
    );
  }
  const structures = [...new Set(members.map(({ structure }) => structure))];
  const systems: RunEvaluation["systems"] = {};
  for (const name of structures.length > 1 ? [...structures, "ensemble"] : structures) {
    const { clips } = align(
      tests
        .filter(({ structure }) => name === "ensemble" || structure === name)
        .map((member) => ({ ...member, clips: member.clips })),
    );
    // Classes of align() are its first member's; bring everything to the run's first.
    const own = tests.find(({ structure }) => name === "ensemble" || structure === name)?.classes ?? classes;
    const reorder = reorderClasses(own, classes, name);
    const predictions = clips.map(({ answers }) => reorder(combinePresent(answers, combineOptions(options))));
    systems[name] = { predictions, evaluation: score(predictions, truth, classes, options) };
  }
  return {
    classes,
    on: "held-out folds",
    clips: Math.max(...Object.values(systems).map(({ predictions }) => predictions.length)),
    truth,
    systems,
    weights: null,
    notes,
  };
}

async function onSplit(
  runs: readonly string[],
  config: TrainConfig,
  split: string,
  options: EvaluateOptions,
): Promise<RunEvaluation> {
  const { data: _d, features: _f, labels: _l, ...rest } = options;
  // Fitted weights need the labels of the validation clips as well. What else there is to note loadData() says below.
  const read = readTruth(config, options.method === "fitted" ? [split, config.split] : [split]);
  const ensemble = await loadEnsemble(runs, { ...rest, labels: read.truth });
  try {
    const { classes } = ensemble;
    const wanted = ensemble.streams.map(({ name }) => name);
    const found = streamFolders(config.features ?? config.data);
    const present = wanted.filter((name) => found.has(name));
    const absent = wanted.filter((name) => !found.has(name));
    if (present.length === 0)
      throw new AffuseError(
        "ERR_AFFUSE_NOT_FOUND",
        `${config.features ?? config.data}: none of the models' streams ${wanted.join(", ")} is there.`,
      );
    const modalities = Object.fromEntries(ensemble.streams.map(({ name, modality }) => [name, modality]));
    const data = loadData({ ...config, streams: present, modalities }, split);
    const notes = [
      ...data.notes,
      ...absent.map((name) => `the data has no stream ${name}, which counts as missing`),
    ];
    const truth = inClassOrder(new Map(data.clips.map((clip) => [clip.name, clip])), read.classes, classes);
    const names = data.clips.map(({ name }) => name);
    const answers = await ensemble.answers(data.features, names);
    const structures = [...new Set(ensemble.members.map(({ structure }) => structure))];
    const systems: RunEvaluation["systems"] = {};
    for (const system of structures.length > 1 ? [...structures, "ensemble"] : structures) {
      const chosen = ensemble.members.flatMap(({ structure }, s) =>
        system === "ensemble" || structure === system ? [s] : [],
      );
      const weights = ensemble.weights && chosen.map((s) => ensemble.weights?.[s] as number);
      // a structure that the fit has switched off: equal weights for itself
      const usable = weights?.some((w) => w > 0) ? weights : null;
      const predictions = names.map((_, i) =>
        combinePresent(
          chosen.map((s) => answers[s]?.[i] as ClipPrediction),
          usable
            ? { ...combineOptions(options), weights: usable }
            : { ...combineOptions(options), ...(options.method === "fitted" && { method: "mean" as const }) },
        ),
      );
      systems[system] = { predictions, evaluation: score(predictions, truth, classes, options) };
    }
    const weights =
      ensemble.weights &&
      ensemble.members.map(({ structure, fold }, s) => ({
        structure,
        fold,
        weight: ensemble.weights?.[s] as number,
      }));
    return { classes, on: split, clips: names.length, truth, systems, weights, notes };
  } finally {
    ensemble.dispose();
  }
}

/** Paired test of two systems on the clips that both answered. @param metric see pairedTest */
export function compareSystems(
  a: readonly ClipPrediction[],
  b: readonly ClipPrediction[],
  truth: ReadonlyMap<string, ClipLabel>,
  classes: readonly string[],
  metric: string,
  options: BootstrapOptions = {},
): PairedTest {
  const other = new Map(b.map((prediction) => [prediction.name, prediction]));
  const common = a.filter(({ name }) => other.has(name) && truth.has(name));
  if (common.length === 0)
    throw new AffuseError("ERR_AFFUSE_LENGTH", "the two runs have no labelled clip in common.");
  return pairedTest(
    toEvaluated(common, truth, classes),
    toEvaluated(
      common.map(({ name }) => other.get(name) as ClipPrediction),
      truth,
      classes,
    ),
    metric,
    options,
  );
}
