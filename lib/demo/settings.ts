/** What the demonstration trains: small enough for two cores and a few minutes, on the same code as everything else. */
import { parseTrainConfig, type TrainConfig } from "../train/config.ts";

/** Trained and reported in this order; the last four are the ensemble's members. */
export const UNIMODAL = ["audio", "visual"] as const;
export const FUSION = ["concat", "weighted", "hierarchical", "gfbp"] as const;
export const SYSTEMS = [...UNIMODAL, ...FUSION, "ensemble"] as const;
export type SystemName = (typeof SYSTEMS)[number];

/** Name of the split that no training sees. */
export const TEST_SPLIT = "test1";

export interface DemoSettings {
  /** Training and test clips of the corpus. */
  clips: number;
  testClips: number;
  /** Corpus, folds, initial weights, dropout and bootstrap all follow from it. */
  seed: number;
  /** Noise level of the corpus, 1 = moderate. */
  noise: number;
  epochs: number;
  folds: number;
}

export const DEFAULT_SETTINGS: DemoSettings = { clips: 1200, testClips: 300, seed: 1, noise: 1, epochs: 28, folds: 3 };

/** @param data corpus folder with the label files @param features folder that holds the stream folders */
export function demoTrainConfig(settings: DemoSettings, data: string, features: string, threads: number | null): TrainConfig {
  return parseTrainConfig({
    data,
    features,
    structures: [...UNIMODAL, ...FUSION],
    model: {
      attention: { dim: 64 },
      mlp: { widths: [64, 32], dropout: 0.2 },
      fbp: { outputs: 64 },
    },
    train: { epochs: settings.epochs, folds: settings.folds, seed: settings.seed, lr: 3e-3, warmup: 2, decayEvery: 4, patience: null },
    run: { threads },
  });
}
