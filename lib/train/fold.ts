/** Training one model on one fold, so that it can stop anywhere and continue to the same bits. */
import { existsSync } from "node:fs";
import path from "node:path";
import {
  assembleBatch,
  type Standardization,
  StandardizedFeatures,
  standardization,
} from "../data/dataset.ts";
import type { FeatureSource, StreamInfo } from "../data/features.ts";
import { removeTemporaries, writeFileAtomic } from "../data/files.ts";
import type { ClipLabel } from "../data/labels.ts";
import { Random } from "../data/random.ts";
import { AffuseError } from "../errors.ts";
import { argmax } from "../metrics/evaluate.ts";
import { emotionScores, merMetric, valenceScores } from "../metrics/scores.ts";
import type { Model, ModelState, NamedTensor, StepResult } from "../models/types.ts";
import {
  type Checkpoint,
  type CheckpointInfo,
  type Progress,
  readCheckpoint,
  writeCheckpoint,
} from "./checkpoint.ts";
import { identityOf, metricName, modelConfig, refuseChanged } from "./fold-identity.ts";
import type { EpochRecord, FoldJob, FoldResult } from "./fold-job.ts";
import { type ClipPrediction, predictModel, writePredictions } from "./predict.ts";
import { epochBatches, learningRate } from "./schedule.ts";

/** A float that JSON cannot carry becomes null. */
const finite = (x: number): number | null => (Number.isFinite(x) ? x : null);

/**
 * Trains, validates after every epoch, saves `last.safetensors` after every epoch (and every
 * `checkpointSteps` steps), and leaves `best.safetensors`, `history.jsonl` and `predictions.{json,csv}`.
 * @throws ERR_AFFUSE_INTERRUPTED after saving, when the signal fires; ERR_AFFUSE_NONFINITE_LOSS with the last
 * checkpoint kept;
 *   ERR_AFFUSE_RESUME when the configuration or data changed; ERR_AFFUSE_WRITE
 */
export async function trainFold(job: FoldJob): Promise<FoldResult> {
  const model = job.createModel(modelConfig(job), job.features.streams, job.classes);
  try {
    return await new FoldTrainer(job, model).run();
  } finally {
    model.dispose();
  }
}

/** A step that was given to the model, and its clips. */
interface Stepping {
  names: string[];
  stepping: Promise<StepResult>;
}

class FoldTrainer {
  readonly #job: FoldJob;
  readonly #model: Model;
  readonly #metric: "merMetric" | "f1Weighted" | "wa" | "ua";
  readonly #identity: Record<string, unknown>;
  readonly #last: string;
  #stats: Standardization[] | null = null;
  /** What the model sees: standardised when the configuration says so. */
  #inputs: FeatureSource;
  #best: Record<string, NamedTensor> | null = null;
  #progress: Progress = {
    epoch: 0,
    batch: 0,
    step: 0,
    finished: false,
    bestEpoch: -1,
    bestMetric: null,
    sums: {},
    history: [],
  };

  constructor(job: FoldJob, model: Model) {
    this.#job = job;
    this.#model = model;
    this.#inputs = job.features;
    this.#metric = metricName(job);
    this.#identity = identityOf(job, model, this.#metric);
    this.#last = path.join(job.folder, "last.safetensors");
  }

  async run(): Promise<FoldResult> {
    const { features, fold, config, structure, index, folds } = this.#job;
    if (config.train.standardize) {
      this.#stats = await standardization(features, fold.train);
      this.#inputs = new StandardizedFeatures(features, this.#stats, config.run.cacheMiB * 2 ** 20);
    }
    const resumed = this.#job.resume && existsSync(this.#last);
    if (resumed) removeTemporaries(this.#job.folder);
    if (resumed) this.#restore(readCheckpoint(this.#last));
    const steps = Math.ceil(fold.train.length / config.train.batchSize);
    this.#job.onEvent?.({
      type: "fold",
      structure,
      fold: index,
      folds,
      epochs: config.train.epochs,
      steps,
      resumedAt: resumed ? this.#progress.epoch : null,
      finished: this.#progress.finished,
    });
    // A first checkpoint before any work: an unwritable or full folder shows at once, not after an epoch.
    if (!resumed) this.#save();
    while (!this.#progress.finished) await this.#epoch();
    return await this.#finish();
  }

  #restore(saved: Checkpoint): void {
    refuseChanged(this.#last, this.#job, saved, this.#identity, this.#stats);
    if (!saved.info.progress || !saved.state.m)
      throw new AffuseError("ERR_AFFUSE_FORMAT", `${this.#last} holds no training state.`);
    this.#progress = saved.info.progress;
    this.#best = saved.best;
    this.#model.load(saved.state);
  }

  async #epoch(): Promise<void> {
    const { features, fold, config, labels, structure, index, signal } = this.#job;
    const progress = this.#progress;
    const { train, run } = config;
    const lr = learningRate(train, progress.epoch);
    const batches = epochBatches(
      features,
      fold.train,
      train.batchSize,
      new Random(train.seed, `fold ${index}`).integer(2 ** 31),
      progress.epoch,
    );
    const used = this.#model.streams.map(({ name }) => name);
    const load = (names: string[]) => {
      const batch = assembleBatch(this.#inputs, names, {
        streams: used,
        labels: names.map((name) => labels.get(name) as ClipLabel),
      });
      batch.catch(() => {}); // reported when it is awaited
      return batch;
    };
    const first = batches[progress.batch];
    let next = first ? load(first) : null;
    let last = { sE: 0, sV: 0 };
    const saves = (step: number) => run.checkpointSteps > 0 && step % run.checkpointSteps === 0;
    const settle = async ({ names, stepping }: Stepping) => {
      const result = await stepping;
      if (![result.loss, result.ce, result.mse, result.gradNorm].every(Number.isFinite)) {
        throw new AffuseError(
          "ERR_AFFUSE_NONFINITE_LOSS",
          `${structure}, fold ${index}: loss ${result.loss}, gradient norm ${result.gradNorm} in step ${progress.step + 1} (epoch ${progress.epoch}) with the clips ${names.slice(0, 8).join(", ")}${names.length > 8 ? ", …" : ""}.`,
          `Lower train.lr or set model.optimizer.maxNorm; ${this.#last} still holds the state before.`,
        );
      }
      progress.step++;
      progress.batch++;
      for (const key of ["loss", "ce", "mse", "gradNorm"] as const)
        progress.sums[key] = (progress.sums[key] ?? 0) + result[key] * names.length;
      progress.sums.clips = (progress.sums.clips ?? 0) + names.length;
      progress.sums.sE = result.sE;
      progress.sums.sV = result.sV;
      last = result;
      this.#job.onEvent?.({
        type: "step",
        structure,
        fold: index,
        epoch: progress.epoch,
        batch: progress.batch,
        batches: batches.length,
        loss: result.loss,
      });
      if (saves(progress.step) && progress.batch < batches.length) this.#save();
    };
    // A device is given the next step while it still computes one: that is fed and queued before this ends.
    const ahead = run.device === "cpu" ? 0 : 1;
    let running: Stepping | null = null;
    try {
      for (let at = progress.batch; at < batches.length; at++) {
        // Nothing may be running when the state is saved.
        if (running && (signal?.aborted || saves(progress.step + 1))) {
          await settle(running);
          running = null;
        }
        this.#checkInterrupted(signal);
        const names = batches[at] as string[];
        const batch = await (next as Promise<Awaited<ReturnType<typeof load>>>);
        const stepping = this.#model.trainStep(batch, { lr, step: progress.step + (running ? 2 : 1) });
        stepping.catch(() => {}); // reported when it is awaited
        const before: Stepping | null = running;
        running = { names, stepping };
        const following = batches[at + 1];
        next = following ? load(following) : null; // read while the step runs
        if (before) await settle(before);
        if (ahead > 0 && at + 1 < batches.length) continue;
        await settle(running);
        running = null;
      }
    } finally {
      await running?.stepping.catch(() => {}); // after an error: the model is idle when it is seen
    }
    this.#checkInterrupted(signal);
    last = { sE: progress.sums.sE ?? last.sE, sV: progress.sums.sV ?? last.sV };
    await this.#closeEpoch(lr, last);
  }

  /** Validates, keeps the weights if they are the best so far, saves. */
  async #closeEpoch(lr: number, { sE, sV }: { sE: number; sV: number }): Promise<void> {
    const { structure, index, config } = this.#job;
    const progress = this.#progress;
    const scores = this.#score(await this.#predict(this.#job.fold.validation));
    const value = scores.metric;
    const mean = (key: string) => (progress.sums[key] ?? 0) / (progress.sums.clips || 1);
    const record: EpochRecord = {
      epoch: progress.epoch,
      step: progress.step,
      lr,
      loss: mean("loss"),
      ce: mean("ce"),
      mse: mean("mse"),
      sigmaEmotion: Math.exp(sE / 2),
      sigmaValence: Math.exp(sV / 2),
      weightEmotion: Math.exp(-sE),
      weightValence: Math.exp(-sV),
      gradNorm: mean("gradNorm"),
      validation: scores,
    };
    const better =
      this.#best === null ||
      (value !== null && (progress.bestMetric === null || value > progress.bestMetric));
    if (better) {
      progress.bestEpoch = progress.epoch;
      progress.bestMetric = value;
      this.#best = this.#model.state().parameters;
    }
    progress.history.push(record as unknown as Record<string, unknown>);
    progress.epoch++;
    progress.batch = 0;
    progress.sums = {};
    const waited = progress.epoch - 1 - progress.bestEpoch;
    const { patience, epochs } = config.train;
    progress.finished = progress.epoch >= epochs || (patience !== null && waited >= patience);
    this.#save();
    this.#saveHistory();
    if (better) this.#saveBest(false);
    this.#job.onEvent?.({ type: "epoch", structure, fold: index, record, best: better });
  }

  #predict(clips: readonly string[]) {
    const { config } = this.#job;
    return predictModel(this.#model, this.#inputs, clips, {
      batchSize: config.train.batchSize,
    });
  }

  #score(predictions: readonly ClipPrediction[]): EpochRecord["validation"] {
    const truth = predictions.map(({ name }) => this.#job.labels.get(name) as ClipLabel);
    const emotion = emotionScores({
      truth: truth.map((label) => label.emotion),
      predicted: predictions.map(({ posteriors }) => argmax(posteriors)),
      classes: this.#job.classes.length,
    });
    const valence = valenceScores({
      truth: truth.map((label) => label.valence),
      predicted: predictions.map((p) => p.valence),
    });
    const mer = merMetric(emotion.f1Weighted, valence.mse);
    const { wa, ua, f1Weighted } = emotion;
    const values = { wa, ua, f1Weighted, merMetric: mer };
    return {
      metric: finite(values[this.#metric]),
      wa,
      ua,
      f1Weighted,
      mse: finite(valence.mse),
      merMetric: finite(mer),
    };
  }

  #info(progress: Progress | null): CheckpointInfo {
    const { version, classes, structure, index, config, features } = this.#job;
    return {
      format: "affuse-checkpoint-1",
      version,
      classes: [...classes],
      config: this.#model.config,
      streams: features.streams.map(
        ({ name, modality, dim, manifest }): StreamInfo => ({ name, modality, dim, manifest }),
      ),
      structure,
      fold: index,
      seed: config.train.seed,
      metric: this.#metric,
      metricValue: this.#progress.bestMetric,
      epoch: this.#progress.bestEpoch,
      identity: progress ? this.#identity : {},
      progress,
    };
  }

  #save(): void {
    writeCheckpoint(this.#last, {
      info: this.#info(this.#progress),
      state: this.#model.state(),
      best: this.#best,
      standardization: this.#stats,
    });
  }

  /** @param durable false while last.safetensors still holds the same weights */
  #saveBest(durable: boolean): void {
    const state: ModelState = { step: 0, parameters: this.#best ?? {} };
    const model = { info: this.#info(null), state, best: null, standardization: this.#stats };
    writeCheckpoint(path.join(this.#job.folder, "best.safetensors"), model, durable);
  }

  #saveHistory(): void {
    const text = this.#progress.history.map((line) => `${JSON.stringify(line)}\n`).join("");
    // Rewritten from the checkpoint on resuming, so it need not survive a power cut: no fsync.
    writeFileAtomic(path.join(this.#job.folder, "history.jsonl"), text, "the history", false);
  }

  #checkInterrupted(signal: AbortSignal | undefined): void {
    if (!signal?.aborted) return;
    this.#save();
    throw new AffuseError(
      "ERR_AFFUSE_INTERRUPTED",
      `interrupted; the state is saved in ${this.#last}.`,
      "Continue with --resume.",
    );
  }

  /**
   * With the best weights: the model file and the predictions. Done again on resuming a finished fold, to the
   * same bits.
   */
  async #finish(): Promise<FoldResult> {
    const { fold, folder, classes, structure, index } = this.#job;
    const { bestEpoch, bestMetric, epoch } = this.#progress;
    if (this.#best) this.#model.load({ step: this.#progress.step, parameters: this.#best });
    // Written again: a kill between the checkpoint and these files must leave no trace.
    this.#saveBest(true);
    this.#saveHistory();
    const predictions: FoldResult["predictions"] = [];
    for (const part of ["validation", "test"] as const) {
      for (const { name, posteriors, logits, valence } of await this.#predict(fold[part])) {
        predictions.push({ name, part, posteriors, logits, valence });
      }
    }
    writePredictions(path.join(folder, "predictions"), classes, predictions);
    const value = bestMetric ?? Number.NaN;
    this.#job.onEvent?.({ type: "done", structure, fold: index, bestEpoch, metric: this.#metric, value });
    return { bestEpoch, metric: this.#metric, value, epochs: epoch, predictions };
  }
}
