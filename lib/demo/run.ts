/**
 * The whole way once, on data with known truth: corpus → features → six systems → ensemble → scores on clips that no
 * training saw → attention against the truth → report.
 *
 *     OUT/corpus  OUT/features  OUT/run  OUT/report.html
 */
import path from "node:path";
import { evaluateRuns, loadEnsemble, type EnsemblePrediction } from "../ensemble/index.ts";
import { AffuseError } from "../errors.ts";
import { extract } from "../extract/index.ts";
import type { Evaluation } from "../metrics/index.ts";
import { type Ceilings, type ClipTruth, readTruth, synthesise } from "../synth/index.ts";
import { loadData, type TrainConfig, type TrainEvent, trainRun } from "../train/index.ts";
import { type AttentionContrast, attentionContrast } from "./attention.ts";
import { writeDemoReport } from "./report.ts";
import { type DemoSettings, demoTrainConfig, FUSION, SYSTEMS, type SystemName, TEST_SPLIT, UNIMODAL } from "./settings.ts";

export type DemoStage = "corpus" | "features" | "training" | "evaluation" | "report";

export interface DemoOptions {
  /** Folder for everything; a demonstration that was interrupted there goes on. */
  out: string;
  /** Threads of corpus, encoders and kernels; null: what each finds. */
  threads?: number | null;
  signal?: AbortSignal;
  /** A stage begins to work. */
  onStage?: (stage: DemoStage) => void;
  /** A stage found its work done, in this folder; it had no onStage(). */
  onReused?: (stage: DemoStage, folder: string) => void;
  onProgress?: (done: number, total: number) => void;
  onTrainEvent?: (event: TrainEvent) => void;
}

export interface DemoResult {
  settings: DemoSettings;
  testClips: number;
  /** Of the corpus, on these test labels. */
  ceilings: Ceilings;
  systems: Record<SystemName, Evaluation>;
  /** Per stream: mean attention of expressive against neutral frames, over the systems that gather by AFG. */
  attention: Record<string, AttentionContrast>;
  /** Wall time per stage. */
  seconds: Record<DemoStage | "total", number>;
  report: string;
}

/** Structures whose frames are all gathered by AFG (G-FBP gathers the visual stream by ratio attention). */
const AFG_STRUCTURES = ["concat", "weighted", "hierarchical"];

/**
 * Runs the demonstration.
 * @throws ERR_AFFUSE_EXISTS when `out` holds one of other settings, ERR_AFFUSE_INTERRUPTED, ERR_AFFUSE_EXTRACT, and those of every stage
 */
export async function runDemo(settings: DemoSettings, options: DemoOptions): Promise<DemoResult> {
  const { out, threads = null, signal } = options;
  const corpusDir = path.join(out, "corpus");
  const featuresDir = path.join(out, "features");
  const runDir = path.join(out, "run");
  const config = demoTrainConfig(settings, corpusDir, featuresDir, threads); // refuses bad settings before any work
  const seconds = {} as DemoResult["seconds"];
  const began = performance.now();
  /** @param folder where the work of a stage may be done already; it then calls `begin` with the first sign of more */
  const stage = async <T>(name: DemoStage, work: (begin: () => void) => Promise<T>, folder?: string): Promise<T> => {
    if (signal?.aborted) throw new AffuseError("ERR_AFFUSE_INTERRUPTED", `interrupted before ${name}.`, "Run the same command again to go on.");
    let begun = false;
    const begin = () => {
      if (!begun) options.onStage?.(name);
      begun = true;
    };
    if (folder === undefined) begin();
    const start = performance.now();
    const result = await work(begin);
    seconds[name] = (performance.now() - start) / 1000;
    if (!begun) options.onReused?.(name, folder as string);
    return result;
  };
  const { clips, testClips, seed, noise } = settings;
  const ofThreads = threads === null ? {} : { threads };

  // Clips that are there and features that are there make no progress.
  const progress = (begin: () => void) => ({ done, total }: { done: number; total: number }) => {
    begin();
    options.onProgress?.(done, total);
  };
  const corpus = await stage(
    "corpus",
    (begin) => synthesise(corpusDir, { clips, testClips, seed, noise, ...ofThreads }, progress(begin)),
    corpusDir,
  );
  const encode = async (begin: () => void): Promise<void> => {
    const summary = await extract(corpusDir, { out: featuresDir, ...ofThreads, ...(signal && { signal }), onProgress: progress(begin) });
    const [first] = summary.failed;
    if (first) throw new AffuseError("ERR_AFFUSE_EXTRACT", `${summary.failed.length} clips could not be encoded; ${first.clip}: ${first.message}`);
  };
  await stage("features", encode, featuresDir);
  const train = (begin: () => void) => {
    const onEvent = (event: TrainEvent): void => {
      if (event.type === "fold" && !event.finished) begin();
      options.onTrainEvent?.(event);
    };
    return trainRun(config, { out: runDir, resume: true, ...(signal && { signal }), onEvent });
  };
  await stage("training", train, runDir);
  const evaluated = await stage("evaluation", () => evaluateAll(config, runDir, corpusDir, seed));
  const result: Omit<DemoResult, "report"> = {
    settings,
    testClips: evaluated.testClips,
    ceilings: corpus.ceilings,
    systems: evaluated.systems,
    attention: evaluated.attention,
    seconds,
  };
  const report = path.join(out, "report.html");
  await stage("report", async () => writeDemoReport(report, result, evaluated, { corpusDir, runDir }));
  seconds.total = (performance.now() - began) / 1000;
  return { ...result, report };
}

/** What the report needs beyond the scores. */
export interface EvaluatedClips {
  predictions: EnsemblePrediction[];
  truth: ReadonlyMap<string, ClipTruth>;
  streams: readonly { name: string; modality: string }[];
}

async function evaluateAll(config: TrainConfig, run: string, corpusDir: string, seed: number) {
  const found = new Map<string, Evaluation>();
  for (const structures of [UNIMODAL, FUSION]) {
    const evaluation = await evaluateRuns([run], { on: TEST_SPLIT, structures, seed });
    for (const [name, system] of Object.entries(evaluation.systems)) {
      // Pooling audio-only and visual-only is not what the demonstration calls its ensemble.
      if (name === "ensemble" && structures === UNIMODAL) continue;
      found.set(name, system.evaluation as Evaluation);
    }
  }
  const systems = Object.fromEntries(SYSTEMS.map((name) => [name, found.get(name)])) as Record<SystemName, Evaluation>;
  const truth = readTruth(corpusDir);
  const { features, clips } = loadData(config, TEST_SPLIT);
  const names = clips.map(({ name }) => name);
  const predict = async (structures: readonly string[]) => {
    const ensemble = await loadEnsemble([run], { structures });
    try {
      return { predictions: await ensemble.predict(features, names), streams: ensemble.streams };
    } finally {
      ensemble.dispose();
    }
  };
  const { predictions, streams } = await predict(FUSION);
  const gathered = await predict(AFG_STRUCTURES);
  const attention: Record<string, AttentionContrast> = {};
  for (const { name, modality } of streams) {
    attention[name] = attentionContrast(
      gathered.predictions.map((p) => ({ weights: p.attention[name] as Float32Array, truth: truth.get(p.name) as ClipTruth })),
      modality as "audio" | "visual",
    );
  }
  const clipsForReport = predictions.map((p, i) => ({ ...p, attention: gathered.predictions[i]?.attention ?? p.attention }));
  return { systems, attention, testClips: names.length, predictions: clipsForReport, truth, streams };
}
