/** What follows from a fold's job before training: its metric, its model, and what must stay the same to continue it. */
import type { Standardization } from "../data/dataset.ts";
import { Random } from "../data/random.ts";
import { AffuseError } from "../errors.ts";
import { hasValence } from "../metrics/scores.ts";
import type { ModelConfigInput } from "../models/config.ts";
import type { Model } from "../models/types.ts";
import type { Checkpoint } from "./checkpoint.ts";
import { differences } from "./config.ts";
import type { FoldJob } from "./fold-job.ts";

/** Name of the metric that chooses the epoch. */
export function metricName(job: FoldJob): "merMetric" | "f1Weighted" | "wa" | "ua" {
  const { metric } = job.config.train;
  if (metric !== "auto") return metric;
  const any = (names: string[]) =>
    names.some((name) => hasValence(job.labels.get(name)?.valence ?? Number.NaN));
  return any(job.fold.validation) && any(job.fold.train) ? "merMetric" : "f1Weighted";
}

/**
 * Model configuration of this structure and fold: its own seed and, when asked for, balanced class weights.
 */
export function modelConfig(job: FoldJob): ModelConfigInput {
  const { config, structure, index, classes, fold, labels } = job;
  const seed = new Random(config.train.seed, `model ${structure} fold ${index}`).integer(2 ** 31);
  const loss = { ...config.model.loss };
  if (config.train.classWeights === "balanced") {
    const counts = new Array<number>(classes.length).fill(0);
    for (const name of fold.train) {
      const emotion = labels.get(name)?.emotion ?? -1;
      if (emotion >= 0) counts[emotion] = (counts[emotion] ?? 0) + 1;
    }
    const n = counts.reduce((sum, count) => sum + count, 0);
    const present = counts.filter((count) => count > 0).length;
    loss.classWeights = counts.map((count) => (count > 0 ? n / (present * count) : 1));
  }
  return { ...config.model, loss, structure, seed };
}

/** Everything that must not change between the runs of one training. Compared key by key on resuming. */
export function identityOf(job: FoldJob, model: Model, metric: string): Record<string, unknown> {
  const { features, fold, labels } = job;
  const clip = (name: string) => {
    const label = labels.get(name);
    const valence = label && hasValence(label.valence) ? label.valence : null;
    return [label?.emotion ?? -1, valence, ...features.streams.map((_, s) => features.length(name, s))];
  };
  return {
    config: { model: model.config, train: job.config.train },
    metric,
    classes: [...job.classes],
    streams: features.streams.map(({ name, modality, dim, manifest }) => ({ name, modality, dim, manifest })),
    clips: Object.fromEntries(
      (["train", "validation", "test"] as const).map((part) => [
        part,
        Object.fromEntries(fold[part].map((name) => [name, clip(name)])),
      ]),
    ),
  };
}

const plain = (value: unknown): unknown => JSON.parse(JSON.stringify(value));

export function refuseChanged(
  file: string,
  job: FoldJob,
  saved: Checkpoint,
  identity: unknown,
  stats: Standardization[] | null,
): void {
  let changed = differences(saved.info.identity, plain(identity));
  const same = (a: Float32Array, b: Float32Array) =>
    a.length === b.length && a.every((x, i) => Object.is(x, b[i]));
  if (changed.length === 0 && stats) {
    changed = job.features.streams.flatMap(({ name }, s) => {
      const old = saved.standardization?.[s];
      const now = stats[s] as Standardization;
      return old && same(old.mean, now.mean) && same(old.scale, now.scale) ? [] : [`features of ${name}`];
    });
  }
  if (changed.length === 0) return;
  throw new AffuseError(
    "ERR_AFFUSE_RESUME",
    `${file} cannot be continued: the configuration or the data changed since (${changed.slice(0, 5).join(", ")}${changed.length > 5 ? ", …" : ""}).`,
    "Restore them, or train into another folder.",
  );
}
