/** Combining the answers of several trained models (spec 2.1), and scoring them. */
export * from "./combine.ts";
export {
  compareSystems,
  type EvaluateOptions,
  evaluateRuns,
  readRunConfig,
  type RunEvaluation,
  type SystemAnswers,
} from "./evaluate.ts";
export {
  Ensemble,
  type EnsembleOptions,
  type EnsemblePrediction,
  findMembers,
  loadEnsemble,
  type Member,
} from "./load.ts";
export { learningCurves, reportData, writeEvaluationReport } from "./report.ts";
export { classTable, systemTable, textTable } from "./table.ts";
