/** Training: configuration, schedule, folds, checkpoints, whole runs. */
export { type Checkpoint, type CheckpointInfo, readCheckpoint, writeCheckpoint } from "./checkpoint.ts";
export {
  parseTrainConfig,
  readTrainConfig,
  type TrainConfig,
  type TrainConfigInput,
  trainConfigSchema,
} from "./config.ts";
export { trainFold } from "./fold.ts";
export type { EpochRecord, FoldJob, FoldResult, ModelFactory, TrainEvent } from "./fold-job.ts";
export {
  type ClipPrediction,
  type DetailedPrediction,
  predictModel,
  type Predictions,
  readPredictions,
  writePredictions,
} from "./predict.ts";
export {
  evaluatePredictions,
  type LoadedData,
  loadData,
  type RunOptions,
  type RunResults,
  type SystemResult,
  trainRun,
} from "./run.ts";
export { epochBatches, learningRate } from "./schedule.ts";
