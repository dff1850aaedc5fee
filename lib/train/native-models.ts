/**
 * The native models as a factory; imported only when models are made, so that everything else works without
 * the addon.
 */
import type { Precision } from "../graph/compile.ts";
import type { ModelFactory } from "./fold-job.ts";

export interface NativeModelOptions {
  device?: string;
  /** "f32" by default. */
  precision?: Precision;
  /** null: as many as the runtime chooses. */
  threads?: number | null;
  programCacheBytes?: number;
}

/**
 * @throws ERR_AFFUSE_NOT_BUILT when there is no compiled addon, and the code of what keeps the device from
 * computing: now, before files are written, rather than at the first step
 */
export async function nativeModels(options: NativeModelOptions = {}): Promise<ModelFactory> {
  const [{ createModel }, { loadAddon }] = await Promise.all([
    import("../models/index.ts"),
    import("../native/load.ts"),
  ]);
  const { device = "cpu", precision = "f32", threads, programCacheBytes } = options;
  const addon = loadAddon();
  if (threads) addon.setThreads(threads);
  addon.call(device, "scale", [{ dtype: "f32", shape: [1], data: Float32Array.of(1) }], { factor: 2 }, [true]);
  const modelOptions = { device, precision, ...(programCacheBytes !== undefined && { programCacheBytes }) };
  return (config, streams, classes) => createModel(config, streams, classes, modelOptions);
}
