/** Worker thread of `synthesise`: writes every `parts`-th clip, and reports each. */
import { parentPort, workerData } from "node:worker_threads";
import { type CorpusRecipe, planCorpus, writeClip } from "./clip.ts";

/** What the thread is started with. */
export interface RenderTask {
  dir: string;
  recipe: CorpusRecipe;
  /** This thread's clips are those whose position modulo `parts` is `part`. */
  part: number;
  parts: number;
}

/** What it posts: one clip done, or why it stopped. */
export type RenderReport = { done: string } | { error: { code: string; message: string } };

const { dir, recipe, part, parts } = workerData as RenderTask;
try {
  planCorpus(recipe).forEach((plan, i) => {
    if (i % parts !== part) return;
    writeClip(dir, recipe, plan);
    parentPort?.postMessage({ done: plan.name } satisfies RenderReport);
  });
} catch (error) {
  const { code = "ERR_AFFUSE_INTERNAL", message } = error as Error & { code?: string };
  parentPort?.postMessage({ error: { code, message } } satisfies RenderReport);
}
